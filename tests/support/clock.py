"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class _Sleeper:
    """Somebody who waits, and until when."""

    until: datetime
    woken: asyncio.Future[None]


class FakeClock:
    """The `Clock` of tests: `advance` moves the time and wakes, in order, whoever's sleep is over."""

    def __init__(self, now: datetime = START) -> None:
        """Stand at ``now``."""
        self._now = now
        self._sleepers: list[_Sleeper] = []
        self._tasks: list[asyncio.Task[object] | None] = []

    def now(self) -> datetime:
        """Give the time that was set last."""
        return self._now

    def sleep(self, seconds: float) -> Coroutine[None, None, None]:
        """Wait until the clock was moved that far from where it stands at this call.

        No time at all is one turn of the loop, as it is in real life.
        """
        return self._sleep(self._now + timedelta(seconds=seconds))

    async def _sleep(self, until: datetime) -> None:
        if until <= self._now:
            await asyncio.sleep(0)
            return
        sleeper = _Sleeper(until, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        self._tasks.append(task := asyncio.current_task())
        try:
            await sleeper.woken
        finally:
            self._sleepers.remove(sleeper)
            self._tasks.remove(task)

    @property
    def sleepers(self) -> int:
        """How many wait."""
        return len(self._sleepers)

    def sleeps(self, work: str) -> bool:
        """Tell whether a task of this name, such as ``Kept.keep``, waits."""
        return any(task and getattr(task.get_coro(), "__qualname__", "") == work for task in self._tasks)

    async def advance(self, seconds: float) -> None:
        """Move the clock, stopping at the end of each sleep on the way, so that who wakes sees the time it slept for."""
        end = self._now + timedelta(seconds=seconds)
        await _settle()
        while due := [one for one in self._sleepers if one.until <= end and not one.woken.done()]:
            first = min(due, key=lambda one: one.until)
            self._now = max(self._now, first.until)
            first.woken.set_result(None)
            await _settle()
        self._now = end

    def shift(self, step: timedelta) -> None:
        """Set the time, and let everybody sleep on for as long as they would have: a machine's timers do not follow its clock."""
        self._now += step
        for one in self._sleepers:
            one.until += step

    def set(self, now: datetime) -> None:
        """Set the time without waking anybody, also backwards, as an administrator would."""
        self._now = now


async def _settle() -> None:
    """Let whoever can run do so; a woken task may take a few turns until it sleeps again."""
    for _ in range(10):
        await asyncio.sleep(0)
