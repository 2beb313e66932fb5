from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from handfast.io.clock import SystemClock
from tests.support.clock import START, FakeClock


async def test_the_systems_clock_gives_utc_and_sleeps():
    """Time is aware, in UTC, and goes on during a sleep."""
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.01)
    assert before.tzinfo is UTC
    assert clock.now() > before
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


async def test_the_fake_clock_wakes_sleepers_in_order_at_their_time():
    """Who sleeps again on the way is woken again."""
    clock, woken = FakeClock(), list[tuple[str, float]]()

    async def tick(name: str, seconds: float) -> None:
        while True:
            await clock.sleep(seconds)
            woken.append((name, (clock.now() - START).total_seconds()))

    tasks = [asyncio.create_task(tick("slow", 5)), asyncio.create_task(tick("fast", 2))]
    await clock.advance(5)
    assert woken == [("fast", 2), ("fast", 4), ("slow", 5)]
    assert clock.now() == START + timedelta(seconds=5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert clock.sleepers == 0


async def test_the_fake_clock_goes_on_alone():
    """With nobody asleep it moves, and it can be set back."""
    clock = FakeClock()
    await clock.advance(3600)
    assert clock.now() == START + timedelta(hours=1)
    clock.set(START)
    assert clock.now() == START
    await clock.sleep(0)
