"""Several files as one sealed text, for a place that others may read and write, such as a database.

Decides how they are encrypted and made unforgeable with a passphrase. Refuses to know what the files are.

The key is scrypt's of the passphrase (RFC 7914; 64 MiB, twice), the text AES-256-GCM's (RFC 5116 section 5.2). So a thief of the text
pays scrypt for each guess, and whoever can write it cannot make one that opens: it is whole, of the installation and of the purpose
that it is opened for, or it does not open.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from handfast.base.refusal import BadInput
from handfast.io.sealed import Passphrase

MAX_FILES_BYTES = 1024 * 1024
MAX_SEALED_BYTES = MAX_FILES_BYTES + 1024
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**16, 8, 2
_MAGIC = b"handfast sealed files 1\n"
_NONCE = 12


@dataclass(frozen=True, slots=True)
class FilesKey:
    """A key that files are sealed with. Making one takes a third of a second; `derive` does."""

    secret: bytes = field(repr=False)

    def seal(self, files: Mapping[str, bytes], purpose: str) -> bytes:
        """Encrypt files, by name, for one ``purpose``: for another one they do not open.

        Raises:
            BadInput: they are larger than what is opened again.
        """
        nonce = secrets.token_bytes(_NONCE)
        plain = msgspec.msgpack.encode(dict(files))
        if len(plain) > MAX_FILES_BYTES:
            raise BadInput(f"the files are larger than {MAX_FILES_BYTES} bytes together")
        return _MAGIC + nonce + AESGCM(self.secret).encrypt(nonce, plain, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> dict[str, bytes]:
        """Give the files that were sealed for ``purpose``.

        Raises:
            BadInput: they were sealed with another passphrase or for another purpose, or somebody changed them.
        """
        if not sealed.startswith(_MAGIC) or len(sealed) > MAX_SEALED_BYTES:
            raise BadInput("these are no sealed files")
        body = sealed.removeprefix(_MAGIC)
        try:
            plain = AESGCM(self.secret).decrypt(body[:_NONCE], body[_NONCE:], purpose.encode())
            return msgspec.msgpack.decode(plain, type=dict[str, bytes])
        except (InvalidTag, ValueError) as error:  # msgspec's errors are ValueErrors
            raise BadInput(
                "sealed files do not open: another passphrase sealed them, or somebody changed them"
            ) from error


def derive(passphrase: Passphrase, salt: str) -> FilesKey:
    """Derive the key. ``salt`` is the installation's own, so that no two of them share a table of guesses."""
    scrypt = Scrypt(salt=salt.encode(), length=32, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P)
    return FilesKey(scrypt.derive(passphrase.secret))
