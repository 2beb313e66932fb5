"""A host and its control plane in one process, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.app.agent.build import Agent, AgentConfig, build_agent
from handfast.base.spiffe import TrustDomain
from tests.app.issuers import timeless
from tests.app.sites import AGENT, DOMAIN, Site
from tests.stories.envoy import TakingEnvoy
from tests.support.clock import FakeClock

HOUR = timedelta(hours=1)
PATIENCE_S = 30.0
SERVER_SLEEPS, AGENT_SLEEPS, WATCH_SLEEPS = 6, 3, 1
"""How many wait for the clock in a server, in an agent, and more in one whose server is away, once all work is done.

Fewer would let time pass while somebody still works, who then finds another time than it began with. `test_telling` counts them.
After an event there is one more for a moment, until the audit chain is sealed.
"""
_LONGEST = "GatewayKeeper.keep_certificates"  # it asks for certificates and staples, which takes longest


def without_machine_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TLS go by the fake clock alone: OpenSSL looks at no date, and our own checks do."""
    for place in ("server.build.server_context", "agent.build.client_context", "agent.build.anonymous_context"):
        module, _, name = place.rpartition(".")
        target = f"handfast.app.{module}"
        inner = getattr(__import__(target, fromlist=[name]), name)
        monkeypatch.setattr(f"{target}.{name}", lambda *args, _inner=inner, **more: timeless(_inner(*args, **more)))
    monkeypatch.setattr("handfast.app.agent.build.EnvoyProcess", TakingEnvoy)


@dataclass
class Host:
    """One host: an agent, and the Envoy that it feeds."""

    agent: Agent
    clock: FakeClock
    tokens: list[str] = field(default_factory=list)

    @property
    def envoy(self) -> TakingEnvoy:
        """The Envoy."""
        envoy: object = self.agent._envoy
        assert isinstance(envoy, TakingEnvoy)
        return envoy

    async def current(self, here: Site) -> None:
        """Wait until Envoy has the world that counts."""
        newest = here.server.platform.slices.current.value
        assert newest
        assert await self.agent.ready(newest.digest, PATIENCE_S)


@asynccontextmanager
async def host(directory: Path, here: Site) -> AsyncIterator[Host]:
    """Run an agent against ``here``; it gets join tokens for as long as the server answers."""
    tokens: list[str] = []

    async def token() -> str:
        tokens.append(await here.token(AGENT))
        return tokens[-1]

    config = AgentConfig(
        name=AGENT,
        directory=directory,
        server_url=here.server.url,
        bundle_pem=here.bundle,
        trust_domain=TrustDomain(DOMAIN),
        token=token,
        drain_s=0,
    )
    agent = build_agent(config, here.clock)
    try:
        await agent.start()
        yield Host(agent, here.clock, tokens)
    finally:
        await agent.stop()


async def pass_time(clock: FakeClock, length: timedelta, *, server: bool = True, step: timedelta = HOUR / 2) -> None:
    """Let time pass in steps; after each one everybody does what is due, and sleeps again."""
    end = clock.now() + length
    while clock.now() < end:
        clock.set(min(clock.now() + step, end))
        await clock.advance(0)
        await quiet(clock, server=server)


async def quiet(clock: FakeClock, *, server: bool = True) -> None:
    """Wait until all work of the agent, and of the server where it runs, sleeps."""
    sleeps = AGENT_SLEEPS + (SERVER_SLEEPS if server else WATCH_SLEEPS)
    await eventually(lambda: clock.sleepers >= sleeps and clock.sleeps(_LONGEST))


async def eventually(look: Callable[[], bool]) -> None:
    """Look again and again, for as long as a machine under load may take."""
    async with asyncio.timeout(PATIENCE_S):
        while not look():
            await asyncio.sleep(0.002)
