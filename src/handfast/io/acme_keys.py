"""The MAC keys of ACME's external account bindings at rest: sealed with the server's passphrase, or open where it has none.

They have to be read back, as a MAC is checked with the key itself, so a hash will not do. A sealed one is AES-256-GCM (NIST SP
800-38D) under a key that scrypt (RFC 7914) makes of the passphrase and a salt of this database; the binding's id goes into
the seal, so that nobody can put one binding's key in another's place.

Decides the form. Refuses to know what a binding grants.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handfast.base.refusal import Unavailable
from handfast.io.ledger import SqlLedger
from handfast.io.sealed import Passphrase

SECRET_BYTES = 32
_OPEN, _SEALED = b"\x00", b"\x01"
_SALT_BYTES, _IV_BYTES = 16, 12
_COST = {"n": 2**14, "r": 8, "p": 1}


class MacKeys:
    """Seals and unseals. The slow step is done once, when the first key is made or read."""

    def __init__(self, ledger: SqlLedger, passphrase: Passphrase | None) -> None:
        """Take the passphrase; nothing is derived yet."""
        self._ledger, self._passphrase = ledger, passphrase
        self._cipher: AESGCM | None = None

    async def seal(self, binding: str, mac: bytes) -> bytes:
        """Give the MAC key as it is kept."""
        cipher = await self._ready()
        if cipher is None:
            return _OPEN + mac
        iv = secrets.token_bytes(_IV_BYTES)
        return _SEALED + iv + cipher.encrypt(iv, mac, binding.encode())

    async def unseal(self, binding: str, kept: bytes) -> bytes | None:
        """Give the MAC key back, or None where it is gone.

        Raises:
            Unavailable: it was sealed with another passphrase.
        """
        form, rest = kept[:1], kept[1:]
        if form != _SEALED:
            return rest or None
        cipher = await self._ready()
        try:
            if cipher:
                return cipher.decrypt(rest[:_IV_BYTES], rest[_IV_BYTES:], binding.encode())
        except InvalidTag:
            pass
        raise Unavailable(
            "the ACME key is sealed with another passphrase", hint="start the server with the one it was made under"
        )

    async def _ready(self) -> AESGCM | None:
        if self._passphrase and self._cipher is None:
            salt = await self._ledger.acme_secret("salt", _SALT_BYTES)
            self._cipher = AESGCM(hashlib.scrypt(self._passphrase.secret, salt=salt, dklen=32, **_COST))
        return self._cipher
