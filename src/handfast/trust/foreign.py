"""Authorities that are not ours: whether a chain of theirs can be trusted for clients, and what their leaves say.

Decides on certificates alone. Refuses to know who trusts them, for which host, and what name a leaf gets: that is
`handfast.access.authority`. The law of this file: a chain is whole. Every CA that may issue a leaf is in it, so that the set of
issuers is known and finite, and no CA that a client sends along counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.trust import der
from handfast.trust.facts import facts, load
from handfast.trust.profile import CLIENT_AUTH, UNREADABLE, key_facts

MAX_CAS = 16
FEWEST_RSA_BITS, MOST_RSA_BITS = 2048, 8192
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
WEAK_HASHES = frozenset({"md2", "md5", "sha1", "unknown"})

Attributes = Mapping[str, tuple[bytes, ...]]
"""What a leaf says of itself, by field. Texts are UTF-8; a text in an old encoding is empty; an OID is its DER content."""

SUBJECT_FIELDS = {
    "common_name": "2.5.4.3",
    "organization": "2.5.4.10",
    "organizational_unit": "2.5.4.11",
    "country": "2.5.4.6",
    "state": "2.5.4.8",
    "locality": "2.5.4.7",
    "serial_number": "2.5.4.5",
    "user_id": "0.9.2342.19200300.100.1.1",
}
NAME_FIELDS = {"email": 0x81, "dns": 0x82, "uri": 0x86}
OID_FIELDS = ("eku", "policy")
FIELDS = (*SUBJECT_FIELDS, *NAME_FIELDS, "issuer_common_name", *OID_FIELDS)

_EKU, _POLICIES, _NAMES = der.oid("2.5.29.37"), der.oid("2.5.29.32"), der.oid("2.5.29.17")
_TEXTS = {0x0C, 0x13, 0x16}
"""UTF8String, PrintableString, IA5String: those whose octets are UTF-8."""
_ENCODINGS = {0x0C: "utf-8", 0x13: "latin-1", 0x14: "latin-1", 0x16: "latin-1", 0x1A: "latin-1", 0x1E: "utf-16-be", 0x1C: "utf-32-be"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ForeignCa:
    """One CA of a chain. ``subject`` and ``issuer`` are Names, and ``key`` the SubjectPublicKeyInfo, as they stand in it.

    ``fingerprint``, ``serial`` and ``key_id`` (empty where there is none) are lower case hex; ``name`` is for people.
    """

    der: bytes
    name: str
    subject: bytes
    issuer: bytes
    key: bytes
    key_id: str
    serial: str
    fingerprint: str
    window: Window


def read_ca(certificate: bytes) -> ForeignCa:
    """Read a CA certificate (DER), and judge nothing.

    Raises:
        BadInput: it cannot be read.
    """
    seen, fields = facts(certificate), _fields(certificate)
    return ForeignCa(
        der=certificate,
        name=seen.subject[:200],
        subject=fields[4],
        issuer=fields[2],
        key=fields[5],
        key_id=seen.ski,
        serial=seen.serial,
        fingerprint=seen.fingerprint,
        window=seen.window,
    )


def judge(certificates: Iterable[bytes]) -> tuple[ForeignCa, ...]:
    """Read a whole chain, or several that are one authority's: its roots and every CA below them, in any order.

    Raises:
        BadInput: it is empty or too long, a certificate is no CA that may issue for clients (RFC 5280 sections 4.2.1.3, 4.2.1.9
            and 4.2.1.12), is weak, or has no issuer in it.
    """
    found = {one.fingerprint: one for one in (read_ca(certificate) for certificate in certificates)}
    if not 1 <= len(found) <= MAX_CAS:
        raise BadInput(f"there are {len(found)} certificates in it", hint=f"a chain has 1 to {MAX_CAS} of them")
    cas = tuple(one for _, one in sorted(found.items()))
    for ca in cas:
        _refuse_unfit(ca)
    rooted = chained(cas, [ca for ca in cas if _signed(ca, ca)])
    for ca in cas:
        if ca not in rooted:
            raise BadInput(
                f"the chain is not whole: nobody in it issued {ca.name}",
                hint="add the certificate of its issuer, up to the self-signed root",
            )
    return cas


def chained(cas: Iterable[ForeignCa], roots: Sequence[ForeignCa]) -> list[ForeignCa]:
    """Give the roots, and those that they issued, directly or through others here."""
    counted, left = list(roots), [ca for ca in cas if ca not in roots]
    while issued := [ca for ca in left if any(_signed(above, ca) for above in counted)]:
        counted += issued
        left = [ca for ca in left if ca not in issued]
    return counted


def ended(cas: Iterable[ForeignCa], now: datetime) -> str:
    """Say which CA does not count now, or nothing."""
    for ca in cas:
        if now >= ca.window.not_after:
            return f"{ca.name} ended on {ca.window.not_after:%Y-%m-%d}"
        if now < ca.window.not_before:
            return f"{ca.name} begins on {ca.window.not_before:%Y-%m-%d}"
    return ""


def confusable(ca: ForeignCa, others: Iterable[ForeignCa]) -> ForeignCa | None:
    """Give one of the others with the same name, key or key identifier: a leaf of one could be taken for the other's.

    Names are compared more loosely than any verifier does (RFC 5280 section 7.1): case, spaces and encoding do not count.
    """
    name = _folded(ca.subject)
    for other in others:
        if other.key == ca.key or (ca.key_id and other.key_id == ca.key_id) or _folded(other.subject) == name:
            return other
    return None


def _refuse_unfit(ca: ForeignCa) -> None:
    seen, certificate = facts(ca.der), load(ca.der)
    if not seen.is_ca:
        raise BadInput(
            f"{ca.name} is no CA certificate", hint="give roots and issuing CAs, and no client's certificate"
        )
    usage = next((one.value for one in certificate.extensions if isinstance(one.value, x509.KeyUsage)), None)
    if usage is None or not usage.key_cert_sign:
        raise BadInput(f"{ca.name} may not sign certificates", hint="its key usage needs keyCertSign")
    if seen.ekus is not None and CLIENT_AUTH not in seen.ekus:
        raise BadInput(f"{ca.name} may not issue for clients", hint="its extended key usage lacks clientAuth")
    weak = weakness(certificate)
    if not weak and not seen.self_issued and seen.signature_hash in WEAK_HASHES:
        weak = f"a signature with {seen.signature_hash}"
    if weak:
        raise BadInput(f"{ca.name} has {weak}", hint="ask its keeper for a stronger authority")


def weakness(certificate: x509.Certificate) -> str:
    """Say what is wrong with the key of a CA or of one that answers for it, or nothing."""
    try:
        key = key_facts(certificate.public_key())
    except UNREADABLE:
        return "a key that cannot be read"
    fit = key.kind == "ed25519" or key.curve in CURVES
    fit = fit or (key.kind == "rsa" and FEWEST_RSA_BITS <= key.bits <= MOST_RSA_BITS)
    return "" if fit else f"a key that is not accepted ({key})"


def _signed(above: ForeignCa, below: ForeignCa) -> bool:
    if above.subject != below.issuer:
        return False
    try:
        load(below.der).verify_directly_issued_by(load(above.der))
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


# What stands in a certificate, as it stands there


def issuer_name(certificate: bytes) -> bytes:
    """Give the issuer's Name, its octets as they are.

    Raises:
        BadInput: it is not DER.
    """
    return _fields(certificate)[2]


def attributes(certificate: bytes) -> Attributes:
    """Read what rules may ask of a leaf (DER): its subject, its names, its uses and policies, its issuer's common name.

    DNS names are in lower case.

    Raises:
        BadInput: it is not DER, lacks what every certificate has, or a name in it is not ASCII.
    """
    try:
        return _said(_fields(certificate))
    except (IndexError, ValueError) as error:  # an element has fewer parts than its kind has
        raise BadInput("this is no certificate") from error


def _said(fields: tuple[bytes, ...]) -> Attributes:
    subject, extensions = _attributes(fields[4]), _extensions(fields)
    names = der.children(extensions[_NAMES]) if _NAMES in extensions else ()
    said = {field: tuple(subject.get(der.oid(oid), ())) for field, oid in SUBJECT_FIELDS.items()}
    said |= {field: tuple(_ascii(one) for one in names if one[0] == tag) for field, tag in NAME_FIELDS.items()}
    said["dns"] = tuple(name.lower() for name in said["dns"])
    said["issuer_common_name"] = tuple(_attributes(fields[2]).get(der.oid(SUBJECT_FIELDS["common_name"]), ()))
    said["eku"] = tuple(content(one) for one in der.children(extensions[_EKU])) if _EKU in extensions else ()
    policies = der.children(extensions[_POLICIES]) if _POLICIES in extensions else ()
    return said | {"policy": tuple(content(der.children(one)[0]) for one in policies)}


def _fields(certificate: bytes) -> tuple[bytes, ...]:
    """Give the fields of a TBSCertificate from the serial number on: Name of the issuer is the third, of the subject the fifth."""
    tbs, *_ = der.children(certificate)
    fields = der.children(tbs)
    fields = fields[1:] if fields and fields[0][0] == 0xA0 else fields
    if len(fields) < 6:
        raise BadInput("this is no certificate")
    return fields


def _extensions(fields: tuple[bytes, ...]) -> dict[bytes, bytes]:
    listed = (one for field in fields if field[0] == 0xA3 for one in der.children(der.children(field)[0]))
    parts = [der.children(extension) for extension in listed]
    return {part[0]: content(part[-1]) for part in parts}


def _attributes(name: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for single in (one for several in der.children(name) for one in der.children(several)):
        kind, text = der.children(single)
        found.setdefault(kind, []).append(content(text) if text[0] in _TEXTS else b"")
    return found


def _ascii(name: bytes) -> bytes:
    text = content(name)
    if not text.isascii():
        raise BadInput("a name in the certificate is not ASCII")
    return text


def content(value: bytes) -> bytes:
    """Give what is within one DER value."""
    return value[2 + (value[1] & 0x7F if value[1] & 0x80 else 0) :]


def _folded(name: bytes) -> tuple[Collection[tuple[bytes, str]], ...]:
    return tuple(
        frozenset((kind, _fold(text)) for kind, text in (der.children(single) for single in der.children(several)))
        for several in der.children(name)
    )


def _fold(text: bytes) -> str:
    encoding = _ENCODINGS.get(text[0])
    if encoding is None:
        return text.hex()
    return "".join(content(text).decode(encoding, "replace").casefold().split())
