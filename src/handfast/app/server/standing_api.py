"""The endpoint by which agents ask how a certificate of another authority stands.

Decides what is read of a question. Whether it is asked further, and of whom, is decided in `standings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from handfast.app.server.callers import AGENTS, Caller
from handfast.app.server.certificates import require_agent
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.platform import Platform
from handfast.app.server.standing_messages import StandingAnswer, StandingRequest
from handfast.trust.facts import pem_certificates


@dataclass(frozen=True, slots=True)
class StandingApi:
    """The endpoint by which agents ask."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operation."""
        return (
            Endpoint(
                method="POST", path="/v1/agents/self/standings", handler=self.ask, roles=AGENTS,
                body=StandingRequest, answer=StandingAnswer,
            ),
        )  # fmt: skip

    async def ask(self, caller: Caller, _: Request, body: StandingRequest) -> StandingAnswer:
        """Say how a certificate stands with its authority, which is asked by OCSP where that is not known."""
        await require_agent(self.platform, caller)
        leaf = pem_certificates(body.certificate)[0]
        known = await self.platform.standings.of(body.authority, leaf)
        return StandingAnswer(word=known.word, since=known.since, until=known.until, renew=known.renew)
