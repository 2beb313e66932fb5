"""How much one agent may have recorded, and what a hostile one tries."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.app.server.allowances import EVENTS, FINDINGS, TOLD_EVERY, Allowances, Bucket, Rate
from handfast.app.server.callers import Role
from handfast.app.server.messages import AgentReport, EventList, Nothing
from handfast.base.events import ConnectionEnded, Event, EventsOmitted, FindingRaised, RequestDenied
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.io.encoding import encode_event, to_plain
from handfast.io.ledger import SqlLedger
from tests.app.sites import AGENT, Site, raw, site
from tests.support.clock import START

SMALL = Rate(burst=10, a_second=2.0)
SECOND = timedelta(seconds=1)


def connection(number: int = 0, gateway: str = AGENT) -> ConnectionEnded:
    return ConnectionEnded(
        id=f"c{number}", at=START, gateway=gateway, listener="l", host="h", peer="p", server_name="h", tls_version="TLSv1.3"
    )  # fmt: skip


def finding(number: int = 0) -> FindingRaised:
    return FindingRaised(id=f"f{number}", at=START, source=AGENT, reason=Reason.ENVOY_DIED)


def denied(number: int = 0, path: str = "/") -> RequestDenied:
    return RequestDenied(
        id=f"r{number}", at=START, gateway=AGENT, host="h", route="/", method="GET", path=path, peer="p", status=403,
        reason=Reason.POLICY_NO_MATCH,
    )  # fmt: skip


def sized(count: int, size: int = 300, first: int = 0) -> list[tuple[Event, int]]:
    return [(connection(number), size) for number in range(first, first + count)]


# Buckets


def test_a_bucket_is_full_at_first_and_fills_again():
    """What is taken comes back with time, and never more than it holds."""
    bucket = Bucket(SMALL, START)
    assert [bucket.take(1, START) for _ in range(11)] == [True] * 10 + [False]
    assert [bucket.take(1, START + SECOND) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1, START + 3600 * SECOND) for _ in range(11)] == [True] * 10 + [False]


def test_a_clock_that_goes_back_gives_nothing():
    """And takes nothing away that comes later."""
    bucket = Bucket(SMALL, START)
    assert bucket.take(10, START)
    assert not bucket.take(1, START - 3600 * SECOND)
    assert bucket.take(2, START - 3599 * SECOND)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 5)), max_size=200))
def test_nobody_gets_more_than_the_burst_and_the_rate(asked: list[tuple[int, float]]):
    """However it is asked for."""
    bucket, now, taken = Bucket(SMALL, START), START, 0
    for cost, pause in asked:
        now += timedelta(seconds=pause)
        taken += cost if bucket.take(cost, now) else 0
    assert taken <= SMALL.burst + SMALL.a_second * (now - START).total_seconds() + 1e-6


# Agents


def test_large_events_cost_by_their_size():
    """Whoever fills events up gets no more octets into the ledger than others."""
    allowances = Allowances(SMALL)
    assert len(allowances.admit(AGENT, sized(10, size=65_536), START)) == 0
    assert len(allowances.admit(AGENT, sized(10, size=4_000), START)) == 2
    assert len(allowances.admit(AGENT, sized(10), START)) == 2


def test_each_agent_has_its_own():
    """What one spends another has."""
    allowances = Allowances(SMALL)
    assert len(allowances.admit("a", sized(20), START)) == 10
    assert len(allowances.admit("b", sized(20), START)) == 10


def test_what_an_agent_says_of_itself_is_apart():
    """A flood of connections hides no finding, and findings spend nothing of what the gateway's events have."""
    allowances = Allowances(SMALL, Rate(burst=2, a_second=0.0))
    allowances.admit(AGENT, sized(20), START)
    assert allowances.admit(AGENT, [(finding(number), 300) for number in range(3)], START) == [finding(0), finding(1)]
    assert allowances.admit("b", [(finding(0), 300)], START)
    assert len(allowances.admit("b", sized(10), START)) == 10


def test_an_honest_gateway_is_never_near_it():
    """A thousand connections in a second, for a quarter of an hour."""
    allowances, now = Allowances(), START
    events = sized(1000)
    for _ in range(900):
        assert len(allowances.admit(AGENT, events, now)) == 1000
        now += SECOND
    assert (EVENTS.burst, FINDINGS.burst) >= (1_000_000, 1_000)


# What is told


async def told(ledger: SqlLedger) -> list[EventsOmitted]:
    return [event for _, event in await ledger.page(kinds={"events.omitted"}) if isinstance(event, EventsOmitted)]


async def test_what_is_left_out_is_told_at_once_and_then_once_a_minute(here: Site):
    """All of it, by kind, and nothing twice."""
    ledger, allowances = here.server.platform.ledger, Allowances(SMALL)
    for second in range(130):
        now = START + second * SECOND
        allowances.admit(AGENT, [*sized(4), (denied(), 300)], now)
        await allowances.tell(ledger, now)
    await allowances.tell(ledger, START + 130 * SECOND)
    assert [(one.at, one.since) for one in await told(ledger)] == [
        (START + at * SECOND, START + since * SECOND) for at, since in ((2, 2), (62, 3), (122, 63))
    ]
    await allowances.tell(ledger, START + 131 * SECOND, last=True)
    events = await told(ledger)
    kept = SMALL.burst + SMALL.a_second * 129
    assert sum(one.count for one in events) == 130 * 5 - kept
    assert all(sum(one.kinds.values()) == one.count for one in events)
    assert set(events[1].kinds) == {"connection.ended", "request.denied"}
    await allowances.tell(ledger, START + 10 * TOLD_EVERY, last=True)
    assert await told(ledger) == events


async def test_what_could_not_be_told_is_told_later(here: Site, monkeypatch: pytest.MonkeyPatch):
    """While the ledger is away nothing of it is forgotten."""
    ledger, allowances, inner = here.server.platform.ledger, Allowances(SMALL), SqlLedger.append

    async def away(*_: Any) -> list[Event]:
        allowances.admit(AGENT, sized(1), START)
        raise Unavailable("the ledger is away")

    allowances.admit(AGENT, sized(13), START)
    monkeypatch.setattr(SqlLedger, "append", away)
    with pytest.raises(Unavailable):
        await allowances.tell(ledger, START)
    monkeypatch.setattr(SqlLedger, "append", inner)
    await allowances.tell(ledger, START)
    assert [one.count for one in await told(ledger)] == [4]


# A whole server


def findings(first: int) -> list[Event]:
    return [finding(first + number) for number in range(100)]


def reported(events: list[Event]) -> AgentReport:
    return AgentReport(events=[msgspec.Raw(encode_event(event)) for event in events])


async def count(here: Site, kind: str) -> int:
    ((found,),) = await here.server.platform.ledger._db.fetch("select count(*) from events where kind = $1", kind)
    return int(found)


async def test_an_agent_that_is_not_ours_any_more_cannot_fill_the_ledger(here: Site):
    """It reports as fast as it can: the ledger has what it may, one event of what was left out, and a number at /metrics."""
    platform = here.server.platform
    platform.allowances._rates = {False: Rate(burst=1500, a_second=2.0), True: Rate(burst=20, a_second=1.0)}
    agent = await here.being(Role.AGENT)
    for turn in range(5):
        events: list[Event] = [connection(1000 * turn + number) for number in range(900)]
        await agent.call("POST", "/v1/agents/self/report", Nothing, reported([*events, *findings(100 * turn)]))
    assert await count(here, "connection.ended") == 1500
    assert await count(here, "finding.raised") == 20
    assert await count(here, "events.omitted") == 1
    here.clock.set(here.clock.now() + TOLD_EVERY)
    await agent.call("POST", "/v1/agents/self/report", Nothing, reported([]))
    omitted = (await here.operator.call("GET", "/v1/events", EventList, kind="events.omitted")).events
    assert sum(event["count"] for event in omitted) == 5 * 1000 - 1520
    assert len(omitted) == 2
    await platform.journal.catch_up()
    assert f'handfast_events_omitted_total{{agent="{AGENT}"}} {5 * 1000 - 1520}.0' in platform.metrics.text().decode()


async def test_what_was_left_out_is_told_when_the_server_ends(tmp_path: Path):
    """The last minute is not lost."""
    async with site(tmp_path) as here:
        here.server.platform.allowances._rates = {False: SMALL, True: SMALL}
        agent = await here.being(Role.AGENT)
        for first in (0, 20):
            events: list[Event] = [connection(first + number) for number in range(20)]
            await agent.call("POST", "/v1/agents/self/report", Nothing, reported(events))
        assert await count(here, "events.omitted") == 1
    async with site(tmp_path) as here:
        assert [one.count for one in await told(here.server.platform.ledger)] == [10, 20]


async def test_what_is_left_out_still_speaks_against_a_replacement(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A copy of an old certificate cannot hide behind a flood: what connections tell of is seen, recorded or not."""
    platform, seen = here.server.platform, list[Event]()
    platform.allowances._rates = {False: Rate(burst=0, a_second=0.0), True: SMALL}
    monkeypatch.setattr(type(platform.rotation), "told", lambda _, events: seen.extend(events))
    agent = await here.being(Role.AGENT)
    await agent.call("POST", "/v1/agents/self/report", Nothing, reported([connection(1)]))
    assert seen == [connection(1)]
    assert await count(here, "connection.ended") == 0


async def test_a_report_that_is_refused_spends_nothing(here: Site):
    """One bad event in it, and no other counts."""
    platform = here.server.platform
    platform.allowances._rates = {False: SMALL, True: SMALL}
    agent = await here.being(Role.AGENT)
    plain = [to_plain(connection(number, gateway=name)) for number, name in ((1, AGENT), (2, "other"))] * 5
    response = await raw(agent, "POST", "/v1/agents/self/report", json.dumps({"events": plain}))
    assert response.status_code == 400
    await agent.call("POST", "/v1/agents/self/report", Nothing, reported([connection(10 + n) for n in range(10)]))
    assert await count(here, "connection.ended") == 10
