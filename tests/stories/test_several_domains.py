"""Several servers over one real PostgreSQL, each with the same further trust domains: shared as the first is, and never mixed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx2
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from handfast.app.domain_servers import start_domains
from handfast.app.domains import Settings, add_domain
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.up import UpConfig, servers_alone
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.postgres_session import Address, quoted
from handfast.io.schemas import address_of, lock, schema_of
from handfast.io.sealed import Passphrase
from handfast.io.sqlite import SqliteDatabase
from handfast.trust.facts import facts, pem_certificates
from tests.app.server.status_sites import free_port
from tests.stories.telling import eventually
from tests.stories.test_several_servers import PASSPHRASE, digest, issue, issuer, revoke, rotate
from tests.support.clock import FakeClock
from tests.support.ledger import revoked_live
from tests.support.postgres_fixtures import postgres, postgres_store
from tests.support.stores import PostgresStore

__all__ = ["postgres", "postgres_store"]
FIRST, DEV, PROD = (TrustDomain(f"{name}.example") for name in ("first", "dev", "prod"))
ANY = ("127.0.0.1", 0)


@dataclass
class Carriers:
    """Server processes over one database, on one clock, each with a data directory of its own; nothing is copied."""

    directory: Path
    address: Address
    stack: AsyncExitStack
    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime.now(UTC)))

    def config(self, name: str, **more: object) -> ServerConfig:
        """Give what the first trust domain's server of one process is started with."""
        directory = self.directory / name
        directory.mkdir(mode=0o700, exist_ok=True)
        config = ServerConfig(
            directory=directory,
            trust_domain=FIRST,
            api=ANY,
            admin=ANY,
            passphrase=PASSPHRASE,
            database=self.address,
        )
        return replace(config, **more)  # type: ignore[arg-type]

    async def first(self, name: str, **more: object) -> Server:
        """Start the first trust domain of one."""
        server = await build_server(self.config(name, **more), self.clock)
        self.stack.push_async_callback(server.stop, 0.1)
        await server.start()
        return server

    async def further(self, name: str, *added: TrustDomain, **more: object) -> list[Server]:
        """Add trust domains to one, and start them; each publishes lists."""
        for one in added:
            port = free_port()
            settings = Settings(api=ANY, admin=ANY, status=(ANY[0], port), status_url="http://status.example.org")
            add_domain(self.directory / name, one, settings)
        return await start_domains(self.config(name, **more), self.clock, self.stack)


@pytest.fixture
async def carriers(postgres_store: PostgresStore, tmp_path: Path) -> AsyncIterator[Carriers]:
    """Give an empty database without any server yet."""
    async with AsyncExitStack() as stack:
        yield Carriers(tmp_path, postgres_store.server.address(postgres_store.name), stack)


async def listed(server: Server) -> set[str]:
    """Give the serials that the list which a server publishes has, in hexadecimal."""
    key_id = server.platform.authority.issuer_facts.key_id.hex()
    async with httpx2.AsyncClient() as client:
        got = await client.get("http://{}:{}".format(*server.status.address) + f"/crl/{key_id}/0.crl")
    return {f"{one.serial_number:x}" for one in x509.load_der_x509_crl(got.content)}


async def until_listed(carriers: Carriers, server: Server, serial: str) -> None:
    """Wait until the published list has a serial, as it has at the latest when the server looks again."""
    for _ in range(600):
        if serial.lstrip("0") in {one.lstrip("0") for one in await listed(server)}:
            return
        await carriers.clock.advance(1)
    raise AssertionError(serial)


async def test_both_issue_for_it_and_a_revocation_at_one_is_on_the_list_of_the_other(carriers: Carriers):
    """The second takes the authority out of the database; the first trust domain, in the same one, hears of nothing."""
    one_first, other_first = await carriers.first("one"), await carriers.first("other")
    (one,), (other,) = await carriers.further("one", DEV), await carriers.further("other", DEV)
    assert not list(carriers.directory.rglob("ledger.sqlite"))
    made = [await issue(server) for server in (one, other)]
    assert issuer(made[0]) == issuer(made[1])
    assert one.platform.authority.bundle_pem == other.platform.authority.bundle_pem
    assert issuer(await issue(one_first)) == issuer(await issue(other_first)) != issuer(made[0])
    before = [digest(server) for server in (one_first, other_first)]
    for at, told, answer in ((one, other, made[0]), (other, one, made[1])):
        await revoke(at, answer.serial)
        fingerprint = facts(pem_certificates(answer.chain)[0]).fingerprint
        await eventually(lambda: fingerprint in told.platform.slices.denied)  # noqa: B023 - awaited here
        await until_listed(carriers, told, answer.serial)
        await eventually(lambda: digest(one) == digest(other))
    assert [digest(server) for server in (one_first, other_first)] == before
    assert one_first.platform.slices.denied == frozenset()
    with pytest.raises(Refused) as caught:
        await revoke(one_first, made[0].serial)
    assert caught.value.refusal.reason is Reason.NOT_FOUND


@pytest.mark.parametrize("root", [False, True])
async def test_a_rotation_of_it_is_its_own(carriers: Carriers, root: bool):
    """The other server has the new authority at once, for this trust domain alone."""
    (one, one_prod), (other, other_prod) = [await carriers.further(name, DEV, PROD) for name in ("one", "other")]
    before = one_prod.platform.rotation.rows
    await rotate(one, root=root)
    await eventually(lambda: other.platform.rotation.rows == one.platform.rotation.rows)
    assert len(other.platform.rotation.rows) == 2
    assert other.platform.authorities.known_cas == one.platform.authorities.known_cas
    assert one_prod.platform.rotation.rows == other_prod.platform.rotation.rows == before
    late, _ = await carriers.further("late", DEV, PROD)
    assert late.platform.rotation.rows == one.platform.rotation.rows


async def test_it_is_found_again(carriers: Carriers):
    """After a restart of all: what was issued and revoked is known, and no second authority is made."""
    async with AsyncExitStack() as stack:
        (server,) = await replace(carriers, stack=stack).further("one", DEV)
        kept, gone = await issue(server), await issue(server)
        await revoke(server, gone.serial)
    (again,) = await carriers.further("one")
    assert again.platform.authority.bundle_pem == kept.bundle
    assert {record.serial for record in await revoked_live(again.platform.ledger, carriers.clock.now())} == {
        gone.serial
    }


async def test_a_server_without_the_passphrase_does_not_join(carriers: Carriers):
    """It makes no second authority for the trust domain either."""
    await carriers.further("one", DEV)
    with pytest.raises(BadInput, match="has an authority already"):
        await carriers.further("other", DEV, passphrase=None)
    with pytest.raises(BadInput, match="passphrase"):
        await carriers.further("third", DEV, passphrase=Passphrase(b"another one, of somebody else"))
    assert not list(carriers.directory.glob("[ot][th]*/domains/*/authority"))


async def test_what_is_first_at_one_is_not_another_at_the_other(carriers: Carriers):
    """Where the first trust domains differ, the second server is refused: the database has the other's ledger there."""
    await carriers.first("one")
    with pytest.raises(BadInput, match=f"of the trust domain {FIRST}, not of {DEV}"):
        await carriers.first("other", trust_domain=DEV)
    assert not (carriers.directory / "other" / "authority").exists()


async def _copied(address: Address, source: TrustDomain, target: TrustDomain) -> None:
    """Be who can write the database: make one ledger's rows another's."""
    session = await asyncpg.connect(address.url)
    try:
        tables = [
            row[0]
            for row in await session.fetch("select tablename from pg_tables where schemaname = $1", schema_of(source))
        ]
        await session.execute("set session_replication_role = replica")
        ours, theirs = quoted(schema_of(source)), quoted(schema_of(target))
        async with session.transaction():
            await session.execute(lock(schema_of(target)))  # a server that runs would write in between
            for table in tables:
                await session.execute(f"delete from {theirs}.{table}")
                await session.execute(
                    f"insert into {theirs}.{table} overriding system value select * from {ours}.{table}"
                )
    finally:
        await session.close()


async def test_a_ledger_that_was_made_of_another_lets_nobody_in(carriers: Carriers):
    """Whoever can write the database copies all rows of one trust domain over another's: a new server and an old one refuse them."""
    async with AsyncExitStack() as stack:
        await replace(carriers, stack=stack).further("one", DEV, PROD)
    await _copied(carriers.address, DEV, PROD)
    with pytest.raises(BadInput, match="another authority than this one"):
        await carriers.further("one")
    with pytest.raises(BadInput, match=f"of the trust domain {DEV}, not of {PROD}"):
        await carriers.further("other", PROD)
    assert not list(carriers.directory.glob("other/domains/*/authority"))


async def test_a_server_that_runs_takes_no_authority_of_another(carriers: Carriers):
    """The same, while it runs: it goes on with its own."""
    dev, prod = await carriers.further("one", DEV, PROD)
    own = prod.platform.authority.issuer_facts.key_id
    await _copied(carriers.address, DEV, PROD)
    for _ in range(3):
        with pytest.raises(BadInput):
            await prod.platform.rotation.go_on()
    assert prod.platform.authority.issuer_facts.key_id == own
    assert own != dev.platform.authority.issuer_facts.key_id
    assert issuer(await issue(prod)) == own.hex()


async def test_one_that_began_in_a_file_stays_there(carriers: Carriers):
    """An empty ledger in the file's place would have forgotten what is revoked. The log says that it is apart."""
    async with AsyncExitStack() as stack:
        (server,) = await replace(carriers, stack=stack).further("one", DEV, database=None)
        gone = await issue(server)
        await revoke(server, gone.serial)
    with capture_logs() as lines:
        (again,) = await carriers.further("one")
    assert [line["trust_domain"] for line in lines if line["event"] == "domain.apart"] == [str(DEV)]
    assert {one.serial for one in await revoked_live(again.platform.ledger, carriers.clock.now())} == {gone.serial}
    session = await asyncpg.connect(address_of(carriers.address, DEV).url)
    assert await session.fetchval("select to_regnamespace($1)", quoted(schema_of(DEV))) is None
    await session.close()


async def test_no_empty_ledger_takes_the_place_of_one_that_is_elsewhere(carriers: Carriers):
    """A start without the database is refused before anything listens; so is one with a ledger in both places."""
    async with AsyncExitStack() as stack:
        (server,) = await replace(carriers, stack=stack).further("one", DEV)
        gone = await issue(server)
        await revoke(server, gone.serial)
    with pytest.raises(BadInput, match="an authority here, and no ledger"):
        await carriers.further("one", database=None)
    assert not list(carriers.directory.rglob("ledger.sqlite"))
    stray = carriers.directory / "one" / "domains" / str(DEV) / "ledger.sqlite"
    await (await SqliteDatabase.open(stray)).close()
    with pytest.raises(BadInput, match="a ledger here, and one in the database"):
        await carriers.further("one")
    stray.unlink()
    (again,) = await carriers.further("one")
    assert {one.serial for one in await revoked_live(again.platform.ledger, carriers.clock.now())} == {gone.serial}


async def test_a_start_that_cannot_have_all_trust_domains_begins_none(carriers: Carriers):
    """The first one neither listens nor has a ledger made."""
    async with AsyncExitStack() as stack:
        there = replace(carriers, stack=stack)
        await there.first("one")
        await there.further("one", DEV)
    directory = carriers.directory / "one"
    config = UpConfig(data=directory, trust_domain=str(FIRST), passphrase=PASSPHRASE, api=ANY, admin=ANY)
    with pytest.raises(BadInput, match="no ledger"):
        async with servers_alone(config, carriers.clock):
            pass
    assert not (directory / "ledger.sqlite").exists()
