"""Endpoints for agents: join, watch the slice, report."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from handfast.app.server.callers import AGENT_PREFIX, AGENTS, EVERYONE, OPERATORS, Caller, Role
from handfast.app.server.certificates import bounded_number, issue
from handfast.app.server.counting import counted
from handfast.app.server.discovery import newly_seen
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import (
    AgentReport,
    AgentRow,
    CertificateAnswer,
    JoinRequest,
    Nothing,
    TokenAnswer,
    TokenRequest,
)
from handfast.app.server.platform import Platform
from handfast.base.events import (
    AgentJoined,
    CertificateDiscovered,
    ConnectionEnded,
    Event,
    FindingRaised,
    HandshakeRefused,
    RequestDenied,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.encoding import decode_event
from handfast.io.ids import new_event_id
from handfast.trust.entries import refuse_agent
from handfast.trust.profile import LEAF

LONGEST_WAIT = 55
MOST_MORE = 1_000_000
CERTIFICATE_TTL = timedelta(hours=24)
_REPORTED = (HandshakeRefused, CertificateDiscovered, ConnectionEnded, RequestDenied, FindingRaised)


@dataclass(frozen=True, slots=True)
class Agents:
    """The endpoints that agents call, and those that let an operator see them."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/agents/tokens", handler=self.token, roles=OPERATORS,
                body=TokenRequest, answer=TokenAnswer, status=201,
            ),
            Endpoint(
                method="POST", path="/v1/agents/join", handler=self.join, roles=EVERYONE,
                body=JoinRequest, answer=CertificateAnswer, status=201,
            ),
            Endpoint(method="GET", path="/v1/agents/self/world", handler=self.watch, roles=AGENTS, query=("wait",)),
            Endpoint(
                method="POST", path="/v1/agents/self/report", handler=self.report, roles=AGENTS,
                body=AgentReport, answer=Nothing,
            ),
        )  # fmt: skip

    async def token(self, _: Caller, __: Request, body: TokenRequest) -> TokenAnswer:
        """Make a join token: it lets one agent join, once."""
        token = secrets.token_urlsafe(24)
        expires = self.platform.clock.now() + timedelta(seconds=body.ttl_seconds)
        await self.platform.ledger.add_join_token(token, expires)
        return TokenAnswer(token=token, expires_at=expires)

    async def join(self, _: Caller, __: Request, body: JoinRequest) -> CertificateAnswer:
        """Give an agent its first certificate, for a join token."""
        now = self.platform.clock.now()
        if refused := refuse_agent(body.name):  # before the token is used up
            raise Refused(refused)
        if not await self.platform.ledger.use_join_token(body.token, now):
            raise Refused(Refusal(Reason.TOKEN_NOT_VALID))
        identity = self.platform.trust_domain.id(f"{AGENT_PREFIX}{body.name}")
        joining = Caller(Role.NOBODY, f"join:{body.name}")
        answer = await issue(self.platform, joining, identity, body.csr, ttl=CERTIFICATE_TTL, own=LEAF)
        joined = AgentJoined(id=new_event_id(), at=now, agent=body.name, serial=answer.serial)
        await self.platform.ledger.add_agent(joined)
        return answer

    async def watch(self, caller: Caller, request: Request, __: None) -> Response:
        """Give the slice; with ``If-None-Match`` and ``wait`` (seconds), as soon as it is another one."""
        wait = bounded_number(request.query_params.get("wait"), "wait", 0, LONGEST_WAIT)
        if not await self.platform.ledger.agent_seen(caller.name, self.platform.clock.now()):
            raise Refused(Refusal(Reason.NOT_FOUND, {"agent": caller.name}))
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
        return Response(current.body, media_type="application/json", headers=headers)

    async def report(self, caller: Caller, _: Request, body: AgentReport) -> Nothing:
        """Take an agent's events, findings and counts."""
        events = [_reported(raw, caller) for raw in body.events]
        now = self.platform.clock.now()
        ledger = self.platform.ledger
        # Counts come last: an agent tells again what was refused or lost, and they alone would be kept twice.
        if not await self._state(caller, body, now):
            raise Refused(Refusal(Reason.NOT_FOUND, {"agent": caller.name}))
        if body.serving:
            await self.platform.rotation.serves(caller.name, frozenset(body.serving))
        known = self.platform.slices.world.hosts
        await ledger.note_staples(caller.name, {host: end for host, end in body.staples.items() if host in known})
        self.platform.rotation.told(events)
        await ledger.append(await newly_seen(ledger, events))
        counts = [counted(row, self.platform.slices.world.hosts) for row in body.traffic if row.count]
        await ledger.add_traffic(now, counts)
        for one in counts:
            self.platform.metrics.count_requests(caller.name, one.host, one.decision, one.count)
        return Nothing()

    async def _state(self, caller: Caller, body: AgentReport, now: datetime) -> bool:
        if body.acknowledged is None:
            return await self.platform.ledger.agent_seen(caller.name, now)
        return await self.platform.ledger.agent_reported(caller.name, now, body.acknowledged, body.findings)


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
    """Give all agents, and whether each serves the newest slice."""
    current = platform.slices.current.value
    newest = current.digest if current else ""
    return [
        AgentRow(
            name=agent.name,
            last_seen=agent.last_seen,
            acknowledged=agent.acknowledged,
            current=agent.acknowledged == newest,
            findings=list(agent.findings),
        )
        for agent in await platform.ledger.agents()
    ]
