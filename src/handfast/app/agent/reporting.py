"""What the agent tells the server: events from Envoy's log, counts from Envoy's statistics, findings, the slice in force.

A line of the log counts as read once the server has what it says, so nothing is lost while one of the two is away.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import structlog

from handfast.app.agent.findings import Findings
from handfast.app.agent.traffic import METRIC, Kind, grown, read_counts
from handfast.app.server.messages import AgentReport, TrafficRow
from handfast.base.events import Event
from handfast.base.refusal import BadInput, HandfastError, Refusal, Unavailable
from handfast.doctor.verdict import verdict
from handfast.envoy.access_log import read_row
from handfast.envoy.failures import FailureReport
from handfast.envoy.flood import Flood, counted
from handfast.envoy.newcomers import Newcomers
from handfast.io.encoding import encode, encode_event, to_plain
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.io.ports import Clock
from handfast.io.tail import Tail

_log = structlog.get_logger("handfast.agent")
MOST_EVENTS = 500
COUNT_EVERY_S = 2.0
RETRY_S = 1.0
MOST_FINDINGS_BYTES = 48 * 1024
MOST_SERVING = 100

Send = Callable[[AgentReport], Awaitable[None]]
InService = tuple[str, frozenset[str], Mapping[str, datetime]]
"""The slice in force by its digest, the host certificates by serial, and by host the end of the response that is stapled."""


@dataclass(slots=True)
class Known:
    """What the reader of the log knows of the slices so far.

    ``cas`` are the CA certificates (DER) that explain chains. ``partners_at`` are the hosts that trust other authorities, or once did:
    rows about connections of before come later.
    """

    cas: Sequence[bytes] = ()
    partners_at: frozenset[str] = frozenset()


class Reporter:
    """Reports for one agent."""

    def __init__(
        self,
        *,
        name: str,
        clock: Clock,
        send: Send,
        admin: EnvoyAdmin,
        log: Path,
        known: Known,
        findings: Findings,
    ) -> None:
        """Follow ``log`` from where it was left."""
        self._name, self._clock, self._send, self._admin, self._known = name, clock, send, admin, known
        self._tail = Tail(log, position_file=log.with_suffix(".position"))
        self._findings, self._flood, self._newcomers = findings, Flood(), Newcomers()
        self._counted: dict[Kind, int] = {}
        self._serving_told: frozenset[str] = frozenset()
        self._staples_told: dict[str, datetime] = {}
        self._telling = asyncio.Lock()

    async def follow_log(self) -> None:
        """Read Envoy's log for ever, and send what it says."""
        async for batch in self._tail:
            told = self._flood.thin(self._newcomers.among(batch))
            events = [counted(event, one) for one in told if (event := self._read(one.line))]
            for start in range(0, len(events), MOST_EVENTS):
                await self._deliver(events[start : start + MOST_EVENTS])
            if self._tail.full and self._tail.rotate():
                await self._reopen()

    def _read(self, line: bytes) -> Event | None:
        try:
            return read_row(
                line,
                gateway=self._name,
                explain=self._explain,
                event_id=_name_of(line),
                partners_at=self._known.partners_at,
            )
        except BadInput as error:
            _log.warning("row.unreadable", error=str(error))
            return None

    def _explain(self, report: FailureReport, offered_pem: str) -> Refusal:
        return verdict(report, offered_pem, self._known.cas, self._clock.now())

    async def _reopen(self) -> None:
        try:
            await self._admin.post("/reopen_logs")
        except Unavailable as error:
            _log.warning("log.reopen", error=str(error))

    async def count(self, in_force: Callable[[], InService]) -> None:
        """Send counts, findings and what is in force, every two seconds for ever; each report is a sign of life."""
        while True:
            await self._clock.sleep(COUNT_EVERY_S)
            await self.tell(*in_force())

    async def tell(
        self, acknowledged: str, serving: frozenset[str] = frozenset(), staples: Mapping[str, datetime] | None = None
    ) -> None:
        """Send one report: the slice in force, host certificates, and the ends of what is stapled to them, unless that is not known.

        What could not be sent goes with the next one.
        """
        async with self._telling:  # two at once would count the same requests twice
            await self._tell(acknowledged, serving, self._staples_told if staples is None else staples)

    async def _tell(self, acknowledged: str, serving: frozenset[str], staples: Mapping[str, datetime]) -> None:
        traffic, counted = await self._look()
        told = list(self._findings.untold)
        new = sorted(serving - self._serving_told)[:MOST_SERVING]
        ends = _changed(self._staples_told, staples)
        try:
            report = AgentReport(
                acknowledged=acknowledged,
                findings=_fitting(self._findings.standing),
                events=_written(told),
                traffic=traffic,
                serving=new,
                staples=ends,
            )
            await self._send(report)
        except HandfastError as error:
            _log.debug("report.failed", error=str(error))
            return
        self._counted = counted
        self._findings.told(told)
        self._serving_told = (self._serving_told & serving) | frozenset(new)
        self._staples_told = {host: end for host, end in (self._staples_told | ends).items() if end}

    async def _look(self) -> tuple[list[TrafficRow], dict[Kind, int]]:
        try:
            reply = await self._admin.get(f"/stats/prometheus?filter={METRIC.replace('_', '.', 1)}")
        except Unavailable:
            return [], self._counted
        # An answer without counters would read as an Envoy that was started again, and all be counted twice.
        return grown(self._counted, read_counts(reply.text)) if reply.status == HTTPStatus.OK else ([], self._counted)

    async def _deliver(self, events: Sequence[Event]) -> None:
        """Send events until they have arrived. Where the server refuses, the halves go alone: one bad event takes no other along."""
        try:
            await self._insist(AgentReport(events=_written(events)))
        except HandfastError as error:
            if len(events) == 1:
                _log.error("report.refused", id=events[0].id, error=str(error))
                return
            middle = len(events) // 2
            await self._deliver(events[:middle])
            await self._deliver(events[middle:])

    async def _insist(self, report: AgentReport) -> None:
        """Send a report, until the server has it or refuses it."""
        while True:
            try:
                await self._send(report)
            except Unavailable:
                await self._clock.sleep(RETRY_S)
            else:
                return

    def close(self) -> None:
        """Keep the place in the log."""
        self._tail.close()


def _changed(told: Mapping[str, datetime], staples: Mapping[str, datetime]) -> dict[str, datetime | None]:
    """Give what is new of the staples, as much as one report may carry; nothing for a host that has none any more."""
    hosts = [host for host in sorted({*told, *staples}) if told.get(host) != staples.get(host)]
    return {host: staples.get(host) for host in hosts[:MOST_SERVING]}


def _fitting(findings: Sequence[Event]) -> list[dict[str, Any]]:
    """Give the newest findings, as many as one report may carry."""
    sizes = accumulate(len(encode(finding)) for finding in reversed(findings))
    kept = findings[len(findings) - sum(size <= MOST_FINDINGS_BYTES for size in sizes) :]
    return [to_plain(finding) for finding in kept]


def _written(events: Sequence[Event]) -> list[msgspec.Raw]:
    return [msgspec.Raw(encode_event(event)) for event in events]


def _name_of(line: bytes) -> str:
    """Name an event by its row, so that one read twice is one event. Rows hold time, ports and request ids."""
    return base64.b32encode(hashlib.sha256(line).digest()[:16]).decode().rstrip("=").lower()
