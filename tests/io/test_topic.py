import asyncio
import contextlib
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handfast.io.topic import Topic


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def collect(topic: Topic[Any], seen: list[Any]) -> None:
    async for value in topic.subscribe():
        seen.append(value)  # noqa: PERF401 - it never ends


@contextlib.asynccontextmanager
async def reading(topic: Topic[Any]):
    seen: list[Any] = []
    reader = asyncio.create_task(collect(topic, seen))
    await settle()
    try:
        yield seen
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def test_the_first_read_is_at_once():
    """A subscriber gets the value that is there, without a publish."""
    topic = Topic("first")
    async with reading(topic) as seen:
        assert seen == ["first"]


async def test_a_burst_is_one_change():
    """Values that were replaced before the reader came to them are skipped, and the last one is never."""
    topic = Topic(0)
    async with reading(topic) as seen:
        for value in range(1, 100):
            topic.publish(value)
        await settle()
        assert seen == [0, 99]


async def test_an_equal_value_wakes_nobody():
    """Publishing what is there already is a no-op."""
    topic = Topic((1, 2))
    async with reading(topic) as seen:
        topic.publish((1, 2))
        await settle()
        assert seen == [(1, 2)]


async def test_going_back_to_the_seen_value_is_no_change():
    """A reader who saw A does not wake for A, B, A in one burst, and still wakes for the next value."""
    topic = Topic("a")
    async with reading(topic) as seen:
        topic.publish("b")
        topic.publish("a")
        await settle()
        assert seen == ["a"]
        topic.publish("c")
        await settle()
        assert seen == ["a", "c"]


async def test_every_reader_gets_the_last_value():
    """All who wait are woken by one publish."""
    topic = Topic(0)
    waiting = [asyncio.create_task(topic.wait_for_change(0)) for _ in range(100)]
    await settle()
    topic.publish(7)
    assert await asyncio.gather(*waiting) == [7] * 100
    assert topic._waiters == set()


async def test_a_change_that_was_missed_is_given_at_once():
    """Waiting with a value that is no longer the latest does not wait."""
    topic = Topic(1)
    topic.publish(2)
    assert await topic.wait_for_change(1, timeout=0) == 2


async def test_time_that_ran_out_gives_the_seen_value():
    """Without a change the wait ends with the value that the caller had, and leaves nothing behind."""
    topic = Topic(1)
    assert await topic.wait_for_change(1, timeout=0.01) == 1
    assert topic._waiters == set()


async def test_a_cancelled_wait_leaves_nothing_behind():
    """Ten thousand readers that went away cost nothing afterwards, and do not disturb a publish."""
    topic = Topic(1)
    waiting = [asyncio.create_task(topic.wait_for_change(1, timeout=60)) for _ in range(1000)]
    await settle()
    assert len(topic._waiters) == 1000
    for task in waiting:
        task.cancel()
    topic.publish(2)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert topic._waiters == set()


async def test_cancellation_is_not_swallowed():
    """A wait that is cancelled raises, with a timeout set or not."""
    for timeout in (None, 60.0):
        task = asyncio.create_task(Topic(1).wait_for_change(1, timeout))
        await settle()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.booleans(), max_size=30))
def test_a_reader_ends_with_the_latest_value(values: list[int], pauses: list[bool]):
    """However publishes and reads interleave, no two values in a row are equal and the last one arrives."""

    async def scenario() -> None:
        topic = Topic(0)
        async with reading(topic) as seen:
            for number, value in enumerate(values):
                topic.publish(value)
                if number < len(pauses) and pauses[number]:
                    await settle()
            await settle()
            assert seen[-1] == topic.value
            assert all(one != other for one, other in itertools.pairwise(seen))

    asyncio.run(scenario())


async def test_closing_wakes_those_who_wait_and_ends_subscriptions():
    """Nobody waits on a closed topic: a waiter gets the value it has seen, and a subscription ends."""
    topic = Topic(1)
    waiting = asyncio.create_task(topic.wait_for_change(1))
    reading = asyncio.create_task(_collect(topic))
    await asyncio.sleep(0)
    topic.close()
    assert await asyncio.wait_for(waiting, 1) == 1
    assert (await asyncio.wait_for(reading, 1))[0] == 1
    assert await asyncio.wait_for(topic.wait_for_change(1), 1) == 1


async def _collect(topic: Topic[int]) -> list[int]:
    return [value async for value in topic.subscribe()]
