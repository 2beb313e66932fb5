"""The log and the counters, which follow the ledger: what is recorded is told, and nothing else is.

One canonical line for each event. Following the ledger rather than its writers, no path can record and forget to tell.
"""

from __future__ import annotations

import json

import structlog

from handfast.app.server.metrics import Metrics
from handfast.base.events import Event
from handfast.io.encoding import to_plain
from handfast.io.ledger import SqlLedger

_log = structlog.get_logger("handfast")
PAGE = 500


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
        while page := await self._ledger.page(self._told, PAGE):
            log = _log.bind()  # once a page: the proxy would make a logger for each line
            for seq, event in page:
                self._tell(event, log)
                self._told = seq

    def _tell(self, event: Event, log: structlog.typing.FilteringBoundLogger) -> None:
        plain = to_plain(event)
        log.info(event.kind, **{name: _short(value) for name, value in plain.items() if value})
        self._metrics.count(event)


def _short(value: object) -> object:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict | list) else value
