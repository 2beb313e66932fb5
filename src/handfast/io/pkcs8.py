"""A private key under a passphrase: EncryptedPrivateKeyInfo (RFC 5958 section 3), made slow to guess at.

Decides the algorithms: PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256-CBC. `cryptography` would write PBKDF2 with 2,048 rounds,
which a guesser hardly notices. Refuses to read: the library does, whatever the algorithms.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from handfast.trust import der
from handfast.trust.facts import pem

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 5
"""16 MiB five times over, about 0.15 s. OpenSSL's programs refuse to take more memory, and have to be able to read it."""
_KEY_BYTES = 32
_SALT_BYTES = 16

_PBES2 = der.oid("1.2.840.113549.1.5.13")
_SCRYPT = der.oid("1.3.6.1.4.1.11591.4.11")
_AES_256_CBC = der.oid("2.16.840.1.101.3.4.1.42")


def encrypt(key_info: bytes, passphrase: bytes) -> str:
    """Give a PrivateKeyInfo (DER) under a passphrase, as PEM."""
    salt, iv = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(algorithms.AES256.block_size // 8)
    key = hashlib.scrypt(passphrase, salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=_KEY_BYTES)
    costs = map(der.integer, (SCRYPT_N, SCRYPT_R, SCRYPT_P, _KEY_BYTES))
    derivation = der.sequence(_SCRYPT, der.sequence(der.octet_string(salt), *costs))
    scheme = der.sequence(_AES_256_CBC, der.octet_string(iv))
    algorithm = der.sequence(_PBES2, der.sequence(derivation, scheme))
    sealed = der.sequence(algorithm, der.octet_string(_aes_256_cbc(key_info, key, iv)))
    return pem(sealed, "ENCRYPTED PRIVATE KEY")


def _aes_256_cbc(plain: bytes, key: bytes, iv: bytes) -> bytes:
    padder = PKCS7(algorithms.AES256.block_size).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
