"""Where a CA's key lies: in a file beside its certificate, or in a token that a file there names.

Decides how it is put there, opened and shown. Refuses to know what it signs.

``name`` is whose key of a directory is meant, and the beginning of its file's name: `ISSUING`, `ROOT` or `RESPONDER`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from handfast.base.refusal import BadInput, HandfastError
from handfast.io import files, sealed
from handfast.io.pkcs11 import Pkcs11Signer, open_token
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeyKind, KeySigner, new_authority_key
from handfast.io.token_uri import TokenUri, parse_token_uri

ISSUING, ROOT, RESPONDER = "issuing-key", "root-key", "ocsp-key"

LocalSigner = KeySigner | Pkcs11Signer


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key lies, for people. ``kind`` is ``sealed``, ``open``, ``token``, ``missing`` or ``unreadable``; ``text`` a file, a URI without its PIN's place, or why."""

    kind: str
    text: str


def put(directory: Path, wanted: KeyKind | TokenUri, passphrase: Passphrase | None, name: str = ISSUING) -> LocalSigner:
    """Make a key in a file of ``directory``, or write down which one in a token it is; give what signs with it.

    Raises:
        BadInput: the token or its key cannot be used, or the place cannot be written.
        Unavailable: the token or the disk does not answer.
    """
    if isinstance(wanted, TokenUri):
        signer = open_token(wanted)
        note(directory, wanted, name)
        return signer
    key = new_authority_key(wanted)
    sealed.write_key(directory / f"{name}.pem", key, passphrase)
    return KeySigner(key)


def note(directory: Path, uri: TokenUri, name: str = ISSUING) -> None:
    """Write down which key in a token it is.

    Raises:
        BadInput: the place cannot be written.
        Unavailable: the disk is full or fails.
    """
    files.write_secret(directory / f"{name}.uri", f"{uri.text}\n".encode())


def open_signer(directory: Path, passphrase: Passphrase | None, name: str = ISSUING) -> tuple[LocalSigner, bool]:
    """Open the key of ``directory``; tell beside it whether it is safe at rest: sealed, or in a token.

    Raises:
        BadInput: there is none, or it is open to others, damaged or sealed with another passphrase, or the token cannot be used.
        Unavailable: the token does not answer.
    """
    key, token = directory / f"{name}.pem", directory / f"{name}.uri"
    if token.exists():
        _refuse_both(key)
        return open_token(_uri(token)), True
    text = files.read_secret(key)
    try:
        return KeySigner(sealed.unseal(text, passphrase, file=str(key))), sealed.is_sealed(text)
    except BadInput as error:
        raise error.at(file=str(key)) from error


def file_of(directory: Path, name: str = ISSUING) -> Path:
    """Give the file of ``directory`` that holds the key, or names it."""
    return directory / (f"{name}.uri" if in_token(directory, name) else f"{name}.pem")


def in_token(directory: Path, name: str = ISSUING) -> bool:
    """Tell whether the key of ``directory`` lies in a token."""
    return (directory / f"{name}.uri").exists()


def close(signer: object) -> None:
    """Let go of a token, where it is one."""
    if isinstance(signer, Pkcs11Signer):
        signer.close()


def place_of(directory: Path, name: str = ISSUING) -> KeyPlace:
    """Tell where the key of ``directory`` lies, without opening it.

    Raises:
        BadInput: what names it cannot be read.
    """
    path = file_of(directory, name)
    return KeyPlace("token", _uri(path).shown) if in_token(directory, name) else _file_place(path)


def _file_place(path: Path) -> KeyPlace:
    if not path.exists():
        return KeyPlace("missing", path.name)
    try:
        text = files.read_secret(path)
    except HandfastError as error:
        return KeyPlace("unreadable", str(error))
    return KeyPlace("sealed" if sealed.is_sealed(text) else "open", path.name)


def _uri(path: Path) -> TokenUri:
    try:
        return parse_token_uri(files.read_secret(path).decode("utf-8", "replace").strip())
    except BadInput as error:
        raise error.at(file=str(path)) from error


def _refuse_both(key: Path) -> None:
    if key.exists():
        raise BadInput(
            f"there is a key file beside {key.stem}.uri, and one must count", file=str(key), hint="remove one"
        )
