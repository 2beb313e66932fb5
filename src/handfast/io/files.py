"""Files that are there whole or not at all, and secrets that only their owner reads.

Decides modes, atomicity and bounds. Refuses to know what the bytes are. A reader of any path written here sees the old file
or the new one, also after a power cut: write beside it, flush, rename, flush the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from handfast.base.refusal import BadInput, Unavailable

MAX_SECRET_BYTES = 64 * 1024
MAX_FILE_BYTES = 1024 * 1024

_NOT_THE_OWNERS = 0o077
_OTHERS = 0o007
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN}


def write_secret(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a secret, atomically and durably; it is never readable by more than ``mode`` says, not for a moment.

    Raises:
        BadInput: ``mode`` lets everybody in, or the place cannot be written.
        Unavailable: the disk is full or fails.
    """
    if mode & _OTHERS:
        raise BadInput(f"a secret with mode {mode:o} is none", file=str(path))
    write(path, data, mode)


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file, atomically and durably, with exactly this mode whatever the umask is.

    Raises:
        BadInput: the place cannot be written.
        Unavailable: the disk is full or fails.
    """
    with explained("written", path):
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            _write_new(beside, data, mode)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def private_directory(path: Path) -> Path:
    """Make a directory that its owner alone can look into (0700), or find it so; give it back.

    One that is there already and is open to others is refused, not changed: whoever opened it may rely on it.

    Raises:
        BadInput: it cannot be made, is no directory, belongs to somebody else, or is open to others.
        Unavailable: the disk is full or fails.
    """
    with explained("made", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            path.chmod(0o700)  # a umask may have taken from its owner
        seen = path.stat()
    if not stat.S_ISDIR(seen.st_mode):
        raise BadInput("this is not a directory", file=str(path))
    if seen.st_uid != os.geteuid():
        raise BadInput("this directory belongs to another user", file=str(path), hint="choose another, or chown it")
    if stat.S_IMODE(seen.st_mode) & _NOT_THE_OWNERS:
        raise BadInput(
            "others can look into this directory", file=str(path), hint=f"chmod 700 {shlex.quote(str(path))}"
        )
    return path


def read_secret(path: Path, limit: int = MAX_SECRET_BYTES) -> bytes:
    """Read a secret that nobody but its owner can read, and that belongs to us or to root.

    Raises:
        BadInput: it is not there, is no plain file, is open to others, is another user's, or is larger than ``limit``.
    """
    with explained("read", path), _opened(path) as handle:
        _check_secret(path, os.fstat(handle))
        return _read(path, handle, limit)


def check_secret(path: Path) -> None:
    """Check who could read a secret, and do not read it. One that is not there is fine: it may be kept elsewhere.

    Raises:
        BadInput: as `read_secret`.
    """
    with contextlib.suppress(FileNotFoundError), _opened(path) as handle:
        _check_secret(path, os.fstat(handle))


def read(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a plain file whole.

    Raises:
        BadInput: it is not there, cannot be read, is no plain file, or is larger than ``limit``.
    """
    with explained("read", path), _opened(path) as handle:
        return _read(path, handle, limit)


def sync_directory(path: Path) -> None:
    """Flush a directory, so that a rename in it outlives a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turn the system's error into one of ours that names the file."""
    try:
        yield
    except OSError as error:
        text = f"cannot be {what}: {error.strerror or error}"
        if error.errno in _PASSING:
            raise Unavailable(f"{path}: {text}", hint="look at the disk: is there room?") from error
        raise BadInput(text, file=str(path), hint="does it exist, and may this user do that?") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    # Not blocking: a pipe in the place of a file would hold the program up for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    # Created with its mode, so that it is never more open; then set to it, as the umask may have taken some away.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        os.fsync(handle)


def _check_secret(path: Path, seen: os.stat_result) -> None:
    # Of the open file, not of its name: the name may lead elsewhere by now.
    if stat.S_IMODE(seen.st_mode) & _NOT_THE_OWNERS:
        raise BadInput(
            "others can read this secret",
            file=str(path),
            hint=f"chmod 600 {shlex.quote(str(path))}; if others use this machine, replace the secret too",
        )
    if seen.st_uid not in {os.geteuid(), 0}:
        raise BadInput("this secret belongs to another user, who can change it", file=str(path), hint="chown it")


def _read(path: Path, handle: int, limit: int) -> bytes:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise BadInput("this is not a plain file", file=str(path))
    with os.fdopen(os.dup(handle), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadInput(f"the file is larger than {limit} bytes", file=str(path))
    return data
