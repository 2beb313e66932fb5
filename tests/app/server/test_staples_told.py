"""What agents tell of their staples: of hosts that there are, bounded, each for itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from handfast.app.server.messages import AgentReport, Nothing, StatusAnswer
from handfast.base.refusal import BadInput
from tests.app.sites import AGENT, DOMAIN, WORLD, Site

HOST = f"api.{DOMAIN}"


async def shown(here: Site) -> list[dict[str, Any]]:
    """Give what the status has beside the host."""
    (row,) = (await here.operator.call("GET", "/v1/status", StatusAnswer)).hosts
    staples: list[dict[str, Any]] = row["staples"]
    return staples


async def test_each_agent_tells_for_itself_of_hosts_that_there_are(here: Site):
    """What it says of another name is dropped, and what an agent said before stays until it says otherwise."""
    await here.apply()
    edge, west = [here.holder(await here.join(name)) for name in (AGENT, "west")]
    end = here.clock.now().replace(microsecond=0)
    for agent, staples in (
        (edge, {HOST: end, "other.example.org": end, f"west/{HOST}": end}),
        (west, {HOST: end + timedelta(hours=1)}),
        (edge, {}),
    ):
        await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(staples=staples))
    assert [(one["agent"], datetime.fromisoformat(one["next_update"])) for one in await shown(here)] == [
        (AGENT, end),
        ("west", end + timedelta(hours=1)),
    ]
    assert len(await here.server.platform.ledger.staples()) == 2
    await edge.call("POST", "/v1/agents/self/report", Nothing, AgentReport(staples={HOST: None}))
    assert [one["agent"] for one in await shown(here)] == ["west"]
    await here.apply(WORLD.replace(HOST, f"web.{DOMAIN}"))
    assert await shown(here) == []


@pytest.mark.parametrize(
    "staples",
    [
        {HOST: datetime(2030, 1, 1)},  # noqa: DTZ001 - a time without a zone is the point
        {f"host-{number}": None for number in range(101)},
        {"": None},
        {"x" * 254: None},
    ],
    ids=["no zone", "many", "empty", "long"],
)
async def test_what_an_agent_tells_is_bounded(here: Site, staples: dict[str, datetime | None]):
    """A time has a zone, a name a length, and a report an end."""
    agent = here.holder(await here.join())
    with pytest.raises(BadInput):
        await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(staples=staples))
