"""Backups of platforms whose ledger is in a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.app.client import Api
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateList,
    CertificateRequest,
    EventList,
    RevocationAnswer,
    RevocationRequest,
)
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import new_key
from handfast.io.postgres_session import Address
from handfast.io.sealed import Passphrase
from tests.app.cli.terminal import handfast
from tests.app.sites import DOMAIN
from tests.support.clock import FakeClock
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import postgres

__all__ = ["postgres"]
PASSPHRASE = Passphrase(b"0123456789abcdef")


@asynccontextmanager
async def server(directory: Path, database: Address | None) -> AsyncIterator[Server]:
    directory.mkdir(mode=0o700, exist_ok=True)
    here = ("127.0.0.1", 0)
    config = ServerConfig(
        directory=directory,
        trust_domain=TrustDomain(DOMAIN),
        api=here,
        admin=here,
        passphrase=PASSPHRASE,
        database=database,
    )
    running = await build_server(config, FakeClock(datetime.now(UTC)))
    try:
        await running.start()
        yield running
    finally:
        await running.stop(0.1)


async def issue(here: Server, name: str) -> str:
    async with Api.local(here.socket) as api:
        asked = CertificateRequest(name=name, csr=new_key().csr_pem)
        return (await api.call("POST", "/v1/certificates", CertificateAnswer, asked)).serial


async def states(here: Server) -> dict[str, str]:
    async with Api.local(here.socket) as api:
        listed = (await api.call("GET", "/v1/certificates", CertificateList)).certificates
    return {row.serial: row.state for row in listed}


async def restored(here: Server) -> list[dict[str, object]]:
    async with Api.local(here.socket) as api:
        return (await api.call("GET", "/v1/events", EventList, kind="platform.restored")).events


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def database(postgres: PostgresServer) -> str:
    """Give an empty database."""
    return await postgres.create_database()


@pytest.mark.parametrize("into", ["postgresql", "sqlite"])
async def test_a_platform_goes_on_from_a_backup_of_its_database(
    place: Path, postgres: PostgresServer, database: str, into: str
):
    """Saved while it runs, restored into an empty database, or into a file: what was issued and revoked is known, numbers go ahead."""
    async with server(place / "data", postgres.address(database)) as here:
        kept, gone = await issue(here, "payments"), await issue(here, "gone")
        async with Api.local(here.socket) as api:
            await api.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=gone))
        shown = await handfast("backup", "a.tar", "--data", "data", "--database", postgres.url(database))
        assert (shown.code, shown.err) == (0, "")
        assert "saved" in shown.out
        late, head = await issue(here, "late"), here.platform.ledger.event_head.value
        await here.platform.ledger.next_counter("crl")
    assert not (place / "data" / "ledger.sqlite").exists()
    name = await postgres.create_database()
    where = ["--database", postgres.url(name)] if into == "postgresql" else []
    shown = await handfast("restore", "a.tar", "--data", "new", *where)
    assert shown.code == 0
    assert (place / "new" / "ledger.sqlite").exists() == (into == "sqlite")
    async with server(place / "new", postgres.address(name) if where else None) as again:
        found = await states(again)
        assert (found[kept], found[gone]) == ("issued", "revoked")
        assert late not in found
        assert again.platform.ledger.event_head.value > head + 2**31
        assert len(await restored(again)) == 1
        assert await again.platform.ledger.next_counter("crl") > 2**31
        assert await issue(again, "payments") not in {kept, gone, late}


async def test_a_platform_moves_from_a_file_to_a_database(place: Path, postgres: PostgresServer, database: str):
    """A backup is a backup, whatever the store; a server that joins then needs no copy."""
    async with server(place / "data", None) as here:
        kept = await issue(here, "payments")
    assert (await handfast("backup", "a.tar", "--data", "data")).code == 0
    shown = await handfast("restore", "a.tar", "--data", "new", "--database", postgres.url(database))
    assert shown.code == 0
    async with (
        server(place / "new", postgres.address(database)) as one,
        server(place / "joined", postgres.address(database)) as other,
    ):
        assert (await states(other))[kept] == (await states(one))[kept] == "issued"


async def test_the_database_of_another_platform_is_not_saved_with_this_one(
    place: Path, postgres: PostgresServer, database: str
):
    """Nothing is written."""
    for name, where in (("data", database), ("other", await postgres.create_database())):
        async with server(place / name, postgres.address(where)) as here:
            await issue(here, "payments")
    shown = await handfast("backup", "a.tar", "--data", "other", "--database", postgres.url(database))
    assert shown.code == 2
    assert "another authority" in shown.err
    assert not (place / "a.tar").exists()


async def test_nothing_is_restored_over_a_ledger(place: Path, postgres: PostgresServer, database: str):
    """Neither the database nor the directory is touched."""
    async with server(place / "data", postgres.address(database)) as here:
        kept = await issue(here, "payments")
        assert (await handfast("backup", "a.tar", "--data", "data", "--database", postgres.url(database))).code == 0
        shown = await handfast("restore", "a.tar", "--data", "new", "--database", postgres.url(database))
        assert shown.code == 2
        assert "already" in shown.err
        assert not (place / "new").exists()
        assert (await states(here))[kept] == "issued"


async def test_a_directory_with_a_ledger_of_its_own_is_not_saved_with_a_database(
    place: Path, postgres: PostgresServer, database: str
):
    """Which of the two counts is not ours to guess."""
    async with server(place / "data", None):
        pass
    shown = await handfast("backup", "a.tar", "--data", "data", "--database", postgres.url(database))
    assert shown.code == 2
    assert "leave --database out" in shown.err
