"""Revocation lists of authorities that are not ours: whether one counts, and what it says.

Decides on issuer, signature, time and scope (RFC 5280 section 6.3.3). Refuses to know where a list came from, and what becomes of
those in it. A list of a part of what its CA issued is refused, as nothing follows from not standing in it.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.windows import to_unix
from handfast.trust import der
from handfast.trust.facts import hex_serial, load
from handfast.trust.foreign import WEAK_HASHES, ForeignCa
from handfast.trust.foreign_signature import bounded
from handfast.trust.profile import BACKDATE, UNREADABLE

MAX_LIST_BYTES = 16 * 1024 * 1024
MOST_REVOKED = 20_000
"""So many serials of one authority go to every gateway."""
LONGEST_SERIAL = 32
"""Octets of a serial. RFC 5280 section 5.1.2.6 allows 20, and some CAs go past that; a bound on how many is none without this one."""
MAX_LISTS = 16

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]*)-----END X509 CRL-----")
_WEAK = "its signature is weak"
_REMOVED = x509.ReasonFlags.remove_from_crl


@dataclass(frozen=True, slots=True)
class RevocationList:
    """What one CA (``ca``, its certificate's fingerprint) revoked: serials in lower case hex, sorted.

    ``since`` and ``until`` are when the list was made and when the next one is due, Unix seconds.
    """

    ca: str
    since: int
    until: int
    serials: tuple[str, ...]


def crl_ders(raw: bytes, *, most: int = MAX_LIST_BYTES) -> tuple[bytes, ...]:
    """Give the lists in a file of ``most`` bytes: one in DER, or up to 16 in PEM.

    Raises:
        BadInput: there is none, or too much.
    """
    if len(raw) > most:
        raise BadInput(f"the revocation list is larger than {most} bytes")
    if raw[:1] == b"\x30":
        return (raw,)
    blocks = _BLOCK.findall(raw)
    if not 1 <= len(blocks) <= MAX_LISTS:
        raise BadInput("there is no revocation list in it", hint="it is PEM (X509 CRL) or DER")
    try:
        return tuple(b64decode(b"".join(block.split()), validate=True) for block in blocks)
    except Base64Error as error:
        raise BadInput("a PEM revocation list is damaged", hint="fetch it anew") from error


def judge_crl(raw: bytes, cas: Iterable[ForeignCa], now: datetime) -> tuple[RevocationList, ...] | Refusal:
    """Read one list (DER) of one of these CAs. Several certificates of the same name and key are one CA."""
    try:
        crl = x509.load_der_x509_crl(raw)
        signers = [ca for ca in cas if ca.subject == _issuer(raw) and _signed(crl, ca)]
        against = _against(crl, signers, now) if bounded(raw) else _unusable(_WEAK)
        if against:
            return against
        return _lists(crl, signers)
    except (*UNREADABLE, x509.ExtensionNotFound) as error:
        return _unusable(f"it cannot be read: {str(error)[:100]}")
    except BadInput as error:
        return _unusable(error.message)


def listed(raw: bytes, cas: Iterable[ForeignCa]) -> tuple[RevocationList, ...]:
    """Read one list (DER) that we made ourselves: what stands in it is revoked, however old it is.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        crl, issuer = x509.load_der_x509_crl(raw), _issuer(raw)
        return _lists(crl, [ca for ca in cas if ca.subject == issuer and _signed(crl, ca)])
    except UNREADABLE as error:
        raise BadInput(f"the revocation list cannot be read: {str(error)[:100]}") from error


def _lists(crl: x509.CertificateRevocationList, signers: Iterable[ForeignCa]) -> tuple[RevocationList, ...]:
    serials = tuple(sorted(hex_serial(serial) for serial in _serials(crl)))
    since, until = to_unix(crl.last_update_utc), to_unix(crl.next_update_utc) if crl.next_update_utc else 0
    return tuple(RevocationList(ca.fingerprint, since, until, serials) for ca in signers)


def newer(one: RevocationList, other: RevocationList) -> RevocationList:
    """Give the one made later: an older list that still counts says less, and may be played back by anybody."""
    return max(one, other, key=lambda seen: (seen.since, seen.until))


def _issuer(raw: bytes) -> bytes:
    """Give the issuer's Name as it stands there, behind the version and the algorithm (RFC 5280 section 5.1)."""
    fields = der.children(der.children(raw)[0])
    return fields[2] if fields[0][0] == 0x02 else fields[1]


def _against(crl: x509.CertificateRevocationList, signers: list[ForeignCa], now: datetime) -> Refusal | None:
    if not signers:
        return _unusable("no CA of this authority signed it")
    if (crl.signature_hash_algorithm.name if crl.signature_hash_algorithm else "") in WEAK_HASHES:
        return _unusable(_WEAK)
    if crl.next_update_utc is None:
        return _unusable("it does not say when the next one is due")
    if now >= crl.next_update_utc:
        return Refusal(Reason.REVOCATION_CRL_EXPIRED, {"until": crl.next_update_utc.isoformat()})
    if now < crl.last_update_utc - BACKDATE:
        return Refusal(Reason.REVOCATION_CRL_NOT_YET_VALID, {"since": crl.last_update_utc.isoformat()})
    if len(crl) > MOST_REVOKED:
        return _unusable(f"it has {len(crl)} entries; {MOST_REVOKED} are the most")
    narrow = _narrow(crl)
    return _unusable(narrow) if narrow else None


def _narrow(crl: x509.CertificateRevocationList) -> str:
    """Say why a list does not speak of every leaf of its CA, or nothing (RFC 5280 sections 5.2.4 and 5.2.5)."""
    for extension in crl.extensions:
        match extension.value:
            case x509.DeltaCRLIndicator():
                return "it lists changes alone"
            case x509.IssuingDistributionPoint() as scope:
                only = scope.only_contains_ca_certs or scope.only_contains_attribute_certs or scope.only_some_reasons
                if only or scope.indirect_crl or scope.full_name or scope.relative_name:
                    return "it speaks of a part of what its CA issued"
            case _ if extension.critical:
                return f"it has a critical extension that is not known here ({extension.oid.dotted_string})"
    return ""


def _serials(crl: x509.CertificateRevocationList) -> set[int]:
    found = set()
    for entry in crl:
        if any(one.critical and not isinstance(one.value, x509.CRLReason) for one in entry.extensions):
            raise BadInput("an entry has a critical extension that is not known here")
        if entry.serial_number.bit_length() > 8 * LONGEST_SERIAL:
            raise BadInput(f"an entry has a serial of more than {LONGEST_SERIAL} octets")
        reasons = (one.value.reason for one in entry.extensions if isinstance(one.value, x509.CRLReason))
        if _REMOVED not in reasons:
            found.add(entry.serial_number)
    return found


def _signed(crl: x509.CertificateRevocationList, ca: ForeignCa) -> bool:
    certificate = load(ca.der)
    usage = next((one.value for one in certificate.extensions if isinstance(one.value, x509.KeyUsage)), None)
    if usage is None or not usage.crl_sign:
        return False
    try:
        return crl.is_signature_valid(certificate.public_key())  # type: ignore[arg-type] # any other key is a TypeError
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _unusable(why: str) -> Refusal:
    return Refusal(Reason.REVOCATION_CRL_UNUSABLE, {"list": why})
