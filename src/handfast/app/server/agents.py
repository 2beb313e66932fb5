"""Endpoints for agents: watch the slice, report.

Decides what an agent may report, and passes on to the ledger what its allowance has room for (`allowances`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from handfast.app.server.callers import AGENTS, Caller
from handfast.app.server.certificates import bounded_number
from handfast.app.server.counting import counted
from handfast.app.server.discovery import newly_seen
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import (
    AgentReport,
    AgentRow,
    Nothing,
)
from handfast.app.server.platform import Platform
from handfast.base.events import (
    CertificateDiscovered,
    ConnectionEnded,
    Event,
    FindingRaised,
    HandshakeRefused,
    RequestDenied,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io import off_loop
from handfast.io.encoding import decode_event
from handfast.io.ledger import AgentRecord

LONGEST_WAIT = 55
MOST_MORE = 1_000_000
_REPORTED = (HandshakeRefused, CertificateDiscovered, ConnectionEnded, RequestDenied, FindingRaised)


@dataclass(frozen=True, slots=True)
class Agents:
    """The endpoints that agents call, and those that let an operator see them."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(method="GET", path="/v1/agents/self/world", handler=self.watch, roles=AGENTS, query=("wait",)),
            Endpoint(
                method="POST", path="/v1/agents/self/report", handler=self.report, roles=AGENTS,
                body=AgentReport, answer=Nothing,
            ),
        )  # fmt: skip

    async def watch(self, caller: Caller, request: Request, __: None) -> Response:
        """Give the slice; with ``If-None-Match`` and ``wait`` (seconds), as soon as it is another one."""
        wait = bounded_number(request.query_params.get("wait"), "wait", 0, LONGEST_WAIT)
        if not await self.platform.ledger.agent_seen(caller.name, self.platform.clock.now()):
            raise Refused(Refusal(Reason.AGENT_FORGOTTEN, {"agent": caller.name}))
        known = request.headers.get("if-none-match", "").strip('"')
        topic = self.platform.slices.current
        current = topic.value
        if current and current.digest == known and wait:
            await topic.wait_for_change(current, wait)
            current = topic.value
        if current is None:
            return Response(status_code=204)
        headers = {"etag": f'"{current.digest}"'}
        if current.digest == known:
            return Response(status_code=304, headers=headers)
        return _whole(current.body, headers)

    async def report(self, caller: Caller, _: Request, body: AgentReport) -> Nothing:
        """Take an agent's events, findings and counts."""
        events = [_reported(raw, caller) for raw in body.events]
        now = self.platform.clock.now()
        ledger = self.platform.ledger
        # Counts come last: an agent tells again what was refused or lost, and they alone would be kept twice.
        if not await self._state(caller, body, now):
            raise Refused(Refusal(Reason.AGENT_FORGOTTEN, {"agent": caller.name}))
        if body.serving:
            await self.platform.rotation.serves(caller.name, frozenset(body.serving))
        known = self.platform.slices.world.hosts
        await ledger.note_staples(caller.name, {host: end for host, end in body.staples.items() if host in known})
        self.platform.rotation.told(events)
        sizes = [len(bytes(raw)) for raw in body.events]
        kept = self.platform.allowances.admit(caller.name, list(zip(events, sizes, strict=True)), now)
        await ledger.append(await newly_seen(ledger, kept))
        await self.platform.allowances.tell(ledger, now)
        counts = [counted(row, self.platform.slices.world.hosts) for row in body.traffic if row.count]
        await ledger.add_traffic(now, counts)
        for one in counts:
            self.platform.metrics.count_requests(caller.name, one.host, one.decision, one.count)
        return Nothing()

    async def _state(self, caller: Caller, body: AgentReport, now: datetime) -> bool:
        if body.acknowledged is None:
            return await self.platform.ledger.agent_seen(caller.name, now)
        return await self.platform.ledger.agent_reported(caller.name, now, body.acknowledged, body.findings)


def _whole(body: bytes, headers: dict[str, str]) -> Response:
    """Send a slice; a long one in pieces, as TLS would take it at once and let nobody else go on meanwhile."""
    if len(body) <= off_loop.LONG_BYTES:
        return Response(body, media_type="application/json", headers=headers)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), off_loop.LONG_BYTES):
            yield body[at : at + off_loop.LONG_BYTES]
            await asyncio.sleep(0)

    return StreamingResponse(
        pieces(), media_type="application/json", headers=headers | {"content-length": str(len(body))}
    )


def _reported(raw: msgspec.Raw, caller: Caller) -> Event:
    """Read an event, which must be of a kind that agents see, and of this agent. What else stands in it is dropped."""
    event = decode_event(bytes(raw))
    if not isinstance(event, _REPORTED):
        raise BadInput(f"an agent cannot report {event.kind}", key="events")
    source = event.source if isinstance(event, FindingRaised) else event.gateway
    if source != caller.name:
        raise BadInput("an agent reports for itself alone", key="events")
    if isinstance(event, HandshakeRefused) and not 0 <= event.more <= MOST_MORE:
        raise BadInput("no log has so many rows", key="events")
    return event


async def agent_rows(platform: Platform) -> list[AgentRow]:
    """Give all agents, whether each serves the newest slice, and why it cannot come for it."""
    current, now = platform.slices.current.value, platform.clock.now()
    newest = current.digest if current else ""
    return [
        AgentRow(
            name=agent.name,
            last_seen=agent.last_seen,
            acknowledged=agent.acknowledged,
            current=agent.acknowledged == newest,
            findings=list(agent.findings),
            fault=_fault(agent, now),
        )
        async for agent in _all_agents(platform)
    ]


async def _all_agents(platform: Platform) -> AsyncIterator[AgentRecord]:
    after = ""
    while page := await platform.ledger.agents(after=after):
        for agent in page:
            yield agent
        after = page[-1].name


def _fault(agent: AgentRecord, now: datetime) -> str:
    if agent.revoked:
        return Reason.AGENT_REVOKED.value
    return Reason.AGENT_EXPIRED.value if agent.ends and agent.ends <= now else ""
