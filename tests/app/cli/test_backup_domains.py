"""Backups, and audit chains, of platforms with several trust domains in one real PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import asyncpg
import pytest

from handfast.app.client import Api
from handfast.app.domain_servers import start_domains
from handfast.app.domains import Settings, add_domain
from handfast.app.server.build import Server
from handfast.app.server.messages import RevocationAnswer, RevocationRequest
from handfast.base.spiffe import TrustDomain
from handfast.io.postgres_session import Address, quoted
from handfast.io.schemas import schema_of
from tests.app.cli.test_backup_postgres import handfast, issue, place, restored, server, states
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import postgres

__all__ = ["place", "postgres"]
DEV, PROD = TrustDomain("dev.example"), TrustDomain("prod.example")
ANY = ("127.0.0.1", 0)


@asynccontextmanager
async def platform(directory: Path, database: Address | None) -> AsyncIterator[list[Server]]:
    """Run the first trust domain and all that were added."""
    async with server(directory, database) as first:
        clock = first.platform.clock
        async with AsyncExitStack() as stack:
            yield [first, *await start_domains(first.config, clock, stack)]


def added(directory: Path, *names: TrustDomain) -> None:
    """Add trust domains to a data directory."""
    for name in names:
        add_domain(directory, name, Settings(api=ANY, admin=ANY))


async def revoke(here: Server, serial: str) -> None:
    async with Api.local(here.socket) as api:
        await api.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=serial))


async def filled(servers: list[Server]) -> list[tuple[str, str]]:
    """Have each issue two certificates, and revoke the second."""
    serials = [(await issue(one, "payments"), await issue(one, "gone")) for one in servers]
    for one, (_, gone) in zip(servers, serials, strict=True):
        await revoke(one, gone)
    return serials


async def holds(servers: list[Server], serials: list[tuple[str, str]]) -> None:
    """Check that each knows its own certificates, and no other's, and that it was restored."""
    everything = {serial for pair in serials for serial in pair}
    for one, (kept, gone) in zip(servers, serials, strict=True):
        found = await states(one)
        assert (found[kept], found[gone]) == ("issued", "revoked")
        assert found.keys() & everything == {kept, gone}
        assert len(await restored(one)) == 1


@pytest.mark.parametrize("into", ["postgresql", "sqlite"])
async def test_a_backup_has_all_of_them(place: Path, postgres: PostgresServer, into: str):
    """Saved while they run, restored into an empty database, or into files: each goes on from its own ledger."""
    database = await postgres.create_database()
    added(place / "data", DEV, PROD)
    async with platform(place / "data", postgres.address(database)) as servers:
        serials = await filled(servers)
        roots = [one.platform.authority.bundle_pem for one in servers]
        shown = await handfast("backup", "a.tar", "--data", "data", "--database", postgres.url(database))
        assert (shown.code, shown.err) == (0, "")
    with tarfile.open("a.tar") as archive:
        ledgers = {name for name in archive.getnames() if name.endswith("ledger.sqlite")}
    assert ledgers == {"ledger.sqlite", f"domains/{DEV}/ledger.sqlite", f"domains/{PROD}/ledger.sqlite"}
    name = await postgres.create_database()
    where = ["--database", postgres.url(name)] if into == "postgresql" else []
    shown = await handfast("restore", "a.tar", "--data", "new", *where)
    assert shown.code == 0
    assert len(list((place / "new").rglob("ledger.sqlite"))) == (0 if where else 3)
    async with platform(place / "new", postgres.address(name) if where else None) as again:
        await holds(again, serials)
        assert [one.platform.authority.bundle_pem for one in again] == roots
        for one in again:
            assert await one.platform.ledger.next_counter("crl") > 2**31


async def test_files_move_into_one_database(place: Path, postgres: PostgresServer):
    """All trust domains of a platform that began without PostgreSQL; another server joins each."""
    added(place / "data", DEV)
    async with platform(place / "data", None) as servers:
        serials = await filled(servers)
    assert (await handfast("backup", "a.tar", "--data", "data")).code == 0
    database = await postgres.create_database()
    shown = await handfast("restore", "a.tar", "--data", "new", "--database", postgres.url(database))
    assert shown.code == 0
    added(place / "joined", DEV)
    async with (
        platform(place / "new", postgres.address(database)) as again,
        platform(place / "joined", postgres.address(database)) as joined,
    ):
        await holds(again, serials)
        await holds(joined, serials)


async def test_all_are_restored_or_none(place: Path, postgres: PostgresServer):
    """Where one schema is taken, the database and the directory stay as they were, and the others' schemas empty."""
    added(place / "data", DEV, PROD)
    async with platform(place / "data", None) as servers:
        await filled(servers)
    assert (await handfast("backup", "a.tar", "--data", "data")).code == 0
    database = await postgres.create_database()
    taken = quoted(schema_of(PROD))
    await postgres.execute(f"create schema {taken} create table events (seq bigint)", database)
    shown = await handfast("restore", "a.tar", "--data", "new", "--database", postgres.url(database))
    assert shown.code == 2
    assert "already" in shown.err
    assert not (place / "new").exists()
    session = await asyncpg.connect(postgres.url(database))
    found = await session.fetch(
        "select schemaname || '.' || tablename from pg_tables where tablename in ('events', 'meta')"
    )
    await session.close()
    assert {row[0] for row in found} == {f"{schema_of(PROD)}.events"}


async def test_an_authority_is_not_saved_without_its_ledger(place: Path, postgres: PostgresServer):
    """Neither where no database is named, nor where the one that is has another's ledger in its place; one that never began has none to save."""
    database = await postgres.create_database()
    added(place / "data", DEV)
    async with platform(place / "data", postgres.address(database)):
        pass
    added(place / "data", PROD)
    named = ["--database", postgres.url(database)]
    shown = await handfast("backup", "a.tar", "--data", "data", *named)
    assert shown.code == 0
    session = await asyncpg.connect(postgres.url(database))
    dev = quoted(schema_of(DEV))
    await session.execute(f"update {dev}.meta set value = 'another' where key = 'ledger-id'")
    shown = await handfast("backup", "b.tar", "--data", "data", *named)
    assert shown.code == 2
    assert "another authority" in shown.err
    assert str(DEV) in shown.err
    await session.execute(f"drop schema {dev} cascade")
    await session.close()
    shown = await handfast("backup", "b.tar", "--data", "data", *named)
    assert shown.code == 2
    assert "no ledger" in shown.err
    assert (await handfast("restore", "a.tar", "--data", "new")).code == 0
    (place / "new" / "domains" / str(DEV) / "ledger.sqlite").unlink()
    shown = await handfast("backup", "b.tar", "--data", "new")
    assert shown.code == 2
    assert "no ledger" in shown.err
    assert not Path("b.tar").exists()


async def test_each_has_an_audit_chain_of_its_own(place: Path, postgres: PostgresServer):
    """One that is broken in the database is found in its own trust domain, and holds in the others."""
    database = await postgres.create_database()
    added(place / "data", DEV, PROD)
    directories = ["data", f"data/domains/{DEV}", f"data/domains/{PROD}"]
    async with platform(place / "data", postgres.address(database)) as servers:
        await filled(servers)
        lasts = []
        for directory in directories:
            assert (await handfast("audit", "checkpoint", "--data", directory, "--out", "c.json")).code == 0
            shown = await handfast("audit", "verify", "--data", directory, "--checkpoint", "c.json", "--json")
            assert (shown.code, shown.err) == (0, "")
            lasts.append(json.loads(shown.out)["hash"])
        assert len(set(lasts)) == 3
        shown = await handfast("audit", "verify", "--data", directories[0], "--checkpoint", "c.json")
        assert shown.code != 0
        altered = f"update {quoted(schema_of(DEV))}.events set body = replace(body, 'payments', 'paymentz')"
        assert await postgres.execute(altered, database) != "UPDATE 0"
        codes = [(await handfast("audit", "verify", "--data", directory)).code for directory in directories]
        assert codes == [0, 1, 0]


async def test_a_saved_chain_is_verified_as_a_file(place: Path, postgres: PostgresServer):
    """With the roots of its own trust domain, and with no other's."""
    database = await postgres.create_database()
    added(place / "data", DEV)
    async with platform(place / "data", postgres.address(database)) as servers:
        serials = await filled(servers)
        for number, directory in enumerate(("data", f"data/domains/{DEV}")):
            await handfast("audit", "checkpoint", "--data", directory, "--out", f"{number}.json")
        assert (await handfast("backup", "a.tar", "--data", "data", "--database", postgres.url(database))).code == 0
        shown = await handfast(
            "backup", "dev.tar", "--data", f"data/domains/{DEV}", "--database", postgres.url(database)
        )
        assert (shown.code, shown.err) == (0, "")
    _unpack("a.tar", "out")
    _unpack("dev.tar", "alone")  # the one trust domain by itself, out of its own schema
    ledger = f"out/domains/{DEV}/ledger.sqlite"
    assert _serials(ledger) == _serials("alone/ledger.sqlite") >= set(serials[1])
    words = ["audit", "verify", "--ledger", ledger, "--checkpoint"]
    own = await handfast(*words, "1.json", "--roots", f"out/domains/{DEV}/authority/root.pem")
    assert (own.code, own.err) == (0, "")
    other = await handfast(*words, "0.json", "--roots", "out/authority/root.pem")
    assert other.code == 1


def _unpack(file: str, into: str) -> None:
    with tarfile.open(file) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python has it from 3.11.4 on
        archive.extractall(into)


def _serials(ledger: str) -> set[str]:
    with closing(sqlite3.connect(ledger)) as opened:
        return {serial for (serial,) in opened.execute("select serial from certificates")}
