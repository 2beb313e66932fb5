import asyncio
import shutil
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.app import demo
from handfast.app.client import Api
from handfast.app.server.messages import RevocationRequest, StatusAnswer, WorldAnswer
from handfast.app.up import AGENT, Running, UpConfig, up
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused, Unavailable
from handfast.io.credentials import load
from handfast.io.records import CertificateState
from handfast.sdk.contexts import client_context
from tests.app.sites import DOMAIN, WORLD
from tests.stories.envoy import TakingEnvoy
from tests.stories.telling import without_machine_time
from tests.support.clock import FakeClock


@pytest.fixture(autouse=True)
def _without_envoy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handfast.app.agent.build.EnvoyProcess", TakingEnvoy)


@pytest.fixture
def config(tmp_path: Path) -> UpConfig:
    """Give a start on free ports."""
    return UpConfig(data=tmp_path / "data", api=("127.0.0.1", 0), admin=("127.0.0.1", 0), gateway_port=18443)


def started(config: UpConfig, clock: FakeClock | None = None) -> AbstractAsyncContextManager[Running]:
    return up(config, clock or FakeClock(datetime.now(UTC)))


async def status(running: Running) -> StatusAnswer:
    async with Api.local(running.server.socket) as api:
        return await api.call("GET", "/v1/status", StatusAnswer)


async def current(running: Running) -> None:
    """Wait until the agent has reported that it serves the newest slice; it does so at once, and on its own."""
    async with asyncio.timeout(5):
        while [agent.current for agent in (await status(running)).agents] != [True]:
            await asyncio.sleep(0.01)


async def test_the_demo_is_a_whole_platform(config: UpConfig):
    """World, agent, operator's and client's certificates are there when it says that it is up."""
    async with started(config) as running:
        told = await status(running)
        assert [host["name"] for host in told.hosts] == [demo.HOST]
        await current(running)
        assert running.demo
        files = {path.name for path in (config.data / "demo").iterdir()}
        assert files >= {"ca.pem", "client.pem", "client-key.pem", "client.p12", "handfast.yaml"}
        operator = config.data / "operator"
        context = client_context(*((operator / f"{name}.pem").read_bytes() for name in ("cert", "key", "ca")))
        async with Api.remote(running.server.url, context) as api:
            assert (await api.call("GET", "/v1/status", StatusAnswer)).trust_domain == demo.TRUST_DOMAIN


async def test_a_second_start_goes_on_where_the_first_one_ended(config: UpConfig):
    """The same roots, the same world, the same agent; what was applied since is not undone."""
    async with started(config) as running:
        bundle = running.server.platform.authority.bundle_pem
        changed = demo.world(demo.PORT, 18443).replace("HEAD, POST", "HEAD, PUT")
        async with Api.local(running.server.socket) as api:
            await api.call("PUT", "/v1/world", WorldAnswer, changed)
    async with started(config) as running:
        assert running.server.platform.authority.bundle_pem == bundle
        told = await status(running)
        assert (told.revision, [agent.name for agent in told.agents]) == (2, ["local"])


async def test_after_days_of_sleep_it_starts_all_the_same(config: UpConfig):
    """The agent's certificate has expired meanwhile; it joins anew."""
    clock = FakeClock(datetime.now(UTC) - timedelta(days=3))
    with pytest.MonkeyPatch.context() as patched:
        without_machine_time(patched)
        async with started(config, clock):
            pass
        clock.set(clock.now() + timedelta(days=3))
        async with started(config, clock) as running:
            await current(running)


async def revoke_the_agent(running: Running) -> None:
    async with Api.local(running.server.socket) as api:
        await api.send("POST", "/v1/revocations", RevocationRequest(name=f"handfast/agent/{AGENT}"))


@pytest.mark.parametrize("later", [timedelta(), timedelta(days=3)])
async def test_an_agent_that_was_revoked_does_not_come_back_by_itself(
    config: UpConfig, later: timedelta, monkeypatch: pytest.MonkeyPatch
):
    """Neither at once nor when its certificate has ended anyway; without its certificate's file it joins anew, and serves."""
    without_machine_time(monkeypatch)
    clock = FakeClock(datetime.now(UTC) - later)
    async with started(config, clock) as running:
        await revoke_the_agent(running)
    clock.set(clock.now() + later)
    identity = config.data / "agent" / "identity.pem"
    with pytest.raises(Refused) as caught:
        async with started(config, clock):
            pytest.fail("it started")
    assert caught.value.refusal.reason is Reason.AGENT_REVOKED
    assert str(identity) in str(caught.value)
    assert "identity.pem" in caught.value.hint
    identity.unlink()
    async with started(config, clock) as running:
        await current(running)


async def test_an_agent_that_is_revoked_while_it_runs_asks_for_no_token(config: UpConfig):
    """Also not when its certificate ends, and it says so: the process that could make one for it does not."""
    clock = FakeClock(datetime.now(UTC))
    async with started(config, clock) as running:
        await current(running)
        await revoke_the_agent(running)
        with pytest.raises(Refused) as caught:
            await running.agent.config.token()
        assert caught.value.refusal.reason is Reason.AGENT_REVOKED
        async with asyncio.timeout(5):
            while Reason.AGENT_REVOKED not in {one.reason for one in running.agent._findings.standing}:
                await asyncio.sleep(0.01)


async def test_an_agent_that_lost_its_state_takes_its_name_again(config: UpConfig):
    """Its directory is gone, the ledger is not: it joins, and what it had is revoked."""
    async with started(config) as running:
        await current(running)
        before = load(config.data / "agent" / "identity.pem")
        assert before
    shutil.rmtree(config.data / "agent")
    async with started(config) as running:
        await current(running)
        record = await running.server.platform.ledger.by_serial(before.leaf.serial)
        assert record
        assert (record.state, record.revocation_reason) == (CertificateState.REVOKED, "superseded")
        kinds = {"agent.invited", "agent.joined"}
        events = [event for _, event in await running.server.platform.ledger.page(kinds=kinds)]
        assert [event.agent for event in events] == [AGENT] * 4


async def test_a_world_of_ones_own_has_no_demo(config: UpConfig):
    """Nothing of the demo is made."""
    async with started(replace(config, world_text=WORLD)) as running:
        assert not running.demo
        assert running.server.platform.trust_domain.name == DOMAIN
        assert not (config.data / "demo").exists()
    async with started(config) as running:
        assert not running.demo
        assert (await status(running)).revision == 1


async def test_two_at_a_time_would_spoil_each_other(config: UpConfig):
    """The second one is told so, and leaves the first one alone."""
    async with started(config) as running:
        with pytest.raises(Unavailable, match="another 'handfast up'"):
            async with started(config):
                pass
        assert (await status(running)).agents


async def test_a_start_that_fails_leaves_nothing_running(config: UpConfig):
    """Whatever came up is taken down again, and the next start finds the place free."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken = listener.sockets[0].getsockname()[1]
    with pytest.raises(BadInput, match=str(taken)):
        async with started(replace(config, admin=("127.0.0.1", taken))):
            pass
    listener.close()
    assert not (config.data / "server.sock").exists()
    async with started(config) as running:
        assert (await status(running)).agents


async def test_another_trust_domain_is_another_directory(config: UpConfig):
    """A world of a foreign trust domain does not start over what is there."""
    async with started(replace(config, world_text=WORLD)):
        pass
    with pytest.raises(BadInput):
        async with started(replace(config, world_text=WORLD.replace(DOMAIN, "example.com"))):
            pass
