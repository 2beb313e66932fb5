"""Keys that sign and are never seen."""

from __future__ import annotations

from hashlib import sha256
from typing import NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class KeySigner:
    """The `Signer` over a P-256 key in this process.

    A signature takes 30 microseconds, so it is made in the event loop: a thread would cost more than it saves.

    Raises:
        BadInput: the key is of another curve.
    """

    __slots__ = ("_key", "_public_key_der")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Keep the key, and its public half in DER."""
        if not isinstance(key.curve, ec.SECP256R1):
            raise BadInput(f"an authority's key is ECDSA P-256, not {key.curve.name}")
        self._key = key
        self._public_key_der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_key_der(self) -> bytes:
        """The key's SubjectPublicKeyInfo, DER."""
        return self._public_key_der

    async def sign(self, message: bytes) -> bytes:
        """Sign ``message``: ECDSA over SHA-256, DER (RFC 3279 section 2.2.3)."""
        return self._key.sign(message, _ALGORITHM)

    def __repr__(self) -> str:
        """Name the key by its public half."""
        return f"KeySigner(public key sha256 {sha256(self._public_key_der).hexdigest()[:16]})"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a key stays in one place."""
        raise TypeError("a signer cannot be pickled or copied")
