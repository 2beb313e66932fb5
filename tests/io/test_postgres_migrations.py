import asyncio
from pathlib import Path

import asyncpg
import pytest

from handfast.base.refusal import BadInput
from handfast.io.migrations import Migration, for_postgres, load
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address
from handfast.io.sqlite import SqliteDatabase
from tests.support.stores import PostgresStore

FIRST = Migration(1, "first", "create table one (a text);\ninsert into one values ('kept');\n")
SECOND = Migration(2, "second", "alter table one rename to two;\ncreate table three (a blob);\n")
TABLES = "select tablename from pg_tables where schemaname = 'public'"
COLUMNS = """select table_name || '.' || column_name from information_schema.columns
    where table_schema = 'public' order by table_name, ordinal_position"""


async def tables(store: PostgresStore) -> set[str]:
    session = await asyncpg.connect(store.argument)
    try:
        return {name for (name,) in await session.fetch(TABLES)}
    finally:
        await session.close()


async def opened(store: PostgresStore, *migrations: Migration) -> None:
    await (await store.open(migrations)).close()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("seq integer primary key autoincrement", "seq bigint generated always as identity primary key"),
        ("count integer, der blob", "count bigint, der bytea"),
        ("check (s in ('text', 'a blob''s integer'))", "check (s in ('text', 'a blob''s integer'))"),
        ("select 1; -- an integer, a blob", "select 1; -- an integer, a blob"),
        ("name TEXT not null", 'name text collate "C" not null'),
        ("select cast(n as text)", "select cast(n as text)"),
        ("context bigint, blobs bigint", "context bigint, blobs bigint"),
    ],
)
def test_types_are_spelt_as_postgresql_does(ours: str, theirs: str):
    """Types alone are changed, and not what is written in texts and comments."""
    assert for_postgres(ours) == theirs


async def test_our_schema_is_the_same_on_both(postgres_store: PostgresStore, tmp_path: Path):
    """Each table has the same columns in the same order, and each text sorts by code point."""
    ours, theirs = await SqliteDatabase.open(tmp_path / "db"), await postgres_store.open()
    columns = """select m.name || '.' || c.name from sqlite_schema m join pragma_table_info(m.name) c
        where m.type = 'table' and m.name not like 'sqlite%' order by m.name, c.cid"""
    assert await ours.fetch(columns) == await theirs.fetch(COLUMNS)
    assert await theirs.fetch("select count(*) from migrations") == [(len(load()),)]
    sorted_otherwise = """select attrelid::regclass::text, attname::text from pg_attribute join pg_class on pg_class.oid = attrelid
        join pg_collation on pg_collation.oid = attcollation where relkind = 'r' and collname <> 'C'
        and relnamespace = 'public'::regnamespace"""
    assert await theirs.fetch(sorted_otherwise) == []
    await ours.close()
    await theirs.close()


async def test_servers_that_start_at_once_migrate_once(postgres_store: PostgresStore):
    """The first makes the schema, the others wait for it and find it."""
    opened = await asyncio.gather(*(postgres_store.open() for _ in range(6)))
    for db in opened:
        assert await db.fetch("select count(*) from migrations") == [(len(load()),)]
        await db.close()


async def test_a_later_migration_is_added_and_an_older_program_refused(postgres_store: PostgresStore):
    """Data stays, an older version does not touch what it cannot understand, and an altered one is noticed."""
    await opened(postgres_store, FIRST)
    await opened(postgres_store, FIRST, SECOND)
    assert await tables(postgres_store) == {"two", "three", "migrations"}
    with pytest.raises(BadInput, match="newer"):
        await opened(postgres_store, FIRST)
    with pytest.raises(BadInput, match="migration 1 is not"):
        await opened(postgres_store, Migration(1, "first", FIRST.sql + "-- harmless"), SECOND)


async def test_a_failing_migration_leaves_the_old_schema(postgres_store: PostgresStore):
    """All that is pending is one transaction: the good half of it goes too."""
    await opened(postgres_store, FIRST)
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await opened(postgres_store, FIRST, SECOND, Migration(3, "third", "create table nonsense (;"))
    assert await tables(postgres_store) == {"one", "migrations"}
    await opened(postgres_store, FIRST, SECOND)


async def test_a_server_that_may_not_create_tables_can_use_them(postgres_store: PostgresStore):
    """Once the schema is there, a user with no right to change it is enough; before that the error says what is lacking."""
    server, name = postgres_store.server, postgres_store.name
    role = f"plain_{name}"
    await server.execute(f"create role {role} login")
    url = server.url(name).replace("//handfast@", f"//{role}@")
    lesser = Address(url, "postgresql:///lesser")
    with pytest.raises(BadInput, match="permission denied"):
        await PostgresDatabase.open(lesser, [FIRST])
    await opened(postgres_store, FIRST)
    await server.execute("grant select on all tables in schema public to public", name)
    db = await PostgresDatabase.open(lesser, [FIRST])
    assert await db.fetch("select a from one") == [("kept",)]
    await db.close()


async def test_a_database_with_tables_of_others_is_refused(postgres_store: PostgresStore):
    """Nothing of theirs is touched."""
    await postgres_store.server.execute("create table one (theirs int)", postgres_store.name)
    with pytest.raises(BadInput, match="already exists"):
        await opened(postgres_store, FIRST)
    assert await tables(postgres_store) == {"one"}
