"""A ledger on its way between a real PostgreSQL and SQLite files."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io.database import Database, step
from handfast.io.databases import read_address
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.lists import ListHead, SharedLists
from handfast.io.postgres import PostgresDatabase
from handfast.io.sqlite import SqliteDatabase
from handfast.io.transfer import put_in, take_out
from handfast.trust.joining import Grant
from tests.io.ledger.builders import NOW, ids, intent, invited, issue, joined, revoked
from tests.support.ledger import revoked_live
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStore

TABLES = "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' and name <> 'migrations'"


@pytest.fixture
async def db(postgres_store: PostgresStore) -> AsyncIterator[Database]:
    """Give a ledger in PostgreSQL with something of many kinds in it."""
    database = await postgres_store.open()
    ledger = await SqlLedger.open(database)
    for number in range(30):
        await issue(ledger, f"{number:02x}")
    await ledger.revoke(["0a"], NOW, "superseded", [revoked("0a")])
    await database.write(step("insert into meta (key, value) values ('odd', $1)", "ä ☃ \\N \t ' \" \n"))
    await ledger.add_join_token("t" * 32, invited("t" * 32))
    await ledger.take_agent_name("web-1", Grant("4bac", ""))
    await ledger.seal(NOW)
    head = ListHead(path="slice/aa", number=3, revision=2, made_at=NOW, scheduled_at=NOW)
    await SharedLists(database).offer(head, bytes(range(256)), NOW)
    yield database
    await database.close()


def content(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give all rows of all tables."""
    with closing(sqlite3.connect(file)) as ledger:
        tables = [name for (name,) in ledger.execute(TABLES)]
        return {table: sorted(ledger.execute(f"select * from {table}"), key=repr) for table in tables}


async def test_a_ledger_goes_there_and_back(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """Out of PostgreSQL, into another one, and out of that: every row is the same, and both stores can be used."""
    await take_out(postgres.address(postgres_store.name), tmp_path / "one")
    name = await postgres.create_database()
    await put_in(tmp_path / "one", postgres.address(name))
    await take_out(postgres.address(name), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    filled = {table for table, rows in content(tmp_path / "one").items() if rows}
    assert {"certificates", "events", "meta", "join_tokens", "agent_names", "shared_lists"} <= filled
    whole = await ids(await SqlLedger.open(db))
    for opened in (SqliteDatabase.open(tmp_path / "one"), PostgresDatabase.open(postgres.address(name))):
        database = await opened
        ledger = await SqlLedger.open(database)
        assert await ids(ledger) == whole
        assert [one.serial for one in await revoked_live(ledger, NOW)] == ["0a"]
        await ledger.append([joined("after")])
        assert (await ids(ledger))[-1] == "after"
        assert ledger.event_head.value == len(whole) + 1
        await database.close()


async def test_numbers_that_were_given_out_are_not_given_again(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """Also where the rows that had them were forgotten."""
    ((last,),) = await db.fetch("select max(seq) from events")
    await db.write(step("delete from events where seq > 3"))
    await take_out(postgres.address(postgres_store.name), tmp_path / "one")
    name = await postgres.create_database()
    await put_in(tmp_path / "one", postgres.address(name))
    for opened in (SqliteDatabase.open(tmp_path / "one"), PostgresDatabase.open(postgres.address(name))):
        database = await opened
        ledger = await SqlLedger.open(database)
        await ledger.append([joined("after")])
        assert ledger.event_head.value == last + 1
        await database.close()


async def test_what_is_taken_out_is_one_moment(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """Servers go on issuing meanwhile: each certificate that is there as issued has its event, and the other way round."""
    ledger, going = await SqlLedger.open(db), True

    async def work() -> None:
        number = 0x1000
        while going:
            await issue(ledger, f"{number:04x}")
            number += 1

    working = asyncio.create_task(work())
    try:
        for number in range(3):
            await take_out(postgres.address(postgres_store.name), tmp_path / str(number))
    finally:
        going = False
        await working
    counts = []
    for number in range(3):
        with closing(sqlite3.connect(tmp_path / str(number))) as copy:
            issued_ = {
                s for (s,) in copy.execute("select serial from certificates where state in ('issued', 'revoked')")
            }
            told = {
                i.removeprefix("issued-") for (i,) in copy.execute("select id from events where id like 'issued-%'")
            }
        assert issued_ == told
        counts.append(len(told))
    assert counts[0] < counts[2]


async def test_only_an_empty_database_is_filled(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """Nothing of a ledger that is there is touched."""
    address = postgres.address(postgres_store.name)
    await take_out(address, tmp_path / "one")
    before = await db.fetch("select count(*) from events")
    with pytest.raises(BadInput, match="already"):
        await put_in(tmp_path / "one", address)
    assert await db.fetch("select count(*) from events") == before


async def test_a_copy_that_fails_leaves_the_database_empty(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """A row that PostgreSQL does not take undoes all: it can be tried again."""
    assert db
    await take_out(postgres.address(postgres_store.name), tmp_path / "one")
    with closing(sqlite3.connect(tmp_path / "one")) as copy:
        copy.execute("insert into meta values ('spoilt', 'a' || char(0) || 'b')")
        copy.commit()
    name = await postgres.create_database()
    with pytest.raises(BadInput):
        await put_in(tmp_path / "one", postgres.address(name))
    with closing(sqlite3.connect(tmp_path / "one")) as copy:
        copy.execute("delete from meta where key = 'spoilt'")
        copy.commit()
    await put_in(tmp_path / "one", postgres.address(name))


async def test_a_ledger_of_a_newer_version_is_left_alone(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """Neither taken out nor put in: what its tables mean is not known here."""
    address = postgres.address(postgres_store.name)
    await take_out(address, tmp_path / "one")
    with closing(sqlite3.connect(tmp_path / "one")) as copy:
        copy.execute("insert into migrations values (999, 'later', 'x', 0)")
        copy.commit()
    await db.write(step("insert into migrations values (999, 'later', 'x', 0)"))
    with pytest.raises(BadInput, match="newer"):
        await take_out(address, tmp_path / "two")
    with pytest.raises(BadInput, match="newer"):
        await put_in(tmp_path / "one", postgres.address(await postgres.create_database()))


async def test_where_there_is_no_ledger_there_is_nothing_to_take(postgres: PostgresServer, tmp_path: Path):
    """An empty database, and one that does not answer."""
    with pytest.raises(BadInput, match="no ledger"):
        await take_out(postgres.address(await postgres.create_database()), tmp_path / "one")
    with pytest.raises(Unavailable):
        await take_out(read_address(f"postgresql://u@/d?host={tmp_path}", {}), tmp_path / "two")


async def test_an_intent_stays_an_intent(
    db: Database, postgres: PostgresServer, postgres_store: PostgresStore, tmp_path: Path
):
    """What was about to be signed is known as that, so that the next start settles it."""
    ledger = await SqlLedger.open(db)
    await ledger.record_intent(intent("ff"))
    await take_out(postgres.address(postgres_store.name), tmp_path / "one")
    database = await SqliteDatabase.open(tmp_path / "one")
    assert [one.serial for one in await (await SqlLedger.open(database)).interrupted(NOW + timedelta(1))] == ["ff"]
    await database.close()
