import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from handfast.base.refusal import Unavailable
from handfast.io import postgres_hearing
from handfast.io.database import step
from handfast.io.migrations import Migration
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address
from tests.support.postgres import PostgresServer
from tests.support.stores import PostgresStore

TABLE = Migration(1, "pairs", "create table pairs (k text primary key, v integer not null);")
INSERT = "insert into pairs (k, v) values ($1, $2)"


@pytest.fixture
async def db(postgres_store: PostgresStore) -> AsyncIterator[PostgresDatabase]:
    """Give a database with a table."""
    database = await postgres_store.open([TABLE])
    yield database
    await database.close()


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.005)


async def test_others_are_heard_and_oneself_is_not(postgres_store: PostgresStore):
    """A unit with a ``then`` is heard by the other processes; one without is nobody's business, and neither is one's own."""
    one, other = await postgres_store.open([TABLE]), await postgres_store.open([TABLE])
    calls = [0, 0]

    def hearing(number: int) -> Callable[[], Awaitable[None]]:
        async def heard() -> None:
            calls[number] += 1

        return heard

    await one.hear(hearing(0))
    await other.hear(hearing(1))
    await until(lambda: settled(calls))
    await one.write(step(INSERT, "quiet", 1))
    await one.write(step(INSERT, "loud", 1), then=lambda _: None)
    async with asyncio.timeout(5):
        while calls[1] < 2:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert calls == [1, 2]
    await one.close()
    await other.close()


async def settled(calls: list[int]) -> bool:
    return calls == [1, 1]


async def test_what_was_missed_is_looked_for(own_server: PostgresServer):
    """After the listening connection was away, there is one look, whether or not something happened meanwhile."""
    address = own_server.address(await own_server.create_database())
    db = await PostgresDatabase.open(address, [TABLE])
    looks = asyncio.Queue[None]()

    async def heard() -> None:
        looks.put_nowait(None)

    await db.hear(heard)
    await asyncio.wait_for(looks.get(), 5)
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    await asyncio.wait_for(looks.get(), 10)
    await db.close()


async def test_a_look_that_fails_is_taken_again(db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch):
    """A server does not go deaf because the database was away when it wanted to look."""
    monkeypatch.setattr(postgres_hearing, "AGAIN_SECONDS", (0.01,))
    calls = [0]

    async def heard() -> None:
        calls[0] += 1
        if calls[0] < 3:
            raise Unavailable("not now")

    await db.hear(heard)
    async with asyncio.timeout(5):
        while calls[0] < 3:
            await asyncio.sleep(0.005)


async def test_a_silent_connection_is_asked_now_and_then(db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch):
    """A notification that never came is made up for by looking every few seconds."""
    monkeypatch.setattr(postgres_hearing, "LOOK_SECONDS", 0.02)
    looks = asyncio.Queue[None]()

    async def heard() -> None:
        looks.put_nowait(None)

    await db.hear(heard)
    for _ in range(4):
        await asyncio.wait_for(looks.get(), 5)


async def test_all_who_ask_are_told(db: PostgresDatabase):
    """Two ledgers on one database hear the same, over one connection."""
    looks = asyncio.Queue[str]()

    def hearing(name: str) -> Callable[[], Awaitable[None]]:
        async def heard() -> None:
            looks.put_nowait(name)

        return heard

    await db.hear(hearing("first"))
    assert await asyncio.wait_for(looks.get(), 5) == "first"
    await db.hear(hearing("second"))
    async with asyncio.timeout(5):
        while await looks.get() != "second":
            pass
    sessions = (
        "select count(*) from pg_stat_activity where query = 'LISTEN \"handfast\"' and datname = current_database()"
    )
    assert await db.fetch(sessions) == [(1,)]


@pytest.mark.parametrize("error", [asyncpg.InternalClientError("another operation is in progress"), RuntimeError()])
async def test_no_error_makes_it_deaf(db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, error: Exception):
    """Whatever the driver raises while a session is ended, the next connection is opened."""
    connect, errors = postgres_hearing.connect, [error]

    async def failing_once(address: Address) -> object:
        if errors:
            raise errors.pop()
        return await connect(address)

    monkeypatch.setattr(postgres_hearing, "connect", failing_once)
    looks = asyncio.Queue[None]()

    async def heard() -> None:
        looks.put_nowait(None)

    await db.hear(heard)
    await asyncio.wait_for(looks.get(), 5)
