"""An issuing CA that waits for a rotation: made or signed by hand, beside the authority that issues.

Decides how a rotation takes it. Refuses to know how it came about (`handfast.io.authority_sources`, `handfast.io.signed_chains`).

It waits until the generation that it becomes is whole, so a rotation that dies half-way finds it again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from handfast.base.refusal import BadInput
from handfast.io import files
from handfast.io.authority_files import ISSUING, ROOT, read_certificate

SIGNED = "signed"
_ROOTS = ("root.", "root-key.")
_KEYS = "-key."


def waits(authority: Path) -> bool:
    """Tell whether one waits beside this authority."""
    return (authority / SIGNED).exists()


def waiting_root(authority: Path) -> bytes | None:
    """Give the root of the one that waits (DER); None where none does.

    Raises:
        BadInput: it cannot be read.
    """
    return read_certificate(authority / SIGNED / ROOT) if waits(authority) else None


def require_root(authority: Path, root_der: bytes) -> None:
    """Check that what waits is below this root.

    Raises:
        BadInput: it is another root's, or a file cannot be used.
    """
    if waiting_root(authority) != root_der:
        raise BadInput(
            "the issuing CA that waits is of another root",
            file=str(authority / SIGNED),
            hint="'handfast ca rotate --root' takes both; to drop them, remove that directory",
        )


def take(authority: Path, stage: Path, root_der: bytes | None = None) -> None:
    """Copy what waits into ``stage``, a generation: below this root, or with its own. It goes on waiting until `taken`.

    Raises:
        BadInput: it is another root's, or a file cannot be used.
    """
    if root_der is not None:
        require_root(authority, root_der)
    with files.explained("read", authority / SIGNED):
        paths = sorted((authority / SIGNED).iterdir())
    for path in paths:
        if root_der is not None and path.name.startswith(_ROOTS):
            continue
        if _KEYS in path.name:
            files.write_secret(stage / path.name, files.read_secret(path))
        else:
            files.write(stage / path.name, files.read(path))


def taken(authority: Path, generation: Path) -> None:
    """Remove what waits, where it is what ``generation`` has, and what is left of one that was not wholly removed."""
    waiting = authority / SIGNED
    if waits(authority) and files.read(waiting / ISSUING) == files.read(generation / ISSUING):
        forget(waiting)
    _remove(_gone(waiting))


def forget(directory: Path) -> None:
    """Remove a directory of files, with the keys in it: they are elsewhere by now. It goes by one rename, and then file by file."""
    gone = _gone(directory)
    _remove(gone)
    with files.explained("removed", directory):
        directory.rename(gone)
        files.sync_directory(directory.parent)
    _remove(gone)


def _gone(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.gone")


def _remove(gone: Path) -> None:
    if gone.exists():
        with files.explained("removed", gone):
            shutil.rmtree(gone)
