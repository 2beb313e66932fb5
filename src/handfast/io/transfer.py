"""Ledgers from PostgreSQL into SQLite files, and from SQLite files into PostgreSQL: every row as it is.

Decides that what is copied is one moment of a ledger, and all ledgers or nothing in a database. So a backup has one form whatever the store, and a
ledger may move from either store to the other. Refuses to know what the rows mean.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from handfast.base.refusal import BadInput, HandfastError
from handfast.io import sqlite
from handfast.io.migrations import Migration, load, pending
from handfast.io.postgres import MIGRATE_SECONDS, apply_migrations, check_encoding
from handfast.io.postgres_session import Address, Session, connect, translated
from handfast.io.schemas import enter, lock, make

_ROWS = 1000
_APPLIED = "select number, checksum from migrations"
_EMPTY = "make one with 'createdb --encoding UTF8 --template template0'"
_OURS = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name <> 'migrations' order by name"


async def take_out(address: Address, file: Path) -> None:
    """Copy the ledger at ``address``, as of one moment, into a new SQLite file. Servers go on writing meanwhile.

    Raises:
        BadInput: there is no ledger, or a newer version wrote it.
        Unavailable: the database does not answer.
    """
    async with _session(address) as session, session.transaction(isolation="repeatable_read", readonly=True):
        if await session.fetchval("select to_regclass('migrations')") is None:
            raise BadInput("there is no ledger in this database", key="database")
        known = _applied(await session.fetch(_APPLIED))
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as target:
            sqlite.migrate(target, known)
            with sqlite.transaction(target):
                for table in _tables(target):
                    await _read(session, target, table)


async def has_ledger(address: Address) -> bool:
    """Tell whether there is a ledger at ``address``; nothing is made there.

    Raises:
        BadInput: the database cannot be used.
        Unavailable: it does not answer.
    """
    async with _session(address) as session:
        return await session.fetchval("select to_regclass('migrations')") is not None


async def put_in(file: Path, address: Address) -> None:
    """Copy the ledger in a SQLite file into the empty database at ``address``: whole, or not at all.

    Raises:
        BadInput: there is something in the database, it cannot be used, or a newer version wrote the file.
        Unavailable: the database does not answer.
    """
    await put_all(address, {address.schema: file})


async def put_all(address: Address, ledgers: Mapping[str, Path]) -> None:
    """Copy ledgers, by schema, into the empty schemas of one database: all of them whole, or none at all.

    Raises:
        BadInput: as `put_in`, of any of them.
        Unavailable: the database does not answer.
    """
    async with _session(replace(address, schema="")) as session:
        await check_encoding(session)
        async with session.transaction():
            await session.execute(f"set local statement_timeout = '{MIGRATE_SECONDS:.0f}s'")
            for schema, file in ledgers.items():
                await enter(session, schema)
                await _put(session, schema, file)


async def _put(session: Session, schema: str, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as source:
        known = _applied(source.execute(_APPLIED).fetchall())
        await session.execute(lock(schema), timeout=MIGRATE_SECONDS)
        await make(session, schema)
        await _require_empty(session)
        await apply_migrations(session, known)
        for table in _tables(source):
            await _write(source, session, table)


@contextlib.asynccontextmanager
async def _session(address: Address) -> AsyncIterator[Session]:
    """Give a connection; what goes wrong on it is one of our errors."""
    session = await connect(address)
    try:
        yield session
    except Exception as error:  # noqa: BLE001 - each becomes one of ours, or stays as it is
        raise translated(error) from (None if isinstance(error, HandfastError) else error)
    finally:
        session.terminate()


def _applied(rows: Sequence[Sequence[object]]) -> tuple[Migration, ...]:
    """Give the migrations that made a ledger, which may be fewer than this version has."""
    applied = {int(str(number)): str(checksum) for number, checksum in rows}
    known = load()
    pending(applied, known)
    return tuple(one for one in known if one.number in applied)


async def _require_empty(session: Session) -> None:
    for table in ("migrations", "certificates", "events"):
        if await session.fetchval("select to_regclass($1)", table) is not None:
            raise BadInput("there is a ledger in this database already", key="database", hint=_EMPTY)


def _tables(ledger: sqlite3.Connection) -> list[str]:
    return [name for (name,) in ledger.execute(_OURS)]


def _columns(ledger: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in ledger.execute(f"pragma table_info({table})")]


def _counted(ledger: sqlite3.Connection, table: str) -> str | None:
    """Give the column that a table counts up, where it has one."""
    ((text,),) = ledger.execute("select sql from sqlite_master where name = ?", (table,))
    key = [row[1] for row in ledger.execute(f"pragma table_info({table})") if row[5]]
    return key[0] if "autoincrement" in text.lower() else None


async def _read(session: Session, target: sqlite3.Connection, table: str) -> None:
    columns = _columns(target, table)
    names, places = ", ".join(f'"{name}"' for name in columns), ", ".join("?" * len(columns))
    insert = f"insert into {table} ({names}) values ({places})"  # noqa: S608 - names of our own schema
    cursor = await session.cursor(f"select {names} from {table}")  # noqa: S608 - as above
    while rows := await cursor.fetch(_ROWS):
        target.executemany(insert, [tuple(row) for row in rows])
    if counted := _counted(target, table):
        sequence = await session.fetchval("select pg_get_serial_sequence($1, $2)", table, counted)
        last = await session.fetchval(f"select case when is_called then last_value else 0 end from {sequence}")  # noqa: S608 - the database's own word
        target.execute("delete from sqlite_sequence where name = ?", (table,))
        target.execute("insert into sqlite_sequence (name, seq) values (?, ?)", (table, last))


async def _write(source: sqlite3.Connection, session: Session, table: str) -> None:
    columns = _columns(source, table)
    for rows in _rows(source, table, columns):
        await session.copy_records_to_table(table, records=rows, columns=columns, timeout=MIGRATE_SECONDS)
    if counted := _counted(source, table):
        found = source.execute("select seq from sqlite_sequence where name = ?", (table,)).fetchone()
        if found and found[0]:
            await session.execute("select setval(pg_get_serial_sequence($1, $2), $3)", table, counted, found[0])


def _rows(source: sqlite3.Connection, table: str, columns: Sequence[str]) -> Iterator[Sequence[tuple[object, ...]]]:
    names = ", ".join(f'"{name}"' for name in columns)
    found = source.execute(f"select {names} from {table}")  # noqa: S608 - names of our own schema
    while rows := found.fetchmany(_ROWS):
        yield rows
