"""The store on one machine: SQLite, with group commit inside the event loop.

Decides how units of work share a commit. All that is asked for during one turn of the loop is one transaction, as one fsync
costs more than many inserts. Where a unit fails, the transaction is rolled back and done again with a savepoint around each
unit, so that only the guilty one fails. Refuses to know what is stored.

The commit blocks the loop, on purpose: handing it to a thread costs more than the fsync of a decent disk.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from handfast.base.refusal import BadInput, Unavailable
from handfast.io.database import Committed, Conflict, Database, Heard, Outcome, Result, Row, Step, Unit, Value
from handfast.io.migrations import HISTORY, Migration, load, pending

OLDEST_SQLITE = (3, 35, 0)  # `returning`
BUSY_SECONDS = 2.0
MAX_GROUP = 256
_OPENING_PAUSES = (0.1, 0.3, 1.0)
_PARAMETER = re.compile(r"\$(\d+)")
_TAKEN = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}
_ENVIRONMENT = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}  # fmt: skip
_PRAGMAS = (
    "synchronous = full",
    "fullfsync = on",  # on macOS a plain fsync leaves the data in the drive's cache
    "foreign_keys = on",
    "trusted_schema = off",
    "journal_size_limit = 67108864",
)


class SqliteDatabase(Database):
    """One SQLite file, written by one connection and read by another. Belongs to one event loop."""

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Take two open connections to one file; `open` makes them."""
        self._writer, self._reader = writer, reader
        self._queue: list[Unit] = []
        self._closed = False

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration] | None = None) -> SqliteDatabase:
        """Open the file, made with mode 0600 where it is missing, and bring its schema up to date.

        Several may open it at once. SQLite gives some of them up at once where waiting could be a deadlock, so they try again.

        Raises:
            BadInput: it is no database, cannot be used as one, or was written by a newer version.
            Unavailable: another process holds it.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise BadInput(f"SQLite {sqlite3.sqlite_version} is too old", hint="use a Python with SQLite 3.35 or later")
        known = load() if migrations is None else migrations
        for pause in _OPENING_PAUSES:
            with suppress(Unavailable):
                return cls._opened(path, known)
            await asyncio.sleep(pause)
        return cls._opened(path, known)

    @classmethod
    def _opened(cls, path: Path, known: Sequence[Migration]) -> SqliteDatabase:
        try:
            _secure(path)
            with ExitStack() as opened:
                writer = opened.enter_context(closing(_connect(path)))
                migrate(writer, known)
                reader = opened.enter_context(closing(_connect(path)))
                reader.execute("pragma query_only = on")
                opened.pop_all()
        except OSError as error:
            raise BadInput(f"the database cannot be opened: {error.strerror}", file=str(path)) from error
        except sqlite3.DatabaseError as error:
            if _primary_code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise BadInput("this is not a database, or it is damaged", file=str(path)) from error
            raise _translated(error) from error
        return cls(writer, reader)

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Read rows, as `Database.fetch` says."""
        self._require_open()
        try:
            return self._reader.execute(numbered(sql), args).fetchall()
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise _translated(error) from error

    async def write(self, *steps: Step, then: Committed | None = None) -> list[Result]:
        """Do the steps as one unit, as `Database.write` says. A caller that is cancelled in the queue writes nothing."""
        self._require_open()
        loop = asyncio.get_running_loop()
        unit = Unit(steps, loop.create_future(), then)
        if not self._queue:
            loop.call_soon(self._flush)
        self._queue.append(unit)
        return await unit.future

    async def hear(self, heard: Heard) -> None:
        """Hear nothing: the file has one process alone."""

    async def close(self) -> None:
        """Write what is queued, and close the file. May be called again."""
        while self._queue:
            self._flush()
        self._closed = True
        self._reader.close()
        self._writer.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable("the database is closed")

    def _flush(self) -> None:
        group, self._queue = self._queue[:MAX_GROUP], self._queue[MAX_GROUP:]
        if self._queue:
            self._queue[0].future.get_loop().call_soon(self._flush)
        if units := [unit for unit in group if not unit.future.done()]:
            for unit, outcome in zip(units, self._commit(units), strict=True):
                unit.settle(outcome)

    def _commit(self, units: list[Unit]) -> Sequence[Outcome]:
        try:
            with transaction(self._writer):
                return [self._run(unit) for unit in units]
        except Exception as error:  # noqa: BLE001 - every waiting caller gets it
            if len(units) == 1 or isinstance(_translated(error), Unavailable):
                return [_translated(error) for _ in units]
        try:
            with transaction(self._writer):
                return [self._run_apart(unit) for unit in units]
        except Exception as error:  # noqa: BLE001 - as above
            return [_translated(error) for _ in units]

    def _run(self, unit: Unit) -> list[Result]:
        return [_execute(self._writer, step) for step in unit.steps]

    def _run_apart(self, unit: Unit) -> Outcome:
        self._writer.execute("savepoint unit")
        outcome: Outcome
        try:
            outcome = self._run(unit)
        except Exception as error:
            outcome = _translated(error)
            # A full disk and the like end the whole transaction, and no savepoint is left to go back to.
            if isinstance(outcome, Unavailable) or not self._writer.in_transaction:
                raise
            self._writer.execute("rollback to unit")
        self._writer.execute("release unit")
        return outcome


@lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """Spell ``$1`` as SQLite does: ``?1``."""
    return _PARAMETER.sub(r"?\1", sql)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block did, or nothing of it where it raises."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def migrate(connection: sqlite3.Connection, known: Sequence[Migration]) -> None:
    """Apply the migrations that are lacking, all in one transaction.

    Raises:
        BadInput: the database is newer than ``known``, or differs from it.
    """
    with transaction(connection):
        connection.execute(HISTORY)
        applied = dict(connection.execute("select number, checksum from migrations"))
        for migration in pending(applied, known):
            for statement in migration.statements():
                connection.execute(statement)
            connection.execute(
                "insert into migrations values (?1, ?2, ?3, cast(strftime('%s', 'now') as integer) * 1000000)",
                (migration.number, migration.name, migration.checksum),
            )


def _execute(connection: sqlite3.Connection, step: Step) -> Result:
    sql, args, expect = step
    cursor = connection.execute(numbered(sql), args)
    rows = [] if cursor.description is None else cursor.fetchall()
    count = cursor.rowcount if cursor.description is None else len(rows)
    if expect is not None and count != expect:
        raise Conflict(f"{count} rows, not {expect}")
    return Result(rows, count)


def _secure(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise BadInput("this is not a file", file=str(path)) from None
        # Not by a descriptor: closing one would drop the locks of every connection this process has to the file.
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if file.exists():
                file.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=256)
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for pragma in _PRAGMAS:
        connection.execute(f"pragma {pragma}")
    ((mode,),) = connection.execute("pragma journal_mode = wal")
    if mode != "wal":
        raise BadInput("the file system cannot carry a write-ahead log", hint="use a local disk", file=str(path))


def _primary_code(error: Exception) -> int:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def _translated(error: Exception) -> Exception:
    if getattr(error, "sqlite_errorcode", None) in _TAKEN:
        return Conflict(str(error))
    if _primary_code(error) in _ENVIRONMENT:
        return Unavailable(
            f"the database does not answer: {error}", hint="is its disk full, or read by another program?"
        )
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return BadInput("a number is out of range, or a text is not Unicode")
    return error
