"""What the stories count on: that they know when everybody sleeps."""

import asyncio
from pathlib import Path

from tests.app.sites import Site, site
from tests.stories.telling import AGENT_SLEEPS, SERVER_SLEEPS, WATCH_SLEEPS, eventually, host, quiet
from tests.support.clock import FakeClock

_A_WHILE_S = 0.5


async def stays(here: Site, sleepers: int) -> None:
    """See that so many sleep once the audit chain is sealed, and no more come in a while."""
    await asyncio.sleep(_A_WHILE_S)
    await here.clock.advance(1)
    await eventually(lambda: here.clock.sleepers == sleepers)
    await asyncio.sleep(_A_WHILE_S)
    assert here.clock.sleepers == sleepers


async def test_who_sleeps_is_counted(tmp_path: Path):
    """The numbers are those of a platform that has nothing to do: with its server, with both, and with the agent alone."""
    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        await stays(here, SERVER_SLEEPS)
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            await quiet(here.clock)
            await stays(here, SERVER_SLEEPS + AGENT_SLEEPS)
            await here.stack.aclose()
            await stays(here, AGENT_SLEEPS + WATCH_SLEEPS)
