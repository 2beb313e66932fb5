"""Ledgers of several trust domains in one real PostgreSQL: none sees, stops or wakes another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import MAX_TRUST_DOMAIN_BYTES, TrustDomain
from handfast.io.database import Result, step
from handfast.io.ledger import SqlLedger
from handfast.io.migrations import Migration, load
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address, connect, quoted
from handfast.io.schemas import MAX_NAME_BYTES, address_of, channel, lock, schema_of
from tests.io.ledger.builders import ids, issue, joined
from tests.support.stores import PostgresStore

DEV, PROD = TrustDomain("dev.example.org"), TrustDomain("prod.example.org")
NAMES = st.text("abz019._-", min_size=1, max_size=MAX_TRUST_DOMAIN_BYTES).map(TrustDomain)
CAN_SEE = """select count(*) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and pg_table_is_visible(pg_class.oid) and nspname <> $1"""


@dataclass
class Places:
    """The addresses of three ledgers in one database: the first trust domain's, and those of two more."""

    first: Address
    stack: AsyncExitStack

    @property
    def all(self) -> list[Address]:
        return [self.first, *(address_of(self.first, one) for one in (DEV, PROD))]

    async def open(self, address: Address, migrations: list[Migration] | None = None) -> PostgresDatabase:
        database = await PostgresDatabase.open(address, migrations)
        self.stack.push_async_callback(database.close)
        return database

    async def session(self, address: Address) -> Any:
        session = await connect(address)
        self.stack.callback(session.terminate)
        return session


@pytest.fixture
async def places(postgres_store: PostgresStore) -> AsyncIterator[Places]:
    """Give an empty database."""
    async with AsyncExitStack() as stack:
        yield Places(postgres_store.server.address(postgres_store.name), stack)


@given(NAMES, NAMES)
def test_two_trust_domains_never_share_a_schema_a_lock_or_a_channel(one: TrustDomain, other: TrustDomain):
    """However long and alike their names are: PostgreSQL would cut them to the same."""
    for face in (schema_of, lambda domain: channel(schema_of(domain)), lambda domain: lock(schema_of(domain))):
        assert (face(one) == face(other)) == (one == other)
    assert 0 < len(schema_of(one)) <= MAX_NAME_BYTES
    assert channel("") != channel(schema_of(one))
    assert lock("") != lock(schema_of(one))


@pytest.mark.parametrize("length", [1, 54, 55, 255])
async def test_a_name_of_any_length_has_its_own(places: Places, length: int):
    """As PostgreSQL has it, and not cut."""
    pair = [TrustDomain("x" * (length - 1) + last) for last in "ab"]
    for one in pair:
        database = await places.open(address_of(places.first, one))
        assert await database.fetch("select current_schema()::text") == [(schema_of(one),)]
        await database.hear(_nothing)
        await database.write(step("insert into meta (key, value) values ('whose', $1)", str(one)), then=_none)
    for one in pair:
        session = await places.session(address_of(places.first, one))
        assert await session.fetchval("select value from meta where key = 'whose'") == str(one)


async def _nothing() -> None:
    pass


def _none(_: object) -> None:
    pass


async def test_nothing_of_one_is_seen_by_another(places: Places):
    """The same serials and event ids in each: each finds its own, and no table of the others has a name there."""
    ledgers = [await SqlLedger.open(await places.open(address)) for address in places.all]
    for number, ledger in enumerate(ledgers):
        await issue(ledger, "0a")
        await ledger.append([joined(f"event-{number}")])
        for _ in range(number):
            await ledger.next_counter("crl")
    for number, (address, ledger) in enumerate(zip(places.all, ledgers, strict=True)):
        assert (await ids(ledger))[-1] == f"event-{number}"
        assert ledger.event_head.value == len(await ids(ledger))
        assert await ledger.next_counter("crl") == number + 1
        session = await places.session(address)
        assert await session.fetchval(CAN_SEE, address.schema or "public") == 0


async def test_where_a_table_is_missing_no_other_takes_its_place(places: Places):
    """A schema that lost one is an error, and never a look into the first trust domain's."""
    first, dev, _ = places.all
    await (await places.open(first)).write(step("insert into meta (key, value) values ('whose', 'first')"))
    database = await places.open(dev)
    session = await places.session(dev)
    await session.execute("drop table meta")
    with pytest.raises(asyncpg.UndefinedTableError):
        await database.fetch("select value from meta")
    with pytest.raises(asyncpg.UndefinedTableError):
        await database.write(step("insert into meta (key, value) values ('whose', 'dev')"))


@pytest.mark.parametrize("query", ["search_path=public", "options=-c%20search_path%3Dpublic"])
async def test_no_word_in_the_address_leads_elsewhere(places: Places, query: str):
    """What the address says of the search path is for the first trust domain."""
    await places.open(places.first)
    address = address_of(replace(places.first, url=f"{places.first.url}&{query}"), DEV)
    database = await places.open(address)
    assert await database.fetch("select current_schema()::text") == [(schema_of(DEV),)]
    assert await database.write(step("select current_schema()::text")) == [Result([(schema_of(DEV),)], 1)]


@pytest.mark.parametrize("dropped_with", [set(), {"default_transaction_read_only"}])
async def test_a_session_that_would_see_another_ledger_is_refused(
    places: Places, monkeypatch: pytest.MonkeyPatch, dropped_with: set[str]
):
    """A pooler that drops the setting would have shown the first trust domain's: neither a writer nor a reader starts."""
    first, dev, _ = places.all
    for address in places.all:
        await places.open(address)
    whole = Address.arguments

    def dropping(address: Address, **settings: str) -> dict[str, Any]:
        arguments = whole(address, **settings)
        if set(settings) >= dropped_with:
            arguments["server_settings"].pop("search_path", None)
        return arguments

    monkeypatch.setattr(Address, "arguments", dropping)
    with pytest.raises(BadInput, match="search_path"):
        await places.open(dev)
    assert await (await places.open(first)).fetch("select current_schema()::text") == [("public",)]


async def test_one_is_not_woken_by_what_another_wrote(places: Places):
    """Only who listens to the same ledger is told."""
    first, dev, _ = places.all
    calls = dict.fromkeys(("first", "dev", "other dev"), 0)

    def hearing(name: str) -> Callable[[], Awaitable[None]]:
        async def heard() -> None:
            calls[name] += 1

        return heard

    databases = {}
    for name, address in zip(calls, (first, dev, dev), strict=True):
        databases[name] = await places.open(address)
        await databases[name].hear(hearing(name))
    await _until(lambda: set(calls.values()) == {1})
    insert = "insert into meta (key, value) values ($1, 'x')"
    await databases["dev"].write(step(insert, "one"), then=_none)
    await _until(lambda: calls["other dev"] == 2)
    await databases["first"].write(step(insert, "two"), then=_none)
    await asyncio.sleep(0.1)
    assert calls == {"first": 1, "dev": 1, "other dev": 2}


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_writer_of_one_does_not_hold_up_another(places: Places):
    """Who stalls inside its turn stalls the writers of its own ledger alone."""
    first, dev, _ = places.all
    databases = [await places.open(address) for address in (first, dev)]
    session = await places.session(dev)
    await session.execute(f"begin; {lock(dev.schema)}")
    insert = step("insert into meta (key, value) values ('x', 'x')")
    async with asyncio.timeout(5):
        await databases[0].write(insert)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(databases[1].write(insert), 0.2)
    await session.execute("rollback")


async def test_servers_that_meet_a_new_trust_domain_at_once_make_it_once(places: Places):
    """The first makes schema and tables, the others wait for it and find them."""
    _, dev, _ = places.all
    for database in await asyncio.gather(*(places.open(dev) for _ in range(5))):
        assert await database.fetch("select count(*) from migrations") == [(len(load()),)]


async def test_a_migration_is_each_ledgers_own(places: Places):
    """One may be a migration behind; a newer one refuses for itself, and what a trigger touches there is its own affair."""
    first, dev, prod = places.all
    one = Migration(1, "one", "create table pairs (k text primary key);")
    two = Migration(2, "two", "alter table pairs add column v integer;")
    await places.open(first, [one])
    await places.open(dev, [one, two])
    with pytest.raises(BadInput, match="newer"):
        await places.open(dev, [one])
    database = await places.open(prod, [one])
    assert await database.write(step("insert into pairs (k) values ('a') returning k"))
    assert await (await places.open(first, [one])).fetch("select k from pairs") == []


async def test_rights_are_asked_for_in_time(places: Places, postgres_store: PostgresStore):
    """Who may make no schema is told so, in our words; where somebody made it, the rights to use it are enough."""
    _, dev, _ = places.all
    role = f"bounded_{postgres_store.name}"
    await postgres_store.server.execute(f"create role {role} login", postgres_store.name)
    bounded = replace(dev, url=dev.url.replace("handfast@", f"{role}@"))
    with pytest.raises(BadInput, match="permission denied"):
        await places.open(bounded)
    await places.open(dev)
    schema = quoted(dev.schema)
    for what in (f"usage on schema {schema}", f"all on all tables in schema {schema}"):
        await postgres_store.server.execute(f"grant {what} to {role}", postgres_store.name)
    database = await places.open(bounded)
    await database.write(step("insert into meta (key, value) values ('x', 'x')"))


async def test_a_database_that_is_away_is_away_for_each(places: Places):
    """The address that is told names the trust domain, and no password."""
    nowhere = Address("postgresql://me:secret@/nothing?host=/nowhere", "postgresql://me@/nothing")
    with pytest.raises(Unavailable) as caught:
        await places.open(address_of(nowhere, DEV))
    assert str(DEV) in caught.value.message
    assert "secret" not in str(caught.value)
