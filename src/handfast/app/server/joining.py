"""Agents join: an operator makes a token, an agent comes with it.

Decides nothing of whom a token lets in: `handfast.trust.joining` does. Whoever joins under a name that was given before takes its place:
what the name had is revoked before the answer is given, so a name never has two holders for longer than that.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request

from handfast.app.server.callers import AGENT_PREFIX, EVERYONE, OPERATORS, Caller, Role
from handfast.app.server.certificates import issue
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import CertificateAnswer, JoinRequest, TokenAnswer, TokenRequest
from handfast.app.server.platform import Platform
from handfast.app.server.revocations import revoked_event
from handfast.base.events import AgentInvited, AgentJoined, AgentRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.ids import new_event_id
from handfast.io.ledger.enrolment import token_id
from handfast.trust.entries import refuse_agent
from handfast.trust.joining import Grant, Held, followed, refuse_name, refuse_token
from handfast.trust.profile import LEAF
from handfast.trust.revocation import RevocationReason

CERTIFICATE_TTL = timedelta(hours=24)
_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Joining:
    """The endpoints by which agents come to be."""

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
        )  # fmt: skip

    async def token(self, caller: Caller, _: Request, body: TokenRequest) -> TokenAnswer:
        """Make a join token: it lets one agent join, once."""
        name = body.name or ""
        if refused := refuse_agent(name):
            raise Refused(refused)
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), self.platform.clock.now()
        invited = AgentInvited(
            id=new_event_id(),
            at=now,
            grant=token_id(token),
            agent=name,
            expires_at=now + timedelta(seconds=body.ttl_seconds),
            requester=str(caller),
        )
        await self.platform.ledger.add_join_token(token, invited)
        return TokenAnswer(id=invited.grant, token=token, name=name, expires_at=invited.expires_at)

    async def join(self, _: Caller, __: Request, body: JoinRequest) -> CertificateAnswer:
        """Give an agent its first certificate, for a join token."""
        now = self.platform.clock.now()
        if refused := refuse_agent(body.name):  # before the token is used up
            raise Refused(refused)
        grant, given = await self._admit(body, now)
        joining = Caller(Role.NOBODY, f"join:{body.name}")
        identity = self.platform.trust_domain.id(f"{AGENT_PREFIX}{body.name}")
        try:
            answer = await issue(self.platform, joining, identity, body.csr, ttl=CERTIFICATE_TTL, own=LEAF)
        except (Refused, BadInput):
            if not given:
                await self.platform.ledger.free_agent_name(body.name, grant)
            raise
        await self._follow(body.name, answer.serial, now)
        joined = AgentJoined(
            id=new_event_id(), at=now, agent=body.name, serial=answer.serial, grant=grant.id, again=given
        )
        await self.platform.ledger.add_agent(joined)
        return answer

    async def _admit(self, body: JoinRequest, now: datetime) -> tuple[Grant, bool]:
        """Use the token up, and tell whether the name was given before.

        Raises:
            Refused: the token is no good, or not for this name.
        """
        ledger = self.platform.ledger
        grant = await ledger.use_join_token(body.token, now)
        if grant is None:
            raise Refused(Refusal(Reason.TOKEN_NOT_VALID))
        if refused := refuse_token(body.name, grant):
            raise await self._refused(body.name, grant, refused)
        given = await ledger.take_agent_name(body.name, grant)
        if refused := refuse_name(body.name, grant, given=given):
            raise await self._refused(body.name, grant, refused)
        return grant, given

    async def _refused(self, name: str, grant: Grant, refusal: Refusal) -> Refused:
        """Record who came with a good token and is not let in. The token is spent, so there is one such event a token at most."""
        event = AgentRefused(
            id=new_event_id(), at=self.platform.clock.now(), agent=name, grant=grant.id, reason=refusal.reason
        )
        await self.platform.ledger.append([event])
        return Refused(refusal)

    async def _follow(self, name: str, serial: str, now: datetime) -> None:
        """Revoke what the name had before the certificate ``serial``, until nothing is left: its holder may renew meanwhile.

        Raises:
            Refused: somebody joined under this name in the same moment, and later.
        """
        ledger = self.platform.ledger
        while True:
            live = {record.serial: record for record in await ledger.live_by_name(f"{AGENT_PREFIX}{name}", now)}
            ended = followed((Held(one.serial, one.requester) for one in live.values()), serial)
            if ended is None:
                raise Refused(Refusal(Reason.REVOKED, {"serial": serial}))
            if not ended:
                return
            events = [revoked_event(live[one], RevocationReason.SUPERSEDED, f"join:{name}", now) for one in ended]
            await ledger.revoke(ended, now, RevocationReason.SUPERSEDED.value, events)
            await self.platform.slices.refresh_soon()
