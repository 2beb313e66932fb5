"""What a generation's directory holds, taken out whole and put in place elsewhere: for servers that did not make it.

Decides which of its files may leave the host. All that are there, of whatever kind, but never a root's key, by name or by content; and
none at all where a key lies open or in a token: an open key must not lie in a database, and a token is its host's own matter.
Decides too what is put over what is there already: files that are missing, and lists that are newer.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509

from handfast.base.refusal import BadInput
from handfast.io import files, sealed
from handfast.io.authority_files import ISSUING, ROOT, alone, split_lists, staged
from handfast.io.sealed import Passphrase
from handfast.io.signers import public_der
from handfast.trust.ca import public_key_of
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.profile import UNREADABLE

MAX_FILES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_ROOT_KEY = re.compile(r"root-key\b.*")
_OF_THIS_HOST = "ledger-id"
_ELSEWHERE = ".uri"
_KEY, _LIST = b"PRIVATE KEY-----", b"-----BEGIN X509 CRL-----"

Files = Mapping[str, bytes]


def gather(place: Path, root: Path, passphrase: Passphrase, *, keys: bool) -> dict[str, bytes] | None:
    """Give the files of the generation in ``place`` that may leave this host; None where it has to stay here whole.

    ``root`` is the directory of its root. Without ``keys``, certificates and lists alone are given.

    Raises:
        BadInput: a file cannot be used.
    """
    if keys and not may_leave(place):
        return None
    public = public_key_of(_der(root / ROOT))
    gathered: dict[str, bytes] = {}
    for path in _files(place):
        text = files.read(path, files.MAX_SECRET_BYTES)
        if (path.suffix != _ELSEWHERE and _KEY not in text) or (
            keys and public_der(sealed.unseal(text, passphrase, file=str(path))) != public
        ):
            gathered[path.name] = text
    return gathered


def may_leave(place: Path) -> bool:
    """Tell whether the generation in ``place`` may leave this host with its keys, as far as that is seen without opening them.

    Raises:
        BadInput: a file cannot be used.
    """
    texts = ((path, files.read(path, files.MAX_SECRET_BYTES)) for path in _files(place))
    return all(path.suffix != _ELSEWHERE and (_KEY not in text or sealed.is_sealed(text)) for path, text in texts)


def put(place: Path, given: Files, *, keys: bool) -> bool:
    """Put files of a generation in place, and tell whether anything changed. A new directory appears whole.

    A directory with another issuing authority is replaced: who calls knows that it never counted.

    Raises:
        BadInput: a name is none of ours, or the place cannot be written.
        Unavailable: another process makes authorities here now, or the disk is full or fails.
    """
    wanted = {name: text for name, text in given.items() if keys or _KEY not in text}
    if len(wanted) > MAX_FILES or not all(map(_may_come, wanted)):
        raise BadInput("these are no files of a generation", file=str(place))
    files.private_directory(place.parent)
    with alone(place.parent):
        if issuer_of(place) == _issuer(wanted):
            return _add(place, wanted)
        _replace(place, wanted)
    return True


def exists(place: Path) -> bool:
    """Tell whether there is a directory, whatever is in it."""
    return place.exists()


def issuer_of(place: Path) -> str:
    """Give the key identifier (hex) of the issuing authority in ``place``; empty where there is none.

    Raises:
        BadInput: its certificate cannot be read.
    """
    path = place / ISSUING
    return facts(_der(path)).ski if path.exists() else ""


def has_keys(given: Files) -> bool:
    """Tell whether there is a private key among files."""
    return any(_KEY in text for text in given.values())


def differs(ours: Files, theirs: Files) -> bool:
    """Tell whether we have a file that they lack, or a newer list."""
    return any(_is_news(text, theirs.get(name)) for name, text in ours.items())


def _files(place: Path) -> Iterator[Path]:
    found = sorted(path for path in place.iterdir() if path.is_file() and not path.is_symlink())
    return (path for path in found if _may_come(path.name))


def _may_come(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not _ROOT_KEY.fullmatch(name) and name != _OF_THIS_HOST


def _issuer(given: Files) -> str:
    text = given.get(ISSUING, b"")
    return facts(pem_certificates(text.decode("ascii", "replace"))[0]).ski


def _add(place: Path, wanted: Files) -> bool:
    news = {name: text for name, text in wanted.items() if _is_news(text, _present(place / name))}
    for name, text in news.items():
        _write(place / name, text)
    return bool(news)


def _replace(place: Path, wanted: Files) -> None:
    gone = place.with_name(f".{place.name}.gone")
    with files.explained("replaced", place):
        with staged(place) as stage:
            for name, text in wanted.items():
                _write(stage / name, text)
            if place.exists():
                shutil.rmtree(gone, ignore_errors=True)
                place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _write(path: Path, text: bytes) -> None:
    (files.write_secret if _KEY in text else files.write)(path, text)


def _present(path: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def _is_news(text: bytes, known: bytes | None) -> bool:
    return known is None or (text != known and _LIST in text and _LIST in known and _made(text) > _made(known))


def _made(text: bytes) -> datetime:
    try:
        # There is one for each CA between, and any of them may have been renewed alone.
        return max(x509.load_pem_x509_crl(one).last_update_utc for one in split_lists(text))
    except UNREADABLE as error:
        raise BadInput("a revocation list cannot be read") from error


def _der(path: Path) -> bytes:
    return pem_certificates(files.read(path).decode("ascii", "replace"))[0]
