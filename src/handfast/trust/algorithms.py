"""Which algorithm an authority's key signs with: one table, which leaves, revocation lists and lint all read.

Decides the AlgorithmIdentifier and how a signature is checked. The algorithm follows from the key: nobody chooses it,
so nothing can be signed with one and labelled as another. Refuses to know where a private key lies and how it is asked to sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from handfast.base.refusal import BadInput
from handfast.trust import der
from handfast.trust.profile import UNREADABLE, KeyFacts, key_facts

RSA_BITS = (2048, 8192)
"""Sizes of an RSA key that signs certificates; above 8192 every check of a chain would cost a client milliseconds."""

Hash: TypeAlias = hashes.SHA256 | hashes.SHA384
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SignatureAlgorithm:
    """One way to sign. ``identifier`` is its AlgorithmIdentifier, DER; ``hash`` is None where the key hashes by itself."""

    name: str
    identifier: bytes
    hash: Hash | None


def _named(name: str, oid: str, digest: Hash | None, parameters: bytes = b"") -> SignatureAlgorithm:
    return SignatureAlgorithm(name, der.sequence(der.oid(oid), parameters), digest)


# Parameters: absent for ECDSA (RFC 5758 section 3.2) and Ed25519 (RFC 8410 section 3), NULL for RSA (RFC 4055 section 5).
_P256 = _named("ecdsa-with-SHA256", "1.2.840.10045.4.3.2", hashes.SHA256())
_P384 = _named("ecdsa-with-SHA384", "1.2.840.10045.4.3.3", hashes.SHA384())
_RSA = _named("sha256WithRSAEncryption", "1.2.840.113549.1.1.11", hashes.SHA256(), der.tlv(0x05, b""))
_ED25519 = _named("Ed25519", "1.3.101.112", None)


def algorithm_for(key: KeyFacts) -> SignatureAlgorithm:
    """Give the algorithm that a key of this kind signs with.

    Raises:
        BadInput: no authority has such a key here.
    """
    match key.kind, key.curve:
        case "ec", "secp256r1":
            return _P256
        case "ec", "secp384r1":
            return _P384
        case "ed25519", _:
            return _ED25519
        case "rsa", _ if RSA_BITS[0] <= key.bits <= RSA_BITS[1] and key.exponent % 2 and key.exponent > 2**16:
            return _RSA
    raise BadInput(
        f"no authority signs with a key of the kind {key}",
        hint="use ECDSA P-256 or P-384, RSA with 2048 to 8192 bits and an exponent of 65537, or Ed25519",
    )


def algorithm_of(public_key_der: bytes) -> SignatureAlgorithm:
    """Give the algorithm that the key with this SubjectPublicKeyInfo (DER) signs with.

    Raises:
        BadInput: it cannot be read, or no authority has such a key here.
    """
    return _parsed(public_key_der)[1]


def verify(signature: bytes, message: bytes, public_key_der: bytes) -> None:
    """Check that ``signature`` is one of this key over ``message``, by the key's own algorithm.

    Raises:
        InvalidSignature: it is not.
        BadInput: the key cannot be read, or no authority has such a key here.
    """
    key, algorithm = _parsed(public_key_der)
    match key:
        case ec.EllipticCurvePublicKey():
            assert algorithm.hash
            key.verify(signature, message, ecdsa(algorithm.hash))
        case rsa.RSAPublicKey():
            assert algorithm.hash
            key.verify(signature, message, padding.PKCS1v15(), algorithm.hash)
        case _:
            key.verify(signature, message)


def ecdsa(digest: Hash) -> ec.ECDSA:
    """Give ECDSA over this hash. Making one costs a tenth of a signature."""
    return _ECDSA[digest.name]


def identifier_in(signed: bytes) -> bytes:
    """Give the AlgorithmIdentifier within a TBSCertificate or TBSCertList: in both it is the first SEQUENCE.

    Raises:
        BadInput: there is none.
    """
    for part in der.each(signed):
        if part[0] == _SEQUENCE:
            return part
    raise BadInput("what is to be signed names no signature algorithm")


_SEQUENCE = 0x30
_ECDSA = {digest.name: ec.ECDSA(digest) for digest in (hashes.SHA256(), hashes.SHA384())}


# An installation has a handful of authorities; a parsed key saves 20 microseconds a certificate.
@lru_cache(maxsize=64)
def _parsed(public_key_der: bytes) -> tuple[PublicKey, SignatureAlgorithm]:
    try:
        key = load_der_public_key(public_key_der)
    except UNREADABLE as error:
        raise BadInput("the authority's public key cannot be read") from error
    if not isinstance(key, PublicKey):
        raise BadInput("no authority signs with a key of this kind")
    return key, algorithm_for(key_facts(key))
