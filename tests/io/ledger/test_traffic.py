import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.database import step
from handfast.io.ledger import SqlLedger, TrafficCount, traffic
from handfast.io.ledger.traffic import MAX_COUNTS, TOO_MANY
from tests.io.ledger.builders import DAY, HOUR, NOW
from tests.support.stores import Store

POST = TrafficCount(host="api", route="/v1", identity="payments", method="POST", decision="allow", count=3)
NOON = NOW.replace(minute=0, second=0, microsecond=0)


async def test_counts_are_added_up(ledger: SqlLedger):
    """What is alike is one sum, over reports and hours; the largest comes first."""
    await ledger.add_traffic(NOW, [POST, replace(POST, method="GET", count=100)])
    await ledger.add_traffic(NOW + timedelta(minutes=59), [POST])
    await ledger.add_traffic(NOW + 2 * HOUR, [replace(POST, count=1)])
    assert await ledger.traffic(NOW) == [replace(POST, method="GET", count=100), replace(POST, count=7)]


async def test_an_hour_begins_at_its_minute_zero(ledger: SqlLedger):
    """Counts go to the whole hour in UTC, and a time within an hour means all of it."""
    await ledger.add_traffic(NOON - timedelta(microseconds=1), [replace(POST, count=2)])
    await ledger.add_traffic(NOON, [POST])
    assert await ledger.traffic(NOON + timedelta(minutes=30)) == [POST]
    assert await ledger.traffic(NOON - HOUR) == [replace(POST, count=5)]
    assert await ledger.traffic(NOON + HOUR) == []


async def test_old_hours_are_forgotten_whole(ledger: SqlLedger):
    """The oldest hours go first, as many as are asked for, and the hour of the limit stays."""
    for number in range(4):
        await ledger.add_traffic(NOON - DAY + number * HOUR, [POST, replace(POST, route=f"/{number}")])
    assert await ledger.prune_traffic(NOON - DAY + 3 * HOUR, limit=2) == 4
    assert [await ledger.prune_traffic(NOON - DAY + 3 * HOUR) for _ in range(2)] == [2, 0]
    assert {one.route for one in await ledger.traffic(NOON - DAY)} == {POST.route, "/3"}


async def test_counts_are_bounded(ledger: SqlLedger):
    """Too many at once, and a count that would take away, are refused whole."""
    with pytest.raises(BadInput):
        await ledger.add_traffic(NOW, [POST] * (MAX_COUNTS + 1))
    with pytest.raises(BadInput):
        await ledger.add_traffic(NOW, [POST, replace(POST, count=-1)])
    await ledger.add_traffic(NOW, [])
    assert await ledger.traffic(NOW) == []


@given(
    st.lists(
        st.lists(
            st.builds(
                TrafficCount,
                host=st.sampled_from(["a", "b"]),
                route=st.sampled_from(["/", "/v1"]),
                identity=st.sampled_from(["", "payments"]),
                method=st.just("GET"),
                decision=st.sampled_from(["allow", "deny"]),
                count=st.integers(0, 1000),
            ),
            max_size=6,
        ),
        max_size=5,
    )
)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_lost_or_counted_twice(store: Store, reports: list[list[TrafficCount]]):
    """Reports that come at the same time add up to what a plain sum says."""
    wanted: Counter[TrafficCount] = Counter()
    for report in reports:
        for one in report:
            wanted[replace(one, count=0)] += one.count

    async def scenario() -> None:
        db = await store.open()
        await db.write(step("delete from traffic"))
        ledger = SqlLedger(db)
        await asyncio.gather(*(ledger.add_traffic(NOW, report) for report in reports))
        assert {replace(one, count=0): one.count for one in await ledger.traffic(NOW)} == dict(wanted)
        await db.close()

    asyncio.run(scenario())


async def test_an_hour_tells_so_many_kinds_apart(ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch):
    """Further identities are one, whoever makes them up; those that are there go on being counted, and the next hour has room."""
    monkeypatch.setattr(traffic, "MAX_KINDS", 3)
    first = [replace(POST, identity=name) for name in "abc"]
    await ledger.add_traffic(NOON, first)
    for turn in range(5):
        await ledger.add_traffic(NOON, [first[0], *(replace(POST, identity=f"made-up-{turn}-{n}") for n in range(20))])
    assert await ledger.traffic(NOON) == [
        replace(POST, identity=TOO_MANY, count=5 * 20 * 3),
        replace(POST, identity="a", count=18),
        *first[1:],
    ]
    await ledger.add_traffic(NOON + HOUR, [replace(POST, identity="d")])
    assert [one.identity for one in await ledger.traffic(NOON + HOUR)] == ["d"]
