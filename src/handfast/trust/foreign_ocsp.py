"""OCSP of authorities that are not ours: what is asked, whether an answer counts, and what it says.

Decides on signer, certificate, nonce, time and scope (RFC 6960 section 3.2). Refuses to know where an answer came from, and what
becomes of those it names. The signer is the CA that issued the certificate, or whom that very CA certified for it: nobody else
that is trusted for anything. SHA-1 names the issuer, as it is what every responder knows (RFC 5019 section 2.1.1), and is compared
with what we hashed ourselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1, sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.windows import to_unix
from handfast.trust import der
from handfast.trust.facts import facts, load
from handfast.trust.foreign import WEAK_HASHES, ForeignCa, content, issuer_name, weakness
from handfast.trust.foreign_signature import Signed, bounded, signed_answer
from handfast.trust.profile import BACKDATE, OCSP_SIGNING, UNREADABLE
from handfast.trust.standing import LATEST_S, Standing, Word

MAX_ANSWER_BYTES = 64 * 1024
MOST_CERTIFICATES = 8
"""So many certificates of an answer are looked at for its signer's."""
NONCE_OCTETS = 32
SOONEST_S = 5
"""An answer is asked for anew after half of its time, but not before this, and not after `LATEST_S`."""
WITHOUT_END_S = 300
"""So long counts an answer that does not say when the next one is due, and that was made for us alone."""

_LATER = {ocsp.OCSPResponseStatus.TRY_LATER, ocsp.OCSPResponseStatus.INTERNAL_ERROR}
_ALGORITHMS = {"sha1": sha1, "sha256": sha256}
"""By these an answer may name the issuer: nobody needs another one."""
_WORDS = {
    ocsp.OCSPCertStatus.GOOD: Word.GOOD,
    ocsp.OCSPCertStatus.REVOKED: Word.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN: Word.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Question:
    """A certificate by its serial, the CA that issued it, and 32 octets that were never asked with before."""

    serial: int
    ca: ForeignCa
    nonce: bytes


def issuer_of(leaf: bytes, cas: Iterable[ForeignCa], now: datetime) -> ForeignCa | None:
    """Give the CA whose key signed a leaf (DER) that counts now, or None.

    Raises:
        BadInput: the leaf cannot be read.
    """
    if not facts(leaf).window.contains(now):
        return None
    name = issuer_name(leaf)
    return next((ca for ca in cas if ca.subject == name and _issued(ca, load(leaf))), None)


def request(asked: Question) -> bytes:
    """Write the OCSPRequest of a question, DER (RFC 6960 section 4.1, RFC 9654)."""
    name_hash, key_hash = _hashes(asked.ca, "sha1")
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(name_hash, key_hash, asked.serial, hashes.SHA1())  # noqa: S303 - a name
    return builder.add_extension(x509.OCSPNonce(asked.nonce), critical=False).build().public_bytes(Encoding.DER)


def judge_ocsp(raw: bytes, asked: Question, now: datetime) -> Standing | Refusal:
    """Read the answer to a question (an OCSPResponse, DER).

    Returns:
        What it says, or why it says nothing: REVOCATION_OCSP_UNAVAILABLE where the responder asks for patience, else
        REVOCATION_OCSP_UNUSABLE.
    """
    if len(raw) > MAX_ANSWER_BYTES:
        return _unusable(f"it is larger than {MAX_ANSWER_BYTES} bytes")
    try:
        answer = ocsp.load_der_ocsp_response(raw)
        if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return _declined(answer.response_status)
        why = (
            _not_ours(answer, asked)
            or _not_now(answer, now)
            or _not_signed(signed_answer(raw, answer), answer, asked.ca, now)
        )
        return _unusable(why) if why else _standing(answer, now)
    except UNREADABLE as error:
        return _unusable(f"it cannot be read: {str(error)[:100]}")
    except BadInput as error:
        return _unusable(error.message)


def _standing(answer: ocsp.OCSPResponse, now: datetime) -> Standing:
    at = to_unix(now)
    until = to_unix(answer.next_update_utc) if answer.next_update_utc else at + WITHOUT_END_S
    renew = at + min(max((until - at) // 2, SOONEST_S), LATEST_S)
    return Standing(_WORDS[answer.certificate_status], to_unix(answer.this_update_utc), until, renew)


def _declined(status: ocsp.OCSPResponseStatus) -> Refusal:
    word = status.name.lower().replace("_", " ")
    if status in _LATER:
        return Refusal(Reason.REVOCATION_OCSP_UNAVAILABLE, {"error": f"it answers {word!r}"})
    return _unusable(f"it says {word!r}")


# Whom and what it is about


def _not_ours(answer: ocsp.OCSPResponse, asked: Question) -> str:
    """Say why it answers another question, or nothing (RFC 6960 section 3.2, RFC 9654 section 2.1)."""
    if len(list(answer.responses)) != 1:
        return "it does not speak of exactly one certificate"
    said, algorithm = (answer.issuer_name_hash, answer.issuer_key_hash), answer.hash_algorithm.name
    if answer.serial_number != asked.serial or algorithm not in _ALGORITHMS or said != _hashes(asked.ca, algorithm):
        return "it speaks of another certificate"
    if any(one.critical for one in (*_others(answer), *answer.single_extensions)):
        return "it has a critical extension that is not known here"
    nonce = _nonce(answer)
    return "it answers another question: its nonce is not ours" if nonce not in {None, asked.nonce} else ""


def _others(answer: ocsp.OCSPResponse) -> list[x509.Extension[x509.ExtensionType]]:
    return [one for one in answer.extensions if not isinstance(one.value, x509.OCSPNonce)]


def _nonce(answer: ocsp.OCSPResponse) -> bytes | None:
    return next((one.value.nonce for one in answer.extensions if isinstance(one.value, x509.OCSPNonce)), None)


def _hashes(ca: ForeignCa, algorithm: str) -> tuple[bytes, bytes]:
    """Give the hashes of a CA's name and of its key's bits."""
    bits, digest = content(der.children(ca.key)[1])[1:], _ALGORITHMS[algorithm]
    return digest(ca.subject, usedforsecurity=False).digest(), digest(bits, usedforsecurity=False).digest()


# When


def _not_now(answer: ocsp.OCSPResponse, now: datetime) -> str:
    """Say why it does not count at this time, or nothing. Without an end and without our nonce anybody could play it back for ever."""
    if now < max(answer.this_update_utc, answer.produced_at_utc) - BACKDATE:
        return f"it counts from {answer.this_update_utc.isoformat()} on"
    if answer.next_update_utc is None:
        return "" if _nonce(answer) else "it neither says when it ends nor repeats our nonce"
    if now >= answer.next_update_utc:
        return f"it ended at {answer.next_update_utc.isoformat()}"
    return ""


# Who


def _not_signed(signed: Signed | None, answer: ocsp.OCSPResponse, ca: ForeignCa, now: datetime) -> str:
    if signed is None or (signed.digest and signed.digest.name in WEAK_HASHES):
        return "its signature is weak"
    if signed.by(load(ca.der).public_key()):
        return ""
    delegates = [one for one in answer.certificates[:MOST_CERTIFICATES] if _may_answer(one, ca, now)]
    if any(signed.by(one.public_key()) for one in delegates):
        return ""
    return "neither the certificate's issuer signed it, nor whom that certified for OCSP"


def _may_answer(certificate: x509.Certificate, ca: ForeignCa, now: datetime) -> bool:
    """Tell whether a CA lets the holder answer in its stead (RFC 6960 section 4.2.2.2). Whether that was revoked nobody can ask."""
    usage = next((one.value for one in certificate.extensions if isinstance(one.value, x509.KeyUsage)), None)
    if (usage and not usage.digital_signature) or not _issued(ca, certificate) or weakness(certificate):
        return False
    raw = certificate.public_bytes(Encoding.DER)
    seen = facts(raw)
    strong = bounded(raw) and seen.signature_hash not in WEAK_HASHES
    return strong and OCSP_SIGNING in (seen.ekus or ()) and seen.window.contains(now)


def _issued(ca: ForeignCa, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(load(ca.der))
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _unusable(why: str) -> Refusal:
    return Refusal(Reason.REVOCATION_OCSP_UNUSABLE, {"answer": why})
