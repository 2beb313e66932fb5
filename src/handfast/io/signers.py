"""Keys that sign and are never seen.

Decides how a key in this process signs, and which kinds of keys are made here. Refuses to know where keys are kept (`sealed`,
`pkcs11`), and what a key's algorithm is called (`handfast.trust.algorithms`).

One protocol, `handfast.io.ports.Signer`, stands for all of them. A key service elsewhere is one more class: it names its
public key, signs by the algorithm that follows from it, and raises `Unavailable` while it does not answer.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import NoReturn, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.io import off_loop
from handfast.trust.algorithms import SignatureAlgorithm, algorithm_for, ecdsa
from handfast.trust.profile import key_facts

AuthorityKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class KeyKind(StrEnum):
    """The keys that can be made for an authority."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"
    ED25519 = "ed25519"


def new_authority_key(kind: KeyKind) -> AuthorityKey:
    """Make a key."""
    match kind:
        case KeyKind.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyKind.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyKind.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(kind.value.removeprefix("rsa")))


def public_der(key: AuthorityKey) -> bytes:
    """Give the SubjectPublicKeyInfo of a private key, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign_with(key: AuthorityKey, message: bytes) -> bytes:
    """Sign by the key's own algorithm: what stands in a certificate's signature field.

    Raises:
        BadInput: no authority signs with such a key.
    """
    return _signed(key, algorithm_for(key_facts(key.public_key())), message)


def _signed(key: AuthorityKey, algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    assert algorithm.hash
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), algorithm.hash)
    return key.sign(message, ecdsa(algorithm.hash))


class KeySigner:
    """The `Signer` over a key in this process.

    Raises:
        BadInput: no authority signs with such a key.
    """

    __slots__ = ("_algorithm", "_key", "_public_key_der")

    def __init__(self, key: AuthorityKey) -> None:
        """Keep the key, and its public half in DER."""
        self._algorithm = algorithm_for(key_facts(key.public_key()))
        self._key = key
        self._public_key_der = public_der(key)

    @property
    def public_key_der(self) -> bytes:
        """The key's SubjectPublicKeyInfo, DER."""
        return self._public_key_der

    async def sign(self, message: bytes) -> bytes:
        """Sign ``message`` by the key's own algorithm."""
        # Elliptic curves take some 30 microseconds, and a thread would cost more; RSA takes up to ten milliseconds.
        long = isinstance(self._key, rsa.RSAPrivateKey) or len(message) > off_loop.LONG_BYTES
        return await off_loop.run(_signed, self._key, self._algorithm, message, long=long)

    def sign_now(self, message: bytes) -> bytes:
        """Sign as `sign` does, and wait for it: for a root, which signs seldom and not in an event loop."""
        return sign_with(self._key, message)

    def __repr__(self) -> str:
        """Name the key by its public half."""
        return f"KeySigner(public key sha256 {sha256(self._public_key_der).hexdigest()[:16]})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a key stays in one place."""
        raise TypeError("a signer cannot be pickled or copied")
