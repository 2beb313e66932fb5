"""Where an issuing key lies: in a file beside its certificate, or in a token that a file there names.

Decides how it is put there, opened and shown. Refuses to know what it signs.
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

KEY_FILE, TOKEN_FILE = "issuing-key.pem", "issuing-key.uri"

LocalSigner = KeySigner | Pkcs11Signer


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key lies, for people. ``kind`` is ``sealed``, ``open``, ``token``, ``missing`` or ``unreadable``; ``text`` a file, a URI without its PIN's place, or why."""

    kind: str
    text: str


def put(directory: Path, wanted: KeyKind | TokenUri, passphrase: Passphrase | None) -> LocalSigner:
    """Make an issuing key in a file of ``directory``, or write down which one in a token it is; give what signs with it.

    Raises:
        BadInput: the token or its key cannot be used, or the place cannot be written.
        Unavailable: the token or the disk does not answer.
    """
    if isinstance(wanted, TokenUri):
        signer = open_token(wanted)
        files.write_secret(directory / TOKEN_FILE, f"{wanted.text}\n".encode())
        return signer
    key = new_authority_key(wanted)
    sealed.write_key(directory / KEY_FILE, key, passphrase)
    return KeySigner(key)


def open_signer(directory: Path, passphrase: Passphrase | None) -> tuple[LocalSigner, bool]:
    """Open the issuing key of ``directory``; tell whether it is safe at rest: sealed, or in a token.

    Raises:
        BadInput: it is not there, is open to others, cannot be opened with this passphrase, or the token cannot be used.
        Unavailable: the token does not answer.
    """
    token, key = directory / TOKEN_FILE, directory / KEY_FILE
    if token.exists():
        _refuse_both(key)
        return open_token(_uri(token)), True
    text = files.read_secret(key)
    try:
        return KeySigner(sealed.unseal(text, passphrase, file=str(key))), sealed.is_sealed(text)
    except BadInput as error:
        raise error.at(file=str(key)) from error


def file_of(directory: Path) -> Path:
    """Give the file of ``directory`` that holds the issuing key, or names it."""
    return directory / (TOKEN_FILE if (directory / TOKEN_FILE).exists() else KEY_FILE)


def close(signer: object) -> None:
    """Let go of a token, where it is one."""
    if isinstance(signer, Pkcs11Signer):
        signer.close()


def place_of(directory: Path) -> KeyPlace:
    """Tell where the issuing key of ``directory`` lies, without opening it.

    Raises:
        BadInput: what names it cannot be read.
    """
    if (directory / TOKEN_FILE).exists():
        return KeyPlace("token", _uri(directory / TOKEN_FILE).shown)
    return file_place(directory / KEY_FILE)


def file_place(path: Path) -> KeyPlace:
    """Tell whether a key is in this file, and how."""
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
        raise BadInput(f"there is a key file beside {TOKEN_FILE}, and one must count", file=str(key), hint="remove one")
