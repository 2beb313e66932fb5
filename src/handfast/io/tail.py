"""Follows a file of lines that another process appends to, such as Envoy's log of handshakes.

Decides where one line ends and where reading goes on after a restart or a rotation. Refuses to know what a line means.

The law of this file: each complete line is delivered at least once. A line counts as delivered when the batch that follows is
asked for; what was not is delivered again after a restart.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Annotated

import msgspec

from handfast.base.refusal import Unavailable

MAX_LINE = 256 << 10
ROTATE_AT = 64 << 20
_MAX_BATCH = 1 << 20
_SAVE_EVERY = 1.0
_PAUSE = 0.05
_REST, _LONGEST_REST = 0.1, 1.0
_REST_A_LINE = 0.01
"""Seconds of rest after a batch that was all there was, the longer the more it held: each delivery has its price, and one a second
is enough for a reader of a busy log. The first line after a quiet time does not wait."""


class _Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to where a file, named by its inode, has been delivered."""

    inode: int
    offset: Annotated[int, msgspec.Meta(ge=0)]


@dataclass(slots=True)
class _Open:
    """The file that is being read: from ``offset`` on, which is past ``line_start`` only amid a line that is too long."""

    file: FileIO
    inode: int
    offset: int = 0
    line_start: int = 0

    @property
    def skipping(self) -> bool:
        return self.offset > self.line_start

    @property
    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def is_at(self, path: Path) -> bool:
        try:
            return path.stat().st_ino == self.inode
        except FileNotFoundError:
            return False


class Tail:
    """An asynchronous iterator of batches: lists of lines, without their line ends, in the order of the file.

    ``dropped`` counts the lines that were not delivered: those over 256 KiB, and what a dying writer left unfinished.
    """

    def __init__(self, path: Path, *, position_file: Path) -> None:
        """Follow ``path``, which need not exist yet, from the position that ``position_file`` holds."""
        self.dropped = 0
        self._path = path
        self._rotated = path.with_name(f"{path.name}.1")
        self._position_file = position_file
        self._saved = self._delivered = _read_position(position_file)
        self._saved_at = time.monotonic()
        self._open: _Open | None = None
        self._closed = False
        self._rest = 0.0

    @property
    def full(self) -> bool:
        """Whether the file has reached 64 MiB, and wants to be rotated."""
        try:
            return self._path.stat().st_size >= ROTATE_AT
        except FileNotFoundError:
            return False

    def rotate(self) -> bool:
        """Move the file aside; the caller then has Envoy open it anew (``POST /reopen_logs``).

        Gives False, and does nothing, while lines of the rotation before are still to be read, nothing has been read yet, or the
        position cannot be written: without one, a restart would not look into the file that was moved aside.
        """
        if self._open is None or not self._open.is_at(self._path):
            return False
        self._save()
        if self._saved != self._delivered:
            return False
        self._path.replace(self._rotated)
        return True

    def __aiter__(self) -> Tail:
        """Give itself."""
        return self

    async def __anext__(self) -> list[bytes]:
        """Take the batch before as delivered, and give the next one, as soon as there is one."""
        self._commit()
        await asyncio.sleep(self._rest)
        while not self._closed:
            if batch := self._read():
                return batch
            self._commit()
            await asyncio.sleep(_PAUSE)
        raise StopAsyncIteration

    def close(self) -> None:
        """Save the position and end the iteration. A batch whose successor was not asked for is not taken as delivered."""
        self._closed = True
        self._save()
        if self._open:
            self._open.file.close()
            self._open = None

    def _commit(self) -> None:
        """Take all that was read as delivered; write that down once a second at most."""
        if self._open:
            self._delivered = _Position(self._open.inode, self._open.line_start)
        if time.monotonic() - self._saved_at >= _SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        """Write the position down. It is not forced to the disk: an older one costs a repetition, not a line."""
        self._saved_at = time.monotonic()
        if self._delivered is None or self._delivered == self._saved:
            return
        with suppress(OSError):  # a full disk, too, costs a repetition at most; the next second tries again
            _write_position(self._position_file, self._delivered)
            self._saved = self._delivered

    def _read(self) -> list[bytes]:
        """Give the lines that are there, about 1 MiB of them at most; go on to the next file at the end of a rotated one."""
        current = self._open or self._enter(self._first())
        if current is None:
            return []
        # Looked at before reading: the writer adds nothing to the old file once it has made the new one.
        rotated = self._path.exists() and not current.is_at(self._path)
        begin = current.offset
        lines = self._lines(current)
        if rotated and current.offset == begin:
            self._leave(current)
        return lines

    def _first(self) -> _Open | None:
        """Open the file that the position speaks of, where it is still there; else the current one, from its beginning."""
        if self._delivered:
            for path in (self._rotated, self._path):
                found = _open(path)
                if found and found.inode == self._delivered.inode:
                    found.offset = found.line_start = self._delivered.offset
                    return found
                if found:
                    found.file.close()
        return _open(self._path)

    def _leave(self, finished: _Open) -> None:
        """Close a rotated file. Nobody writes to it any more, so a last line without an end stays without one."""
        self.dropped += finished.size > finished.offset and not finished.skipping
        finished.file.close()
        self._enter(_open(self._path))

    def _enter(self, file: _Open | None) -> _Open | None:
        """Begin to read a file. All of the one before is delivered, so the position is in this one from now on."""
        self._open = file
        if file:
            self._delivered = _Position(file.inode, file.line_start)
        return file

    def _lines(self, current: _Open) -> list[bytes]:
        if current.size < current.offset:  # cut short by somebody: begin again
            current.offset = current.line_start = 0
        current.file.seek(current.offset)
        data = current.file.read(_MAX_BATCH)
        end = data.rfind(b"\n") + 1
        if not end:
            self._skip(current, len(data))
            return []
        lines = data[:end].split(b"\n")[:-1]
        if current.skipping:
            del lines[0]
        current.offset = current.line_start = current.offset + end
        kept = [line for line in lines if len(line) <= MAX_LINE]
        self.dropped += len(lines) - len(kept)
        rest = min(max(_REST, len(lines) * _REST_A_LINE), _LONGEST_REST)
        self._rest = rest if len(data) < _MAX_BATCH else 0.0
        return kept

    def _skip(self, current: _Open, length: int) -> None:
        """Pass over a piece of a line that is too long, which was counted at its first piece; wait for more of a shorter one."""
        if current.skipping or length > MAX_LINE:
            self.dropped += not current.skipping
            current.offset += length


def _open(path: Path) -> _Open | None:
    """Open a file for reading; None where there is none.

    Raises:
        Unavailable: it cannot be read.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error
    return _Open(file, os.fstat(file.fileno()).st_ino)


def _read_position(path: Path) -> _Position | None:
    """Read a position; None where there is none that can be read, which costs a repetition."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(1024), type=_Position)
    except (OSError, msgspec.DecodeError):
        return None


def _write_position(path: Path, position: _Position) -> None:
    """Replace the file whole, so that a reader never sees half of a position."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - opened with its final mode
        file.write(msgspec.json.encode(position))
    new.replace(path)
