import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.io.database import Conflict, Database, Result, Step, step
from handfast.io.migrations import Migration
from handfast.io.sqlite import MAX_GROUP
from tests.support.stores import Store

TABLE = Migration(1, "pairs", "create table pairs (k text primary key, v integer not null);")
INSERT = "insert into pairs (k, v) values ($1, $2)"
ALL = "select k, v from pairs order by k"


@pytest.fixture
async def db(store: Store) -> AsyncIterator[Database]:
    """Give a database with one table of keys and numbers."""
    database = await store.open([TABLE])
    yield database
    await database.close()


def seen(outcome: object) -> object:
    return outcome if isinstance(outcome, list) else type(outcome)


async def test_what_was_written_is_read(db: Database):
    """Rows come back as tuples, `one` gives the first or None, `returning` gives rows and their number."""
    results = await db.write(step(f"{INSERT} returning v", "a", 1), step(INSERT, "b", 2))
    assert results == [Result([(1,)], 1), Result([], 1)]
    assert await db.fetch(ALL) == [("a", 1), ("b", 2)]
    assert await db.one("select v from pairs where k = $1", "b") == (2,)
    assert await db.one("select v from pairs where k = $1", "c") is None


async def test_a_failing_unit_does_not_fail_its_neighbours(db: Database):
    """Of units that share a commit, only the guilty one is refused, and it leaves nothing behind."""
    await db.write(step(INSERT, "taken", 0))
    outcomes = await asyncio.gather(
        db.write(step(INSERT, "a", 1)),
        db.write(step(INSERT, "half", 1), step(INSERT, "taken", 1)),
        db.write(step("insert into nowhere values (1)")),
        db.write(step("update pairs set v = 9 where k = $1", "nobody", expect=1)),
        db.write(step(INSERT, "b", 2)),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [list, Conflict, type(outcomes[2]), Conflict, list]
    assert isinstance(outcomes[2], Exception)
    assert not isinstance(outcomes[2], Conflict | HandfastError)
    assert await db.fetch(ALL) == [("a", 1), ("b", 2), ("taken", 0)]


async def test_a_unit_alone_is_all_or_nothing(db: Database):
    """A unit that fails at its last step has not done its first."""
    with pytest.raises(Conflict):
        await db.write(step(INSERT, "a", 1), step("update pairs set v = 2 where k = 'a'", expect=2))
    assert await db.fetch(ALL) == []


async def test_expect_counts_rows_that_are_returned(db: Database):
    """``expect`` holds with `returning` as it does without."""
    update = "update pairs set v = v + 1 where k = $1 returning v"
    await db.write(step(INSERT, "a", 1))
    assert await db.write(step(update, "a", expect=1)) == [Result([(2,)], 1)]
    with pytest.raises(Conflict):
        await db.write(step(update, "b", expect=1))


async def test_a_value_that_is_none_is_a_fault_not_a_conflict(db: Database):
    """A broken statement of ours is not mistaken for a row that is there already."""
    with pytest.raises(Exception, match=r"(?i)null") as caught:
        await db.write(step(INSERT, "a", None))
    assert not isinstance(caught.value, Conflict | HandfastError)


async def test_what_no_column_can_hold_is_bad_input(db: Database):
    """A huge number or half a surrogate pair, from a query or so, is refused in reads and writes."""
    for bad in (2**70, "\ud800"):
        with pytest.raises(BadInput):
            await db.fetch(
                "select v from pairs where v = $1" if isinstance(bad, int) else "select v from pairs where k = $1", bad
            )
        with pytest.raises(BadInput):
            await db.write(step(INSERT, "a", bad))


UNIT = st.lists(
    st.one_of(
        st.builds(step, st.just(INSERT), st.sampled_from("abc"), st.integers(0, 9)),
        st.builds(
            lambda key, count: step("update pairs set v = v + 1 where k = $1", key, expect=count),
            st.sampled_from("abc"),
            st.integers(0, 1),
        ),
        st.builds(lambda key: step("delete from pairs where k = $1 returning v", key), st.sampled_from("abc")),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


@given(st.lists(UNIT, min_size=1, max_size=6))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_group_is_as_good_as_one_unit_after_another(store: Store, units: list[tuple[Step, ...]]):
    """Sharing a commit changes neither the outcomes of units nor what is in the database after them."""

    async def scenario() -> None:
        db = await store.open([TABLE])
        await db.write(step("delete from pairs"))
        grouped = await asyncio.gather(*(db.write(*unit) for unit in units), return_exceptions=True)
        together = await db.fetch(ALL)
        await db.write(step("delete from pairs"))
        single = [(await asyncio.gather(db.write(*unit), return_exceptions=True))[0] for unit in units]
        assert [seen(outcome) for outcome in grouped] == [seen(outcome) for outcome in single]
        assert together == await db.fetch(ALL)
        await db.close()

    asyncio.run(scenario())


async def test_a_caller_that_left_the_queue_writes_nothing(db: Database):
    """A unit that was cancelled before its commit is dropped; the others are not."""
    told: list[list[Result]] = []
    gone = asyncio.ensure_future(db.write(step(INSERT, "gone", 1), then=told.append))
    stays = asyncio.ensure_future(db.write(step(INSERT, "stays", 1)))
    asyncio.get_running_loop().call_soon(gone.cancel)
    await asyncio.sleep(0)
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert gone.cancelled()
    assert await db.fetch(ALL) == [("stays", 1)]
    assert told == []


async def test_then_is_told_of_no_failure(db: Database):
    """A unit that was rolled back is not announced."""
    told: list[list[Result]] = []
    with pytest.raises(Conflict):
        await db.write(step(INSERT, "a", 1), step(INSERT, "a", 1), then=told.append)
    await asyncio.sleep(0)
    assert told == []


async def test_reads_cannot_write(db: Database):
    """A statement that changes something has to go through `write`."""
    with pytest.raises(Unavailable, match=r"read-?only"):
        await db.fetch(f"{INSERT} returning v", "a", 1)
    assert await db.fetch(ALL) == []


async def test_closing_writes_what_is_queued(store: Store):
    """Nobody who waits is left hanging by a close, and afterwards the database is `Unavailable`."""
    db = await store.open([TABLE])
    waiting = [asyncio.ensure_future(db.write(step(INSERT, f"{number}", 1))) for number in range(MAX_GROUP + 5)]
    await asyncio.sleep(0)
    await db.close()
    await asyncio.gather(*waiting)
    with pytest.raises(Unavailable):
        await db.write(step(INSERT, "late", 1))
    with pytest.raises(Unavailable):
        await db.fetch(ALL)
    await db.close()
    again = await store.open([TABLE])
    assert len(await again.fetch(ALL)) == MAX_GROUP + 5
    await again.close()


async def test_more_units_than_a_group_takes_are_all_written(db: Database):
    """What does not fit into one transaction goes into the next."""
    await asyncio.gather(*(db.write(step(INSERT, f"k{number}", number)) for number in range(MAX_GROUP * 2 + 1)))
    assert len(await db.fetch(ALL)) == MAX_GROUP * 2 + 1


async def test_two_that_have_it_open_see_each_others_units_whole(store: Store):
    """A reader beside a writer never sees one half of a pair, and always sees what was acknowledged."""
    writer, reader = await store.open([TABLE]), await store.open([TABLE])
    halves = (
        "select sum(case when k like 'l%' then 1 else 0 end), sum(case when k like 'r%' then 1 else 0 end) from pairs"
    )
    acknowledged = 0
    writing: asyncio.Task[object]
    for start in range(0, 100, 10):
        units = [(step(INSERT, f"l{n}", n), step(INSERT, f"r{n}", n)) for n in range(start, start + 10)]
        writing = asyncio.ensure_future(asyncio.gather(*(writer.write(*unit) for unit in units)))  # type: ignore[assignment]
        while not writing.done():
            ((left, right),) = await reader.fetch(halves)
            assert (left or 0) == (right or 0) >= acknowledged
            await asyncio.sleep(0)
        acknowledged = start + 10
    assert await reader.fetch(halves) == [(100, 100)]
    await writer.close()
    await reader.close()


async def test_sorting_is_by_code_point(db: Database):
    """Names come in one order wherever they are kept: capital letters first, then small ones, then the others."""
    await db.write(*(step(INSERT, key, 1) for key in ("é", "b", "_", "B", "a-1", "a1", "Z")))
    assert [key for key, _ in await db.fetch(ALL)] == ["B", "Z", "_", "a-1", "a1", "b", "é"]
