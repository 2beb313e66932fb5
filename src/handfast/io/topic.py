"""The latest value of something, and a way to wait for the next.

Decides who wakes when a value changes: all who wait, once a burst. Refuses to know what the value means, and keeps no
history: a reader who is slow skips what was replaced meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Topic(Generic[T]):
    """One value that changes. Belongs to one event loop; values are compared with ``==``."""

    def __init__(self, value: T) -> None:
        """Begin with ``value``."""
        self._value = value
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> T:
        """The latest value."""
        return self._value

    def publish(self, value: T) -> None:
        """Replace the value and wake those who wait. An equal value wakes nobody."""
        if value == self._value:
            return
        self._value = value
        self._wake()

    def close(self) -> None:
        """Wake those who wait, and let nobody wait any more: the program is about to end."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for_change(self, seen: T, timeout: float | None = None) -> T:  # noqa: ASYNC109 - running out is no error here
        """Wait until the value is not ``seen``, at most ``timeout`` seconds, and give the latest value.

        The value equals ``seen`` where the time ran out, or the topic was closed.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._value == seen and not self._closed:
                    await self._next_publish()
        except TimeoutError:
            pass
        return self._value

    async def subscribe(self) -> AsyncIterator[T]:
        """Give the value at once, and then every value that is new when the reader asks for it, until it is closed."""
        seen = self._value
        yield seen
        while not self._closed:
            seen = await self.wait_for_change(seen)
            yield seen

    async def _next_publish(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
