"""Hearing of other processes' commits: PostgreSQL's ``LISTEN``.

Decides when there may be something new: at a notification, after the connection was away, and every few seconds, as a
connection can be dead without anybody being told. A notification carries nothing: who hears one reads what counts. Each ledger has a
channel of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from handfast.io.database import Heard
from handfast.io.postgres_session import Address, Session, connect
from handfast.io.schemas import channel

LOOK_SECONDS = 15.0
AGAIN_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)


class Hearing:
    """One listening connection, opened anew whenever it ends."""

    def __init__(self, address: Address, heard: Heard, own_pid: Callable[[], int]) -> None:
        """Begin at once. ``own_pid`` is the server's process behind our own writer: what that wrote is known here."""
        self._address, self._heard, self._own_pid = address, heard, own_pid
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]

    def suspect(self) -> None:
        """Look once, without having heard anything: our own writer may have written and not have been told."""
        self._news.set()

    async def stop(self) -> None:
        """Hear no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._heard()
            except Exception:  # noqa: BLE001 - whatever it was, a server that hears nothing more would be worse
                await asyncio.sleep(AGAIN_SECONDS[-1])
                self._news.set()

    async def _listen(self) -> None:
        tries = 0
        while True:
            with contextlib.suppress(Exception):  # the driver has errors of every kind for a session that is ended
                session, lost = await connect(self._address), asyncio.Event()
                try:
                    session.add_termination_listener(lambda _, lost=lost: lost.set())
                    await session.add_listener(channel(self._address.schema), self._notified)
                    self._news.set()  # what was committed before this moment was not heard
                    tries = 0
                    await self._until(lost, session)
                finally:
                    session.terminate()
            await asyncio.sleep(AGAIN_SECONDS[min(tries, len(AGAIN_SECONDS) - 1)])
            tries += 1

    def _notified(self, _session: Session, pid: int, _channel: str, _payload: object) -> None:
        if pid != self._own_pid():
            self._news.set()

    async def _until(self, lost: asyncio.Event, session: Session) -> None:
        """Wait until the connection has ended.

        Raises:
            Exception: one of the driver's; it had, and nobody had told.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                # Not wait_for: up to Python 3.11 it can lose a cancellation that comes at the same moment.
                async with asyncio.timeout(LOOK_SECONDS):
                    await lost.wait()
                return
            await session.execute("select 1")
            self._news.set()
