"""One data directory as one archive, and back: the ledger as of one moment, the authorities' files and keys as they lie.

Decides what belongs into an archive, that nothing else comes out of it, and when a restored ledger may be used. Refuses to
seal: a key that lies open lies open in the archive, and the caller is told.

The archive is a tar file. Its first member, ``manifest.json``, names every other with its size and SHA-256; what does not fit
is refused before anything is in place. The hashes find damage. They stop no one who can write the archive, so keep it as
you would keep the keys in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote

from handfast.base.events import PlatformRestored
from handfast.base.refusal import BadInput, Unavailable
from handfast.io import files
from handfast.io.authority_files import AUTHORITY
from handfast.io.backup_check import FIRST, check_together, homes
from handfast.io.databases import LEDGER
from handfast.io.encoding import decode, encode, encode_event, from_plain
from handfast.io.ids import new_event_id
from handfast.io.ledger.events import to_micros
from handfast.io.sealed import is_sealed

MANIFEST, LOCK = "manifest.json", "lock"
VERSION = 1
MAX_FILES = 10_000
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
JUMP = 1 << 32
"""By how much numbers jump ahead at a restoration: more than any platform gives out between a backup and its use."""
TakeOut = Callable[[str, Path], None]
"""Write the ledger of a path below the data directory, which is elsewhere, as a SQLite file."""
PutIn = Callable[[Mapping[str, Path]], None]
"""Take SQLite ledgers, by their path below the data directory, elsewhere: all of them, or none."""
_CHUNK = 1 << 20
_TRIES = 5
_NOT_KEPT = re.compile(r"lock|.*\.(log|log\.\d+|sock|tmp|sqlite-wal|sqlite-shm)", re.DOTALL)
_KEY = b"PRIVATE KEY-----"
_COUNTERS = ("crl", "generation")
_JUMP_COUNTER = """insert into meta (key, value) values (?1, cast(?2 as text))
    on conflict (key) do update set value = cast(cast(meta.value as integer) + ?2 as text)"""
_ONE = "leave --database out, or move away what is no ledger of this platform any more"
_NAME_DATABASE = "is it in a PostgreSQL database? Name that with --database"
_WHOLE = "make the backup anew, or copy the archive again"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its path below the data directory, its size, and the SHA-256 (hex) of what it holds."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds. ``open_keys`` are the files with a private key of an authority that is not sealed."""

    version: int
    made_at: datetime
    members: tuple[Member, ...]
    open_keys: tuple[str, ...]


def back_up(data: Path, archive: Path, now: datetime, take_out: TakeOut | None = None) -> Manifest:
    """Write the archive of a data directory, mode 0600. The platform may run meanwhile; no writer waits for it.

    The files are read before the ledger is: so all that they hold was recorded by then. Where an authority changes in
    between, all is read again. ``take_out`` writes the ledgers that are in another database as SQLite files: the directory's own, and those
    of further trust domains that have an authority in it and no ledger.

    Raises:
        BadInput: there is no ledger in the directory, it is another authority's, an authority in it has none, or the archive
            is there already, or cannot be written.
        Unavailable: the disk is full, or the authorities change again and again.
    """
    if take_out is None and not (data / LEDGER).is_file():
        raise BadInput(
            f"there is no {LEDGER} in this directory", file=str(data), hint="name a PostgreSQL database with --database"
        )
    if take_out and (data / LEDGER).is_file():
        raise BadInput(
            "there is a ledger in this directory, and a database is named", file=str(data / LEDGER), hint=_ONE
        )
    _require_place(data, archive)
    with files.explained("written", archive), _beside(archive) as stage:
        for _ in range(_TRIES):
            kept = _read_files(data)
            ledgers = {path: _snapshot(data / path, stage / f"{number}") for number, path in enumerate(_ledgers(data))}
            ledgers |= _elsewhere(kept, ledgers, take_out, stage)
            if _authorities(_read_files(data)) == _authorities(kept):
                break
        else:
            raise Unavailable("the authorities change while they are saved", hint="try again")
        manifest = _manifest(kept, ledgers, now)
        _write(stage / "archive", manifest, kept, ledgers)
        _place(stage / "archive", archive)
    return manifest


def restore(archive: Path, data: Path, now: datetime, requester: str, put_in: PutIn | None = None) -> Manifest:
    """Put an archive's files into ``data``, which must not exist or be empty. It appears whole, or not at all.

    All files get mode 0600. In each ledger the numbers of revocation lists and events jump ahead, past all that may have been
    given out since the backup, and an event tells of the restoration. ``put_in`` takes the ledgers of all trust
    domains to another database, all or none, and then they are not in the directory.

    Raises:
        BadInput: the archive is damaged or is none, or there is something in the directory.
        Unavailable: the disk is full or fails, or a platform runs with this directory.
    """
    _require_unused(data)
    with files.explained("read", archive), archive.open("rb") as source, _staged(data) as stage:
        try:
            with tarfile.open(fileobj=source, mode="r:") as tar:
                manifest = _extract(tar, stage)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise BadInput("this is no archive of a data directory, or it is damaged", file=str(archive)) from error
        except BadInput as error:
            raise error.at(file=str(archive)) from error
        for ledger in _ledgers(stage):
            restored = PlatformRestored(id=new_event_id(), at=now, backup_at=manifest.made_at, requester=requester)
            _go_on(stage / ledger, restored)
        if put_in:
            moved = _owned(stage)
            put_in(moved)
            for file in moved.values():
                file.unlink()
    return manifest


# Making an archive


def _require_place(data: Path, archive: Path) -> None:
    if archive.exists():
        raise BadInput("there is such a file already, and no backup is overwritten", file=str(archive))
    if not archive.parent.is_dir():  # not made: where a disk is not mounted, the backup would land beside it
        raise BadInput("there is no such directory", file=str(archive.parent))
    if archive.resolve().is_relative_to(data.resolve()):
        hint = "name another place, best on another machine"
        raise BadInput("the archive would lie in the directory that it saves", file=str(archive), hint=hint)


def _wanted(data: Path) -> Iterator[Path]:
    """Give the plain files to keep, in order. A symbolic link is none: where it leads is somebody else's to save."""
    for directory, below, names in os.walk(data):
        below.sort()
        for name in sorted(names):
            path = Path(directory) / name
            if path.is_file() and not path.is_symlink() and not _NOT_KEPT.fullmatch(name):
                yield path


def _ledgers(data: Path) -> list[str]:
    """Give the ledgers' paths below ``data``: its own, and those of other trust domains in it."""
    return [str(path.relative_to(data)) for path in _wanted(data) if path.name == LEDGER]


def _owned(data: Path) -> dict[str, Path]:
    """Give the ledgers below ``data`` that belong to an authority there, and its own, by path."""
    own = {str(home / LEDGER) for home in homes(_read_files(data))} | {LEDGER}
    return {path: data / path for path in _ledgers(data) if path in own}


def _read_files(data: Path) -> dict[str, bytes]:
    kept = {}
    for path in _wanted(data):
        if path.name != LEDGER:
            with contextlib.suppress(FileNotFoundError):  # renewed at this moment: its next version has the same name
                kept[str(path.relative_to(data))] = _read(path)
        if len(kept) > MAX_FILES:
            raise BadInput(f"there are more than {MAX_FILES} files in this directory", file=str(data))
    return kept


def _read(path: Path) -> bytes:
    data = path.read_bytes()
    if len(data) > MAX_FILE_BYTES:
        hint = "is it the platform's? Other files belong elsewhere"
        raise BadInput(f"the file is larger than {MAX_FILE_BYTES} bytes", file=str(path), hint=hint)
    return data


def _authorities(kept: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in kept.items() if AUTHORITY in PurePosixPath(path).parts}


def _snapshot(ledger: Path, copy: Path) -> Path:
    """Copy a ledger as of one moment, and check that the copy is whole."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{quote(str(ledger.resolve()))}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("pragma journal_mode = delete")  # one file, with no log beside it
            ((found,),) = target.execute("pragma quick_check(1)")
    except sqlite3.Error as error:
        raise BadInput(f"the ledger cannot be copied: {error}", file=str(ledger)) from error
    if found != "ok":
        raise BadInput(f"the ledger is damaged: {found}", file=str(ledger), hint="restore the last good backup")
    return copy


def _elsewhere(
    kept: dict[str, bytes], ledgers: Mapping[str, Path], take_out: TakeOut | None, stage: Path
) -> dict[str, Path]:
    """Take out the ledgers that are not in the directory: an authority without its ledger would be of no use."""
    taken = {}
    for number, home in enumerate(dict.fromkeys([FIRST, *homes(kept)])):
        path = str(home / LEDGER)
        if path in ledgers:
            continue
        if take_out is None:
            raise BadInput("there is an authority here, and no ledger", file=str(home), hint=_NAME_DATABASE)
        taken[path] = stage / f"taken-{number}"
        taken[path].unlink(missing_ok=True)
        take_out(path, taken[path])
        check_together(taken[path], kept, home)
    return taken


def _manifest(kept: dict[str, bytes], ledgers: dict[str, Path], now: datetime) -> Manifest:
    members = [Member(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in kept.items()]
    for path, copy in ledgers.items():
        with copy.open("rb") as file:
            members.append(Member(path, copy.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()))
    open_keys = [path for path, data in _authorities(kept).items() if _KEY in data and not is_sealed(data)]
    return Manifest(VERSION, now, tuple(members), tuple(open_keys))


def _write(path: Path, manifest: Manifest, kept: dict[str, bytes], ledgers: dict[str, Path]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, MANIFEST, io.BytesIO(encode(manifest)), manifest)
            for name, data in kept.items():
                _add(tar, name, io.BytesIO(data), manifest)
            for name, copy in ledgers.items():
                with copy.open("rb") as source:
                    _add(tar, name, source, manifest)
        file.flush()
        os.fsync(handle)


def _add(tar: tarfile.TarFile, name: str, source: IO[bytes], manifest: Manifest) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = source.seek(0, io.SEEK_END), 0o600
    info.mtime = int(manifest.made_at.timestamp())
    source.seek(0)
    tar.addfile(info, source)


def _place(made: Path, archive: Path) -> None:
    made.chmod(0o600)
    os.link(made, archive)  # unlike a rename, it never replaces what came there meanwhile
    files.sync_directory(archive.parent)


@contextlib.contextmanager
def _beside(archive: Path) -> Iterator[Path]:
    """Give a directory for us alone, on the archive's own disk; it goes with all that is in it."""
    stage = archive.with_name(f".{archive.name}.{secrets.token_hex(8)}.new")
    try:
        yield files.private_directory(stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


# Putting one back


def _require_unused(data: Path) -> None:
    if not data.exists():
        return
    if not data.is_dir():
        raise BadInput("this is not a directory", file=str(data))
    _require_no_platform(data)
    if any(data.iterdir()):
        hint = "name another directory with --data, or move this one away"
        raise BadInput("there is something in this directory already", file=str(data), hint=hint)


def _require_no_platform(data: Path) -> None:
    with contextlib.suppress(FileNotFoundError), (data / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"a platform runs with the data directory {data}"
            raise Unavailable(text, hint="stop it, or restore to another directory") from None


@contextlib.contextmanager
def _staged(data: Path) -> Iterator[Path]:
    """Give a directory to fill, and put it in the place of ``data``."""
    stage = data.with_name(f".{data.name}.{secrets.token_hex(8)}.new")
    try:
        yield files.private_directory(stage)
        with contextlib.suppress(FileNotFoundError):
            data.rmdir()  # empty, or it fails
        stage.rename(data)
        files.sync_directory(data.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _extract(tar: tarfile.TarFile, stage: Path) -> Manifest:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MAX_MANIFEST_BYTES:
        raise BadInput(f"its first member is not {MANIFEST}", hint="name a file that 'handfast backup' made")
    manifest = from_plain(Manifest, decode(_opened(tar, first).read()))
    if manifest.version != VERSION:
        raise BadInput(f"this archive is of version {manifest.version}", hint="use the Handfast that made it")
    wanted = {member.path: member for member in manifest.members}
    if len(wanted) > MAX_FILES + MAX_FILES or LEDGER not in wanted:
        raise BadInput("the manifest is not one of a data directory", key=MANIFEST)
    while info := tar.next():
        member = wanted.pop(info.name, None)
        if member is None or not info.isreg() or info.size != member.size:
            raise BadInput("it is not as the manifest says", key=info.name[:200], hint=_WHOLE)
        _put(_opened(tar, info), _target(stage, member.path), member)
    if wanted:
        raise BadInput("it is missing", key=min(wanted)[:200], hint=_WHOLE)
    return manifest


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(info)
    assert source is not None  # of a regular file
    return source


def _target(stage: Path, path: str) -> Path:
    """Give where a member goes, which is below ``stage`` whatever its path says."""
    parts = path.split("/")
    if not all(part not in {"", ".", ".."} and "\0" not in part for part in parts):
        raise BadInput("the path leads out of the directory", key=path[:200])
    target = stage.joinpath(*parts)
    for parent in reversed(target.relative_to(stage).parents[:-1]):
        files.private_directory(stage / parent)
    return target


def _put(source: IO[bytes], target: Path, member: Member) -> None:
    digest, left = hashlib.sha256(), member.size
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        while left > 0 and (chunk := source.read(min(_CHUNK, left))):
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        os.fsync(handle)
    if left or digest.hexdigest() != member.sha256:
        raise BadInput("its SHA-256 is not the manifest's", key=member.path[:200], hint=_WHOLE)


def _go_on(ledger: Path, restored: PlatformRestored) -> None:
    """Let a restored ledger's numbers jump ahead, and record that it was restored."""
    at = to_micros(restored.at)
    try:
        with contextlib.closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            for name in _COUNTERS:
                connection.execute(_JUMP_COUNTER, (name, JUMP))
            connection.execute("update sqlite_sequence set seq = seq + ? where name = 'events'", (JUMP,))
            body = encode_event(restored).decode()
            connection.execute(
                "insert into events (id, kind, at, body) values (?, ?, ?, ?)", (restored.id, restored.kind, at, body)
            )
            connection.execute("commit")
    except sqlite3.Error as error:
        raise BadInput(f"the ledger cannot be used: {error}", key=LEDGER, hint=_WHOLE) from error
