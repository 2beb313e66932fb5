import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import postgres as module
from handfast.io import postgres_session
from handfast.io.database import Result, step
from handfast.io.migrations import Migration
from handfast.io.postgres import MAX_QUEUE, PostgresDatabase
from handfast.io.postgres_session import Address
from handfast.io.schemas import lock
from tests.support.cutting import Cutting
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStore

TABLE = Migration(
    1,
    "pairs",
    """create table pairs (k text primary key, v integer not null);
    create table counted (seq integer primary key autoincrement, k text not null);""",
)
INSERT = "insert into pairs (k, v) values ($1, $2)"
COUNT = "insert into counted (k) values ($1) returning seq"
ALL = "select k, v from pairs order by k"


@pytest.fixture
async def db(postgres_store: PostgresStore) -> AsyncIterator[PostgresDatabase]:
    """Give a database with two tables."""
    database = await postgres_store.open([TABLE])
    yield database
    await database.close()


@asynccontextmanager
async def holding_the_turn(address: Address) -> AsyncIterator[asyncpg.Connection]:
    """Be another process in the middle of its transaction."""
    session = await postgres_session.connect(address)
    try:
        await session.execute(f"begin; {lock('')}")
        yield session
    finally:
        session.terminate()


async def until(holds: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.005)


async def waiting(store: PostgresStore) -> bool:
    """Tell whether a session waits for its turn."""
    session = await asyncpg.connect(store.argument)
    try:
        return await session.fetchval(
            "select exists (select 1 from pg_locks where locktype = 'advisory' and not granted and database ="
            " (select oid from pg_database where datname = current_database()))"
        )
    finally:
        await session.close()


async def test_units_asked_for_together_share_a_commit(db: PostgresDatabase):
    """A hundred writers cost one transaction."""
    await asyncio.gather(*(db.write(step(INSERT, f"k{number}", number)) for number in range(100)))
    assert await db.fetch("select count(distinct xmin::text), count(*) from pairs") == [(1, 100)]


async def test_a_commit_is_durable(postgres_store: PostgresStore):
    """Nothing is acknowledged before it is on disk, even where the database's own setting would."""
    await postgres_store.server.execute(f"alter database {postgres_store.name} set synchronous_commit = off")
    db = await postgres_store.open([TABLE])
    assert await db.write(step("select current_setting('synchronous_commit')")) == [Result([("on",)], 1)]
    await db.close()


async def test_a_text_with_a_null_byte_is_bad_input(db: PostgresDatabase):
    """PostgreSQL cannot keep U+0000; who sends it is told, and its neighbours are written."""
    outcomes = await asyncio.gather(
        db.write(step(INSERT, "a\0b", 1)), db.write(step(INSERT, "c", 1)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [BadInput, list]


async def test_a_cancelled_caller_does_not_stop_what_is_being_committed(
    db: PostgresDatabase, postgres_store: PostgresStore
):
    """Once a unit is on its way, it is written and announced, though nobody waits for it any more."""
    told: list[list[Result]] = []
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)) as other:
        task = asyncio.create_task(db.write(step(COUNT, "a"), then=told.append))
        await until(lambda: waiting(postgres_store))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await other.execute("commit")
    await until(lambda: db.fetch("select 1 from counted"))
    await db.write(step(INSERT, "later", 1))
    assert task.cancelled()
    assert told == [[Result([(1,)], 1)]]


async def test_numbers_become_visible_in_their_order(db: PostgresDatabase, postgres_store: PostgresStore):
    """While one process has a number and has not committed it, no other process can show a later one."""
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)) as slow:
        first = await slow.fetchval(COUNT, "slow")
        task = asyncio.create_task(db.write(step(COUNT, "fast")))
        await until(lambda: waiting(postgres_store))
        assert await db.fetch("select seq from counted") == []
        await slow.execute("commit")
    ((second,),) = (await task)[0].rows
    assert first < second
    assert await db.fetch("select k from counted order by seq") == [("slow",), ("fast",)]


async def test_a_reader_that_pages_by_number_skips_nothing(postgres_store: PostgresStore):
    """With writers on three connections, some of whose units fail, a reader gets every number that there is."""
    writers = [await postgres_store.open([TABLE]) for _ in range(3)]
    reader = await postgres_store.open([TABLE])
    seen: list[int] = []

    async def write(number: int) -> None:
        for turn in range(40):
            units = [[step(COUNT, f"{number}-{turn}-{unit}")] for unit in range(3)]
            units[1].append(step("update pairs set v = 0 where k = 'nobody'", expect=turn % 4 == 0))
            await asyncio.gather(*(writers[number].write(*unit) for unit in units), return_exceptions=True)

    async def read() -> None:
        while rows := await reader.fetch(
            "select seq from counted where seq > $1 order by seq limit 7", max([0, *seen])
        ):
            seen.extend(seq for (seq,) in rows)

    writing = asyncio.gather(*(write(number) for number in range(len(writers))))
    while not writing.done():
        await read()
        await asyncio.sleep(0)
    await writing
    await read()
    assert seen == [seq for (seq,) in await reader.fetch("select seq from counted order by seq")]
    assert len(seen) >= 3 * 40 * 2
    for one in (*writers, reader):
        await one.close()


async def test_two_groups_never_deadlock(postgres_store: PostgresStore):
    """Processes that change the same rows in opposite orders take turns, and nobody fails."""
    one, other = await postgres_store.open([TABLE]), await postgres_store.open([TABLE])
    add = "insert into pairs values ($1, 1) on conflict (k) do update set v = pairs.v + 1"
    forth, back = [step(add, key) for key in "abcdef"], [step(add, key) for key in "fedcba"]
    for _ in range(20):
        await asyncio.gather(*(db.write(*unit) for db, unit in ((one, forth), (other, back)) for _ in range(5)))
    assert await one.fetch(ALL) == [(key, 200) for key in "abcdef"]
    await one.close()
    await other.close()


async def test_steps_that_refer_to_each_other_stay_in_their_order(postgres_store: PostgresStore):
    """A foreign key makes two tables one, so a row never comes before the one that it needs."""
    tables = Migration(
        1,
        "tree",
        "create table trunk (k text primary key); create table leaf (k text primary key references trunk (k));",
    )
    db = await postgres_store.open([tables])
    units = [(step("insert into trunk values ($1)", key), step("insert into leaf values ($1)", key)) for key in "abc"]
    removed = (step("delete from leaf where k = 'a'"), step("delete from trunk where k = 'a'", expect=1))
    await asyncio.gather(*(db.write(*unit) for unit in units), db.write(*removed))
    assert await db.fetch("select k from leaf order by k") == [("b",), ("c",)]
    await db.close()


# What goes wrong


async def test_a_killed_connection_is_replaced_unseen(db: PostgresDatabase, postgres_store: PostgresStore):
    """An administrator ends all sessions: the next reads and writes are on new ones, and nobody gets an error."""
    await db.write(step(INSERT, "a", 1))
    await asyncio.gather(*(db.fetch(ALL) for _ in range(8)))
    await postgres_store.server.execute(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{postgres_store.name}'"
    )
    await asyncio.gather(db.write(step(INSERT, "b", 1)), *(db.fetch(ALL) for _ in range(8)))
    assert await db.fetch(ALL) == [("a", 1), ("b", 1)]


async def test_a_connection_that_ends_before_the_commit_has_written_nothing(
    db: PostgresDatabase, postgres_store: PostgresStore
):
    """A session that is ended while it waits for its turn is replaced, and its group is written once."""
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)) as other:
        task = asyncio.create_task(db.write(step(INSERT, "a", 1)))
        await until(lambda: waiting(postgres_store))
        await postgres_store.server.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted and database ="
            f" (select oid from pg_database where datname = '{postgres_store.name}')"
        )
        await other.execute("commit")
    assert await task == [Result([], 1)]
    assert await db.fetch(ALL) == [("a", 1)]


async def test_a_server_that_is_away_is_unavailable_and_comes_back(own_server: PostgresServer):
    """All who wait are told at once; when it is back all is well, and what was acknowledged is there after a crash."""
    db = await PostgresDatabase.open(own_server.address(await own_server.create_database()), [TABLE])
    await db.write(step(INSERT, "a", 1))
    await asyncio.to_thread(own_server.stop, signal.SIGQUIT)
    began = time.monotonic()
    writes = [db.write(step(INSERT, f"{number}", 1)) for number in range(600)]
    outcomes = await asyncio.gather(*writes, db.fetch(ALL), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert time.monotonic() - began < 5
    await asyncio.to_thread(own_server.start)
    await db.write(step(INSERT, "b", 1))
    assert await db.fetch(ALL) == [("a", 1), ("b", 1)]
    await db.close()


@pytest.mark.parametrize("written", [True, False])
async def test_a_connection_that_ends_at_the_commit_leaves_a_doubt(postgres_store: PostgresStore, written: bool):
    """Whether the commit arrived or not, the caller is told that it may have been written, and is not told that it was."""
    async with Cutting(postgres_store.server.directory, deliver=written) as cutting:
        db = await PostgresDatabase.open(cutting.address(postgres_store.name), [TABLE])
        told: list[list[Result]] = []
        cutting.cut_at(b"commit")
        with pytest.raises(Unavailable, match="may have been written, or not"):
            await db.write(step(INSERT, "a", 1), then=told.append)
        await until(lambda: count_is(db, int(written)))
        assert told == []
        await db.write(step(INSERT, "b", 1))
        await db.close()


async def count_is(db: PostgresDatabase, count: int) -> bool:
    return await db.fetch("select count(*) from pairs") == [(count,)]


async def test_waiting_too_long_is_unavailable(postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch):
    """Where another process does not end its transaction, writers are told, and write when it has."""
    monkeypatch.setitem(postgres_session._SETTINGS, "statement_timeout", "100ms")
    db = await postgres_store.open([TABLE])
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)):
        outcomes = await asyncio.gather(*(db.write(step(INSERT, key, 1)) for key in "ab"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        assert await db.fetch(ALL) == []
    await db.write(step(INSERT, "a", 1))
    await db.close()


async def test_who_stalls_inside_a_transaction_loses_its_turn(
    postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
):
    """A server that hangs in the middle of a group does not stop the others for longer than its limit."""
    db = await postgres_store.open([TABLE])
    monkeypatch.setitem(postgres_session._SETTINGS, "idle_in_transaction_session_timeout", "200ms")
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)) as stalled:
        await stalled.execute("insert into pairs values ('half', 1)")
        await asyncio.wait_for(db.write(step(INSERT, "whole", 1)), 5)
        assert await db.fetch(ALL) == [("whole", 1)]
    await db.close()


async def test_the_queue_is_bounded(db: PostgresDatabase, postgres_store: PostgresStore):
    """While the database is slow, more writers than a server can have are refused and not remembered."""
    async with holding_the_turn(postgres_store.server.address(postgres_store.name)) as other:
        first = asyncio.create_task(db.write(step(INSERT, "first", 1)))
        await until(lambda: waiting(postgres_store))
        tasks = [asyncio.create_task(db.write(step("delete from pairs where k = 'x'"))) for _ in range(MAX_QUEUE)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="too many"):
            await db.write(step(INSERT, "late", 1))
        await other.execute("commit")
    await asyncio.gather(first, *tasks)
    assert await db.fetch(ALL) == [("first", 1)]


async def test_reads_are_bounded(db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch):
    """No more reads at a time than there are readers; who waits too long for one is told."""
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)
    slow = [asyncio.create_task(db.fetch("select pg_sleep(0.5)::text")) for _ in range(module.READERS)]
    await asyncio.sleep(0.1)
    with pytest.raises(Unavailable):
        await db.fetch(ALL)
    await asyncio.gather(*slow)
    assert await db.fetch(ALL) == []


async def test_a_database_that_is_not_utf_8_is_refused(postgres: PostgresServer):
    """An encoding that cannot hold every name is named at the start."""
    name = await postgres.create_database("encoding 'SQL_ASCII' template template0")
    with pytest.raises(BadInput, match="SQL_ASCII"):
        await PostgresDatabase.open(postgres.address(name), [TABLE])


async def test_what_does_not_answer_is_unavailable(postgres: PostgresServer, tmp_path: Path):
    """A socket that is not there is `Unavailable`; a database that is not there is a wrong address."""
    with pytest.raises(Unavailable):
        await PostgresDatabase.open(Address(f"postgresql:///x?host={tmp_path}", "postgresql:///x"))
    with pytest.raises(BadInput, match="nowhere"):
        await PostgresDatabase.open(postgres.address("nowhere"))


async def test_a_wrong_password_is_not_repeated(postgres: PostgresServer):
    """The error names user and database; neither it nor its cause has the password or the address."""
    name = await postgres.create_database()
    with pytest.raises(BadInput) as caught:
        await PostgresDatabase.open(
            Address(
                f"postgresql://guarded:an0ther-word@/{name}?host={postgres.directory}", f"postgresql://guarded@/{name}"
            )
        )
    assert "guarded" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert "an0ther-word" not in f"{error!s} {error!r}"
        error = error.__cause__
