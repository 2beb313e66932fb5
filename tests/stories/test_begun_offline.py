"""A rotation that is begun without a server, over one real PostgreSQL of several servers and trust domains."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.app import rotating
from handfast.app.server.build import Server
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.ledger.rotation import Rotations
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address
from handfast.io.schemas import address_of
from tests.app.cli.terminal import Shown, run
from tests.stories.test_several_domains import DEV, Carriers, carriers
from tests.stories.test_several_servers import issue, issuer
from tests.support.postgres_fixtures import postgres, postgres_store
from tests.support.stores import PostgresStore

__all__ = ["carriers", "postgres", "postgres_store"]
TEN_YEARS = timedelta(days=3653)


async def numbers(address: Address) -> list[int]:
    """Give the generations that a ledger knows."""
    database = await PostgresDatabase.open(address)
    found = [one.number for one in await Rotations(database).generations()]
    await database.close()
    return found


@pytest.fixture
async def ended(carriers: Carriers) -> Carriers:
    """Give two servers that were stopped, and whose root has expired since."""
    async with AsyncExitStack() as stack:
        there = replace(carriers, stack=stack)
        await there.first("one")
        await there.first("other")
    carriers.clock.set(carriers.clock.now() + TEN_YEARS)
    return carriers


async def refused(carriers: Carriers, name: str) -> None:
    with pytest.raises(Refused) as caught:
        await carriers.first(name)
    assert caught.value.refusal.reason is Reason.ISSUANCE_ISSUER_ENDS


async def test_a_root_that_has_expired_can_be_rotated(ended: Carriers):
    """None starts; it is begun at one, which makes the new root at its start, and the other one takes it."""
    await refused(ended, "one")
    await refused(ended, "other")
    place = ended.directory / "one"
    with pytest.raises(Refused) as caught:
        await rotating.begin(place, ended.clock, "offline", root=False, address=ended.address)
    assert caught.value.refusal.reason is Reason.ROTATION_ROOT_ENDS
    assert await rotating.begin(place, ended.clock, "offline", root=True, address=ended.address) == 2
    one = await ended.first("one")
    other = await ended.first("other")
    assert one.platform.rotation.rows == other.platform.rotation.rows
    assert issuer(await issue(one)) == issuer(await issue(other)) == one.platform.rotation.rows[1].issuer


async def test_servers_that_start_at_once_after_it_have_one_root(ended: Carriers):
    """Whoever is slower drops what it made, and takes the other's."""
    await rotating.begin(ended.directory / "one", ended.clock, "offline", root=True, address=ended.address)

    async def started(name: str) -> Server:
        return await ended.first(name)

    tried = await asyncio.gather(started("one"), started("other"), return_exceptions=True)
    servers = [
        one if isinstance(one, Server) else await started(name)
        for one, name in zip(tried, ("one", "other"), strict=True)
    ]
    issuers = {issuer(await issue(server)) for server in servers}
    assert len(issuers) == 1
    assert servers[0].platform.authority.bundle_pem == servers[1].platform.authority.bundle_pem


async def test_what_does_not_belong_together_begins_nothing(ended: Carriers, postgres_store: PostgresStore):
    """Another authority's directory, a directory with a ledger of its own, and a database without a ledger."""
    async with AsyncExitStack() as stack:
        await replace(ended, stack=stack).first("apart", database=None)
    for name, said in (("apart", "a ledger in this directory"), ("nowhere", "this server has none")):
        with pytest.raises(BadInput, match=said):
            await rotating.begin(ended.directory / name, ended.clock, "offline", root=True, address=ended.address)
    (ended.directory / "apart" / "ledger.sqlite").unlink()
    with pytest.raises(BadInput, match="another authority"):
        await rotating.begin(ended.directory / "apart", ended.clock, "offline", root=True, address=ended.address)
    empty = postgres_store.server.address(await postgres_store.server.create_database())
    with pytest.raises(BadInput, match="no authority issued"):
        await rotating.begin(ended.directory / "one", ended.clock, "offline", root=True, address=empty)
    assert await numbers(ended.address) == [1]


async def test_the_command_begins_it_for_the_trust_domain_of_its_directory(carriers: Carriers, tmp_path: Path):
    """In that one's schema, and not in the first one's."""
    async with AsyncExitStack() as stack:
        there = replace(carriers, stack=stack)
        await there.first("one")
        await there.further("one", DEV)

    async def handfast(*words: str) -> Shown:
        return await asyncio.to_thread(run, *words, "--database", carriers.address.url)

    rotate = ("ca", "rotate", "--root")
    shown = await handfast(*rotate, "--data", str(tmp_path / "one"))
    assert shown.code == 2
    assert "--database" in shown.err
    shown = await handfast(*rotate, "--offline", "--data", str(tmp_path / "one" / "domains" / str(DEV)))
    assert (shown.code, shown.out) == (0, "generation 2 is prepared; start the server, and it goes on\n")
    assert await numbers(address_of(carriers.address, DEV)) == [1, 2]
    assert await numbers(carriers.address) == [1]
