import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.database import Database
from handfast.io.encoding import encode_event
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.events import from_micros, to_micros
from handfast.io.sqlite import SqliteDatabase
from tests.io.ledger.builders import DAY, NOW, applied, denied, ids, intent, issued, joined, prune, revoked
from tests.support.ledger import revoked_live
from tests.support.stores import Store


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds it
def test_times_are_kept_to_the_microsecond(moment: datetime):
    """No time is rounded, before or after 1970."""
    assert from_micros(to_micros(moment)) == moment
    assert to_micros(moment + timedelta(microseconds=1)) == to_micros(moment) + 1


async def test_events_come_in_the_order_they_were_written(ledger: SqlLedger):
    """The number grows; their own times do not matter."""
    await ledger.append([joined("a"), joined("b", at=NOW - DAY)])
    await ledger.append([joined("c")])
    found = await ledger.page()
    assert [event for _, event in found] == [joined("a"), joined("b", at=NOW - DAY), joined("c")]
    assert [seq for seq, _ in found] == sorted({seq for seq, _ in found})
    assert ledger.event_head.value == found[-1][0]


async def test_an_event_that_is_sent_again_is_kept_once(ledger: SqlLedger):
    """Agents that are not sure send again; what was new is given back, and the first version stays."""
    assert await ledger.append([joined("a"), joined("b"), joined("a")]) == [joined("a"), joined("b")]
    assert await ledger.append([joined("b", agent="other"), joined("c")]) == [joined("c")]
    assert await ledger.append([]) == []
    assert await ids(ledger) == ["a", "b", "c"]
    assert await ledger.event("b") == joined("b")


async def test_pages_follow_each_other(ledger: SqlLedger):
    """Reading on from the last number gives every event once; the newest are given backwards."""
    names = [f"{number:02}" for number in range(10)]
    await ledger.append([joined(name) for name in names])
    forward, after = [], 0
    while page := await ledger.page(after, limit=3):
        forward += [event.id for _, event in page]
        after = page[-1][0]
    assert forward == names
    assert [event.id for _, event in await ledger.recent(limit=3)] == names[:-4:-1]


async def test_bodies_are_the_page_as_it_was_written(ledger: SqlLedger):
    """Who passes events on needs no objects of them: same order, same bounds, the very bytes."""
    await ledger.append([joined("a"), joined("b"), joined("c")])
    page = await ledger.page()
    assert await ledger.bodies(0) == [(seq, encode_event(event)) for seq, event in page]
    assert [seq for seq, _ in await ledger.bodies(page[0][0], 1)] == [page[1][0]]
    with pytest.raises(BadInput):
        await ledger.bodies(0, 1001)


async def test_events_are_chosen_by_kind(ledger: SqlLedger):
    """One kind, several, or all; a kind that does not exist is an error, not an empty answer."""
    await ledger.append([joined("a"), denied("b"), revoked("0c", id="c")])
    assert [event.id for _, event in await ledger.page(kinds=["request.denied"])] == ["b"]
    assert [event.id for _, event in await ledger.page(kinds={"agent.joined", "certificate.revoked"})] == ["a", "c"]
    assert [event.id for _, event in await ledger.recent(kinds=["agent.joined", "request.denied"])] == ["b", "a"]
    with pytest.raises(BadInput):
        await ledger.page(kinds=["request.denid"])


async def test_a_denied_request_is_found_by_its_request_id(ledger: SqlLedger):
    """The id that the client got is all that is needed."""
    event = denied("6e3c6d9e-6b8e-4a43-8d1c-2f6f3f5f3a11", path="/v1/ledger")
    await ledger.append([event])
    assert await ledger.event(event.id) == event
    assert await ledger.event("another") is None


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_page_is_bounded(ledger: SqlLedger, limit: int):
    """No read or batch is larger than a thousand."""
    for read in (ledger.page(limit=limit), ledger.recent(limit=limit)):
        with pytest.raises(BadInput):
            await read
    with pytest.raises(BadInput):
        await ledger.append([joined(str(number)) for number in range(1001)])


async def test_an_event_that_cannot_be_read_back_is_not_kept(ledger: SqlLedger):
    """One bad event refuses its batch, and no page stumbles over it later."""
    with pytest.raises(BadInput):
        await ledger.append([joined("a"), joined("not an id")])
    assert await ledger.page() == []


async def test_a_reader_wakes_for_new_events(ledger: SqlLedger):
    """Waiting for the head to move needs no polling, whatever wrote the event; an event that is known wakes nobody."""
    await ledger.append([joined("a")])
    seen = ledger.event_head.value
    await ledger.append([joined("a")])
    assert ledger.event_head.value == seen
    waiting = asyncio.create_task(ledger.event_head.wait_for_change(seen, timeout=10))
    await ledger.record_intent(intent("0a"))
    await ledger.record_issued("0a", b"der", issued("0a"))
    head = await waiting
    assert [event.id for _, event in await ledger.page(after=seen)] == ["issued-0a"]
    assert head == (await ledger.page(after=seen))[-1][0]


async def test_agents_wake_for_changes_alone(ledger: SqlLedger):
    """A revision and a revocation move `changes` by one; issuing and other events do not."""
    start = ledger.changes.value
    await ledger.append([joined("a")])
    await ledger.record_intent(intent("0a"))
    await ledger.record_issued("0a", b"der", issued("0a"))
    assert ledger.changes.value == start
    await ledger.revoke(["0a"], NOW, "superseded", [])
    assert ledger.changes.value == start + 1
    await ledger.apply("{}", "a" * 64, "test", NOW, applied("a" * 64))
    assert ledger.changes.value == start + 2


async def test_a_cancelled_writer_still_wakes_the_readers(db: Database, ledger: SqlLedger):
    """A revocation that is durable is announced, though the request that asked for it is gone."""
    await ledger.record_intent(intent("0a"))
    start = ledger.changes.value
    task = asyncio.create_task(ledger.revoke(["0a"], NOW, "superseded", [revoked("0a")]))
    await asyncio.sleep(0)
    if isinstance(db, SqliteDatabase):
        db._flush()
    else:
        while await db.fetch("select 1 from certificates where state = 'intended'"):
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await revoked_live(ledger, NOW))[0].serial == "0a"
    assert (ledger.changes.value, ledger.event_head.value) == (start + 1, 1)


async def test_the_topics_go_on_after_a_restart(store: Store):
    """A new process begins where the old one ended: no generation comes twice."""
    for turn in (1, 2, 3):
        db = await store.open()
        ledger = await SqlLedger.open(db)
        assert (ledger.event_head.value, ledger.changes.value) == (turn - 1, turn - 1)
        await ledger.apply("{}", f"{turn:064}", "test", NOW, applied(f"{turn:064}", id=f"e{turn}"))
        assert (ledger.event_head.value, ledger.changes.value) == (turn, turn)
        await db.close()


async def test_refresh_sees_what_another_process_wrote(store: Store):
    """Two ledgers on one database: the second catches up when it is told to, and never goes back."""
    db, other_db = await store.open(), await store.open()
    ledger, other = SqlLedger(db), await SqlLedger.open(other_db)
    await other.apply("{}", "a" * 64, "test", NOW, applied("a" * 64))
    assert (ledger.event_head.value, ledger.changes.value) == (0, 0)
    await ledger.refresh()
    assert (ledger.event_head.value, ledger.changes.value) == (1, 1)
    await prune(other)
    await ledger.refresh()
    assert ledger.event_head.value == 1
    await other_db.close()
    await db.close()
