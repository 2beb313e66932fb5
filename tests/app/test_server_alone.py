import asyncio
import shutil
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.app.client import Api
from handfast.app.server.build import Server
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateList,
    CertificateRequest,
    RevocationAnswer,
    RevocationRequest,
    StatusAnswer,
    WorldAnswer,
)
from handfast.app.up import UpConfig, servers_alone, up
from handfast.base.refusal import BadInput, Unavailable
from handfast.io.credentials import new_key
from handfast.io.databases import read_address
from handfast.trust.facts import facts, pem_certificates
from tests.app.sites import DOMAIN, WORLD
from tests.stories.envoy import TakingEnvoy
from tests.support.clock import FakeClock
from tests.support.postgres import PostgresServer
from tests.support.postgres_fixtures import own_server, postgres, postgres_store
from tests.support.stores import PostgresStore

__all__ = ["own_server", "postgres", "postgres_store"]


@pytest.fixture
def config(tmp_path: Path) -> UpConfig:
    """Give a start on free ports."""
    return UpConfig(data=tmp_path / "one", api=("127.0.0.1", 0), admin=("127.0.0.1", 0), trust_domain=DOMAIN)


def clock() -> FakeClock:
    return FakeClock(datetime.now(UTC))


async def status(server: Server) -> StatusAnswer:
    async with Api.local(server.socket) as api:
        return await api.call("GET", "/v1/status", StatusAnswer)


async def issued(server: Server) -> CertificateAnswer:
    async with Api.local(server.socket) as api:
        asked = CertificateRequest(name="payments", csr=new_key().csr_pem)
        return await api.call("POST", "/v1/certificates", CertificateAnswer, asked)


async def test_a_server_has_neither_agent_nor_demo(config: UpConfig):
    """Its operator's certificate is there, and nothing that belongs to a gateway; a second start goes on."""
    async with servers_alone(config, clock()) as (server, *_):
        assert (await status(server)).agents == []
        bundle = server.platform.authority.bundle_pem
    assert {path.name for path in config.data.iterdir()} & {"demo", "agent"} == set()
    assert (config.data / "operator" / "cert.pem").exists()
    async with servers_alone(replace(config, trust_domain=""), clock()) as (server, *_):
        assert server.platform.authority.bundle_pem == bundle


async def test_its_certificate_has_the_names_that_it_is_reached_by(config: UpConfig):
    """Agents elsewhere find the name that they were told."""
    async with servers_alone(replace(config, names=("localhost", "ca.example.org")), clock()):
        pass
    served = pem_certificates((config.data / "server.pem").read_text())[0]
    assert facts(served).dns_sans == ("localhost", "ca.example.org")


async def test_a_trust_domain_has_to_be_named_once(config: UpConfig):
    """No authority is made for a name that nobody chose."""
    with pytest.raises(BadInput, match="trust domain") as caught:
        async with servers_alone(replace(config, trust_domain=""), clock()):
            pass
    assert "--trust-domain" in caught.value.hint
    assert not (config.data / "authority").exists()


async def test_a_world_is_applied_at_the_start(config: UpConfig):
    """It also names the trust domain."""
    async with servers_alone(replace(config, trust_domain="", world_text=WORLD), clock()) as (server, *_):
        assert (await status(server)).revision == 1


async def test_two_share_what_they_remember(config: UpConfig, postgres_store: PostgresStore, tmp_path: Path):
    """A world applied at one is served by the other, and what one revokes the other turns away, in well under a second."""
    config = replace(config, database=postgres_store.server.address(postgres_store.name))
    async with AsyncExitStack() as stack:
        (one,) = await stack.enter_async_context(servers_alone(config, clock()))
        (tmp_path / "two").mkdir(mode=0o700)
        shutil.copytree(config.data / "authority", tmp_path / "two" / "authority")
        (other,) = await stack.enter_async_context(servers_alone(replace(config, data=tmp_path / "two"), clock()))
        api = await stack.enter_async_context(Api.local(one.socket))
        await api.call("PUT", "/v1/world", WorldAnswer, WORLD)
        certificate = await issued(other)
        fingerprint = facts(pem_certificates(certificate.chain)[0]).fingerprint
        await api.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=certificate.serial))
        async with asyncio.timeout(1):
            while fingerprint not in other.platform.slices.denied:
                await asyncio.sleep(0.001)
        assert (await status(other)).revision == 1
        assert one.platform.ledger.event_head.value == other.platform.ledger.event_head.value


async def test_a_database_that_is_away_at_the_start_leaves_nothing(config: UpConfig, tmp_path: Path):
    """No authority is made before it is known whether there is one."""
    away = read_address(f"postgresql://u@/d?host={tmp_path}", {})
    with pytest.raises(Unavailable):
        async with servers_alone(replace(config, database=away), clock()):
            pass
    assert not (config.data / "authority").exists()


async def test_up_uses_the_database_too(
    config: UpConfig, postgres_store: PostgresStore, monkeypatch: pytest.MonkeyPatch
):
    """A gateway's world and events are in PostgreSQL, and a server beside it sees them."""
    monkeypatch.setattr("handfast.app.agent.build.EnvoyProcess", TakingEnvoy)
    address = postgres_store.server.address(postgres_store.name)
    config = replace(config, database=address, gateway_port=18444, trust_domain="")
    async with up(config, FakeClock(datetime.now(UTC))) as running:
        told = await status(running.server)
    assert not (config.data / "ledger.sqlite").exists()
    async with servers_alone(config, clock()) as (server, *_):
        after = await status(server)
    assert (after.revision, [agent.name for agent in after.agents]) == (told.revision, ["local"])


async def test_it_answers_503_without_its_database_and_ends_all_the_same(config: UpConfig, own_server: PostgresServer):
    """Callers may try again later; a server that cannot tell its last events does not hang or fail for that."""
    config = replace(config, database=own_server.address(await own_server.create_database()))
    async with servers_alone(config, clock()) as (server, *_):
        await asyncio.to_thread(own_server.stop)
        async with Api.local(server.socket) as api:
            with pytest.raises(Unavailable):
                await api.call("GET", "/v1/certificates", CertificateList)
    assert not (config.data / "server.sock").exists()
