"""Signatures of authorities that are not ours: how something was signed, and whether a key did it.

Decides which parameters of RSASSA-PSS count (RFC 4055 section 3.1): SHA-256, SHA-384 or SHA-512, a mask by MGF1 with that same hash,
a salt of bounded length. What is left out there means SHA-1, and does not count. Refuses to know whose key may sign what.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509 import ocsp

from handfast.trust import der

SALT_OCTETS = range(20, 513)
"""From what is meant where nothing is said, to what fits into the largest key that counts."""

_PSS, _MGF1, _NULL = der.oid("1.2.840.113549.1.1.10"), der.oid("1.2.840.113549.1.1.8"), der.tlv(0x05, b"")
_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    der.sequence(der.oid(f"2.16.840.1.101.3.4.2.{arc}"), parameters): digest
    for arc, digest in ((1, hashes.SHA256()), (2, hashes.SHA384()), (3, hashes.SHA512()))
    for parameters in (b"", _NULL)  # both have to be understood (RFC 4055 section 2.1)
}
_HASH, _MASK, _SALT, _TRAILER = 0xA0, 0xA1, 0xA2, 0xA3
_FIELDS = {_HASH, _MASK, _SALT, _TRAILER}
_ONE, _DEFAULT_SALT = der.integer(1), der.integer(20)
_SALTS = {der.integer(octets): octets for octets in SALT_OCTETS}


@dataclass(frozen=True, slots=True)
class Signed:
    """Octets and a signature over them. ``digest`` is None where the key hashes by itself, ``salt`` where it is not RSASSA-PSS."""

    message: bytes
    signature: bytes
    digest: hashes.HashAlgorithm | None
    salt: int | None = None

    def by(self, key: CertificatePublicKeyTypes) -> bool:
        """Tell whether a key made the signature."""
        try:
            return self._verify(key)
        except (InvalidSignature, UnsupportedAlgorithm):
            return False

    def _verify(self, key: CertificatePublicKeyTypes) -> bool:
        match key:
            case ec.EllipticCurvePublicKey() if self.digest and self.salt is None:
                key.verify(self.signature, self.message, ec.ECDSA(self.digest))
            case rsa.RSAPublicKey() if self.digest:
                key.verify(self.signature, self.message, self._padding(self.digest), self.digest)
            case ed25519.Ed25519PublicKey() if not self.digest:
                key.verify(self.signature, self.message)
            case _:
                return False
        return True

    def _padding(self, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
        return padding.PKCS1v15() if self.salt is None else padding.PSS(padding.MGF1(digest), self.salt)


def signed_answer(raw: bytes, answer: ocsp.OCSPResponse) -> Signed | None:
    """Read how a successful OCSPResponse (DER, and read) was signed; None where it is RSASSA-PSS with parameters that do not count.

    Raises:
        UnsupportedAlgorithm: the algorithm is not known.
        BadInput: it is not DER.
    """
    message, signature, identifier = answer.tbs_response_bytes, answer.signature, _identifier(_basic(raw))
    if not _is_pss(identifier):
        return Signed(message, signature, answer.signature_hash_algorithm)
    found = _parameters(identifier)
    return Signed(message, signature, *found) if found else None


def bounded(signed: bytes) -> bool:
    """Tell whether a certificate or a revocation list (DER) is signed with parameters that count, if it is with RSASSA-PSS.

    Raises:
        BadInput: it is not DER.
    """
    identifier = _identifier(signed)
    return not _is_pss(identifier) or _parameters(identifier) is not None


def _basic(raw: bytes) -> bytes:
    """Give the BasicOCSPResponse of an answer (RFC 6960 section 4.2.1)."""
    _, body = der.children(raw)
    (typed,) = der.children(body)
    return der.content(der.children(typed)[1])


def _identifier(signed: bytes) -> bytes:
    """Give the AlgorithmIdentifier: in all that is signed it is the second."""
    return der.children(signed)[1]


def _is_pss(identifier: bytes) -> bool:
    return der.children(identifier)[0] == _PSS


def _parameters(identifier: bytes) -> tuple[hashes.HashAlgorithm, int] | None:
    """Read hash and length of the salt, or None where they do not count."""
    parts = [field for parameters in der.children(identifier)[1:] for field in der.children(parameters)]
    tags, fields = [part[0] for part in parts], {part[0]: _single(part) for part in parts}
    digest, salted = _HASHES.get(fields.get(_HASH, b"")), fields.get(_SALT, _DEFAULT_SALT)
    if digest is None or salted not in _SALTS or fields.get(_TRAILER, _ONE) != _ONE:
        return None
    if tags != sorted(set(tags)) or not set(tags) <= _FIELDS or _mask_hash(fields.get(_MASK, b"")) is not digest:
        return None
    return digest, _SALTS[salted]


def _single(part: bytes) -> bytes:
    held = der.children(part)
    return held[0] if len(held) == 1 else b""


def _mask_hash(mask: bytes) -> hashes.HashAlgorithm | None:
    parts = der.children(mask) if mask else ()
    return _HASHES.get(parts[1]) if len(parts) == 2 and parts[0] == _MGF1 else None
