"""Private keys at rest: PKCS#8 in PEM, sealed with a passphrase or openly not.

Decides how a key is written and read, and where a passphrase comes from. Refuses to know what the key is for.

A sealed key is an EncryptedPrivateKeyInfo (`handfast.io.pkcs8`), which OpenSSL's programs read. Guessing costs 0.15 s a try on
one core of ours and less on an attacker's machine, so a passphrase has 16 bytes at least, better 24 random ones. The
file has mode 0600 either way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from handfast.base.refusal import BadInput
from handfast.io import files, pkcs8
from handfast.io.signers import AuthorityKey

SHORTEST_PASSPHRASE = 16
LONGEST_PASSPHRASE = 1023
CREDENTIAL = "handfast-passphrase"

_MAKE_ONE = "make one with 'openssl rand -base64 24'"
_SEALED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_OPEN_NOTE = b"This key is not sealed: whoever reads this file has it.\n"


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase, which no repr and no log shows.

    Raises:
        BadInput: it is shorter than 16 bytes or longer than 1023.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what could be guessed, and what OpenSSL cannot take."""
        if not SHORTEST_PASSPHRASE <= len(self.secret) <= LONGEST_PASSPHRASE:
            raise BadInput(
                f"the passphrase has {SHORTEST_PASSPHRASE} to {LONGEST_PASSPHRASE} bytes, this one does not",
                hint=_MAKE_ONE,
            )


@dataclass(frozen=True, slots=True)
class PassphraseFile:
    """The passphrase is the content of a file that only its owner reads."""

    path: Path


@dataclass(frozen=True, slots=True)
class PassphraseVariable:
    """The passphrase is in an environment variable. Children inherit it: prefer one of the others."""

    name: str


@dataclass(frozen=True, slots=True)
class PassphraseCredential:
    """The passphrase is the systemd credential ``handfast-passphrase`` (systemd.exec, LoadCredentialEncrypted=)."""


PassphraseSource: TypeAlias = PassphraseFile | PassphraseVariable | PassphraseCredential


def read_passphrase(source: PassphraseSource, environ: Mapping[str, str] = os.environ) -> Passphrase:
    """Get the passphrase. One line break at its end does not count.

    Raises:
        BadInput: it is not there, is too short, or others can read its file.
    """
    match source:
        case PassphraseFile(path):
            return _passphrase(files.read_secret(path), str(path))
        case PassphraseVariable(name):
            if name not in environ:
                raise BadInput("this environment variable is not set, and should hold the passphrase", key=name)
            return _passphrase(os.fsencode(environ[name]), name)
        case PassphraseCredential():
            directory = environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise BadInput(
                    "systemd passed no credentials", hint=f"LoadCredentialEncrypted={CREDENTIAL}:… in the unit's file"
                )
            # Its mode does not count: systemd grants by ACL, whose mask reads as the group's bits.
            path = Path(directory) / CREDENTIAL
            return _passphrase(files.read(path, files.MAX_SECRET_BYTES), str(path))


def seal(key: AuthorityKey, passphrase: Passphrase | None) -> bytes:
    """Give the key as PEM: sealed, or with a first line that says that it is not."""
    if passphrase:
        return pkcs8.encrypt(
            key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), passphrase.secret
        ).encode()
    return _OPEN_NOTE + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def is_sealed(text: bytes) -> bool:
    """Tell whether the PEM of a key wants a passphrase."""
    return _SEALED in text


def unseal(text: bytes, passphrase: Passphrase | None, *, file: str = "") -> AuthorityKey:
    """Read a key back from its PEM. ``file`` is its name, for errors.

    Raises:
        BadInput: the passphrase is wrong, missing, or given for a key that is not sealed; or this is no such key.
    """
    if is_sealed(text) and not passphrase:
        raise BadInput("the key is sealed, and no passphrase was given", file=file, hint="give its passphrase")
    if passphrase and not is_sealed(text):
        # Whoever gives a passphrase believes that the key is sealed.
        raise BadInput(
            "a passphrase was given, and the key is not sealed",
            file=file,
            hint="seal it with 'openssl pkcs8 -topk8 -v2 aes-256-cbc', or give no passphrase",
        )
    try:
        key = load_pem_private_key(text, passphrase.secret if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # Without the library's words: they come from parsing a secret.
        raise BadInput(
            "the key cannot be read",
            file=file,
            hint="is this the passphrase it was sealed with, and is the file whole?" if passphrase else "is it whole?",
        ) from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise BadInput("this is no key of an authority: it is neither ECDSA nor RSA nor Ed25519", file=file)
    return key


def write_key(path: Path, key: AuthorityKey, passphrase: Passphrase | None) -> None:
    """Write a key to a file of mode 0600.

    Raises:
        BadInput: the place cannot be written.
        Unavailable: the disk is full or fails.
    """
    files.write_secret(path, seal(key, passphrase))


def read_key(path: Path, passphrase: Passphrase | None) -> AuthorityKey:
    """Read a key from a file.

    Raises:
        BadInput: others can read the file, or as `unseal`.
    """
    return unseal(files.read_secret(path), passphrase, file=str(path))


def _passphrase(data: bytes, place: str) -> Passphrase:
    try:
        return Passphrase(data.removesuffix(b"\n").removesuffix(b"\r"))
    except BadInput as error:
        raise error.at(key=place) from None
