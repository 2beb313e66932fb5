"""The log and the counters, which follow the ledger: what is recorded is told, and nothing else is.

One canonical line for each event. Following the ledger rather than its writers, no path can record and forget to tell.
"""

from __future__ import annotations

from typing import Any

import msgspec

from handfast.app.logs import Fields, tell
from handfast.app.server.metrics import Metrics
from handfast.io.encoding import decode, decode_event
from handfast.io.ledger import SqlLedger

PAGE = 100  # events of 64 KiB at most, which go into the log at once


class Journal:
    """Tells of every event that the ledger gets from now on."""

    def __init__(self, ledger: SqlLedger, metrics: Metrics) -> None:
        """Begin after the newest event."""
        self._ledger, self._metrics = ledger, metrics
        self._told = ledger.event_head.value

    async def follow(self) -> None:
        """Tell of events as they come, for ever."""
        async for _ in self._ledger.event_head.subscribe():
            await self.catch_up()

    async def catch_up(self) -> None:
        """Tell of what is new."""
        while page := await self._ledger.bodies(self._told, PAGE):
            events = [decode_event(body) for _, body in page]
            tell(_fields(body) for _, body in page)
            for event in events:
                self._metrics.count(event)
            self._told, _ = page[-1]


def _fields(body: bytes) -> Fields:
    plain: Any = decode(body)
    return {name: _short(value) for name, value in plain.items() if value} | {"event": plain["kind"]}


def _short(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value
