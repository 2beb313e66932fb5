"""OCSP: what a request asks, and the bytes of what is answered.

Decides which requests can be read (RFC 6960 section 4.1), what a response says, and its layout (section 4.2; the profile of RFC
5019, the nonce of RFC 9654). Refuses to know what is revoked, and who signs.

Requests may be signed and may name who asks: neither is looked at, as everybody may ask. SHA-1 names an issuer here and protects
nothing: whoever finds two issuers of one hash gets an answer about a serial that its signer never issued.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from hashlib import sha1, sha256
from typing import TypeAlias, assert_never

from handfast.base.refusal import BadInput
from handfast.base.windows import Window, whole_second
from handfast.trust import der
from handfast.trust.facts import IssuerFacts, hex_serial
from handfast.trust.profile import BACKDATE
from handfast.trust.revocation import RevocationReason

MAX_REQUEST_BYTES = 4096
MAX_CERTIFICATES = 10
LONGEST_NONCE, LONGEST_NONCE_KNOWN = 32, 128
RESPONSE_LIFE = timedelta(hours=1)

_NONCE = der.oid("1.3.6.1.5.5.7.48.1.2")
_BASIC = der.oid("1.3.6.1.5.5.7.48.1.1")
_NULL = b"\x05\x00"
_TRUE = b"\x01\x01\xff"
_SHA1, _SHA256 = der.oid("1.3.14.3.2.26"), der.oid("2.16.840.1.101.3.4.2.1")
_SUCCESSFUL = der.integer(0, tag=0x0A)
_VERSION_1 = der.tlv(0xA0, der.integer(0))
_SERIAL_OCTETS = 20

# The tags of what may stand in a SEQUENCE, in the order in which it has to.
_SEQUENCE, _BOOLEAN, _INTEGER, _BITS, _OCTETS, _OID = 0x30, 0x01, 0x02, 0x03, 0x04, 0x06
_FIRST, _SECOND, _THIRD = 0xA0, 0xA1, 0xA2
_REQUEST = (_SEQUENCE, _FIRST)
_TBS_REQUEST = (_FIRST, _SECOND, _SEQUENCE, _THIRD)
_ONE_REQUEST = (_SEQUENCE, _FIRST)
_EXTENSION = (_OID, _BOOLEAN, _OCTETS)


class OcspError(IntEnum):
    """The answers that are not signed (RFC 6960 section 4.2.1)."""

    MALFORMED_REQUEST = 1
    INTERNAL_ERROR = 2
    TRY_LATER = 3
    UNAUTHORIZED = 6


@dataclass(frozen=True, slots=True)
class IssuerId:
    """An issuer by the hashes of its name and of its key. ``algorithm`` is the hash's object identifier, DER."""

    algorithm: bytes
    name_hash: bytes
    key_hash: bytes


@dataclass(frozen=True, slots=True)
class CertificateId:
    """One certificate that is asked for. ``serial`` is lower case hex; ``der`` is the CertID as it was sent, to be given back."""

    issuer: IssuerId
    serial: str
    der: bytes


@dataclass(frozen=True, slots=True)
class OcspRequest:
    """What is asked: 1 to 10 certificates. ``nonce`` is empty where the answer need not be fresh."""

    certificates: tuple[CertificateId, ...]
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class Good:
    """It was issued, and is not revoked."""


@dataclass(frozen=True, slots=True)
class RevokedAt:
    """It is revoked."""

    at: datetime
    reason: RevocationReason


@dataclass(frozen=True, slots=True)
class Unknown:
    """Its issuer is ours and never issued it."""


CertificateStatus: TypeAlias = Good | RevokedAt | Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsePlan:
    """Everything that a signed answer will say. ``responder`` is the SHA-1 of the responder's key (RFC 6960 section 4.2.2.3)."""

    responder: bytes
    produced_at: datetime
    window: Window
    answers: tuple[tuple[CertificateId, CertificateStatus], ...]
    nonce: bytes


def issuer_ids(issuer: IssuerFacts) -> tuple[IssuerId, ...]:
    """Give the names that a request may call an issuer by: SHA-1 and SHA-256."""
    bits = der.children(issuer.public_key_der)[1]
    key = _content(bits, _BITS)[1:]
    return tuple(
        IssuerId(oid, digest(issuer.subject_der).digest(), digest(key).digest())
        for oid, digest in ((_SHA1, partial(sha1, usedforsecurity=False)), (_SHA256, sha256))
    )


def question(issuer: IssuerFacts, serial: str) -> OcspRequest:
    """Ask for one certificate of an issuer by its serial (lower case hex), without a nonce.

    By SHA-1, as many clients find no other name of a certificate in what is stapled (RFC 5019 section 2.1.1).
    """
    named, number = issuer_ids(issuer)[0], der.integer(int(serial, 16))
    hashes = (der.octet_string(named.name_hash), der.octet_string(named.key_hash))
    asked = der.sequence(der.sequence(named.algorithm, _NULL), *hashes, number)
    return OcspRequest((CertificateId(named, serial, asked),))


def parse_request(data: bytes) -> OcspRequest:
    """Read an OCSPRequest (DER).

    A nonce of more than 32 octets is passed over, as RFC 9654 section 2.1 allows; one of none or of more than 128 is refused.

    Raises:
        BadInput: it is over 4 KiB, no request, asks for none or for more than 10 certificates, or has a critical extension that is
            not known here.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise BadInput(f"the request is larger than {MAX_REQUEST_BYTES} bytes")
    outer = _fields(data, _REQUEST)
    parts = _fields(outer.get(_SEQUENCE, b""), _TBS_REQUEST)
    if parts.get(_FIRST, _VERSION_1) != _VERSION_1:
        raise BadInput("this is not a request of OCSP version 1")
    listed = _sequence(parts.get(_SEQUENCE, b""))
    if not 1 <= len(listed) <= MAX_CERTIFICATES:
        raise BadInput(f"a request asks for 1 to {MAX_CERTIFICATES} certificates")
    return OcspRequest(tuple(map(_request, listed)), _nonce(_extensions(parts.get(_THIRD))))


def plan_response(
    request: OcspRequest, statuses: Sequence[CertificateStatus], *, responder: bytes, now: datetime, until: datetime
) -> ResponsePlan:
    """Plan a signed answer, with one status for each certificate asked for. It counts for an hour, and not after ``until``.

    Raises:
        BadInput: nothing can be said for that long, as ``until`` has come.
    """
    produced = whole_second(now)
    # Backdated as leaves are: a client whose clock is behind would refuse what is not valid yet.
    window = Window(produced - BACKDATE, min(produced + RESPONSE_LIFE, whole_second(until)))
    answers = tuple(zip(request.certificates, statuses, strict=True))
    return ResponsePlan(responder=responder, produced_at=produced, window=window, answers=answers, nonce=request.nonce)


def tbs_response(plan: ResponsePlan) -> bytes:
    """Write the ResponseData of a plan (RFC 6960 section 4.2.1)."""
    times = _generalized(plan.window.not_before) + der.tlv(0xA0, _generalized(plan.window.not_after))
    answers = (der.sequence(asked.der, _status(status), times) for asked, status in plan.answers)
    nonce = der.sequence(_NONCE, der.octet_string(der.octet_string(plan.nonce)))
    return der.sequence(
        der.tlv(0xA2, der.octet_string(plan.responder)),
        _generalized(plan.produced_at),
        der.sequence(*answers),
        der.tlv(0xA1, der.sequence(nonce)) if plan.nonce else b"",
    )


def assemble_response(signed: bytes, algorithm: bytes, signature: bytes, responder_der: bytes) -> bytes:
    """Put ResponseData, its signature and the responder's certificate together.

    ``algorithm`` is the AlgorithmIdentifier of the responder's key, DER.
    """
    certificates = der.tlv(0xA0, der.sequence(responder_der))
    basic = der.sequence(signed, algorithm, der.bit_string(signature), certificates)
    return der.sequence(_SUCCESSFUL, der.tlv(0xA0, der.sequence(_BASIC, der.octet_string(basic))))


def failure(error: OcspError) -> bytes:
    """Write an answer without a signature, which says nothing of any certificate."""
    return der.sequence(der.integer(error, tag=0x0A))


def _status(status: CertificateStatus) -> bytes:
    match status:
        case Good():
            return b"\x80\x00"
        case RevokedAt(at, reason):
            said = der.tlv(0xA0, der.integer(reason.code, tag=0x0A)) if reason.code else b""
            return der.tlv(0xA1, _generalized(at) + said)
        case Unknown():
            return b"\x82\x00"
    assert_never(status)


def _generalized(moment: datetime) -> bytes:
    """Write a GeneralizedTime in whole seconds; OCSP has no UTCTime (RFC 6960 section 4.2.2.1)."""
    at = moment.astimezone(UTC)
    return der.tlv(0x18, f"{at.year:04}{at.month:02}{at.day:02}{at.hour:02}{at.minute:02}{at.second:02}Z".encode())


# Reading


def _request(data: bytes) -> CertificateId:
    """Read one Request; nothing that it adds to its CertID may be critical, as nothing of that is known here."""
    parts = _fields(data, _ONE_REQUEST)
    _extensions(parts.get(_FIRST))
    asked = parts.get(_SEQUENCE, b"")
    algorithm, name_hash, key_hash, serial = _exactly(4, asked)
    return CertificateId(
        IssuerId(_hash(algorithm), _content(name_hash, _OCTETS), _content(key_hash, _OCTETS)), _serial(serial), asked
    )


def _hash(data: bytes) -> bytes:
    """Read the AlgorithmIdentifier of a hash: without parameters, or with NULL (RFC 5754 section 2)."""
    parts = _sequence(data)
    if not parts or parts[0][0] != _OID or parts[1:] not in ((), (_NULL,)):
        raise BadInput("this is not the identifier of a hash")
    return parts[0]


def _serial(data: bytes) -> str:
    octets = _content(data, _INTEGER)
    number = int.from_bytes(octets, "big")
    # A negative one, and one that is longer than it needs to be, is not what this number is written as.
    if der.integer(number) != data or len(octets.lstrip(b"\0")) > _SERIAL_OCTETS:
        raise BadInput("this is not a serial number (RFC 5280 section 4.1.2.2)")
    return hex_serial(number)


def _nonce(extensions: dict[bytes, bytes]) -> bytes:
    if _NONCE not in extensions:
        return b""
    nonce = _content(extensions[_NONCE], _OCTETS)
    if not 1 <= len(nonce) <= LONGEST_NONCE_KNOWN:
        raise BadInput("a nonce has from 1 to 128 octets (RFC 9654 section 2.1)")
    return nonce if len(nonce) <= LONGEST_NONCE else b""


def _extensions(data: bytes | None) -> dict[bytes, bytes]:
    """Read Extensions within their explicit tag: the value of each by its object identifier, both DER."""
    if data is None:
        return {}
    (listed,) = _exactly(1, data, tag=data[0])
    found: dict[bytes, bytes] = {}
    for one in _sequence(listed):
        parts = _fields(one, _EXTENSION)
        oid = parts.get(_OID, b"")
        if oid in found or parts.get(_BOOLEAN, _TRUE) != _TRUE:
            raise BadInput("an extension stands there twice, or is not DER")
        if _BOOLEAN in parts and oid != _NONCE:
            raise BadInput("a critical extension is not known here (RFC 6960 section 4.4)")
        found[oid] = _content(parts.get(_OCTETS, b""), _OCTETS)
    return found


def _fields(data: bytes, order: tuple[int, ...]) -> dict[int, bytes]:
    """Take a SEQUENCE apart whose fields have these tags, each at most once, in this order."""
    parts = _sequence(data)
    tags = [part[0] for part in parts]
    if not set(tags) <= set(order) or sorted(set(tags), key=order.index) != tags:
        raise BadInput("this is not an OCSP request")
    return dict(zip(tags, parts, strict=True))


def _exactly(count: int, data: bytes, tag: int = _SEQUENCE) -> tuple[bytes, ...]:
    parts = _sequence(data, tag)
    if len(parts) != count:
        raise BadInput("this is not an OCSP request")
    return parts


def _sequence(data: bytes, tag: int = _SEQUENCE) -> tuple[bytes, ...]:
    if data[:1] != bytes((tag,)):
        raise BadInput("this is not an OCSP request")
    return der.children(data)


def _content(data: bytes, tag: int) -> bytes:
    """Give the content of one primitive value: nothing stands after it."""
    (whole,) = _exactly(1, der.sequence(data))
    if whole[0] != tag:
        raise BadInput("this is not an OCSP request")
    return whole[2:] if whole[1] < 0x80 else whole[2 + (whole[1] & 0x7F) :]
