"""Endpoints for enrolment tokens: an operator makes them, and takes them back. Devices use them over `est`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request

from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import (
    EnrolmentTokenAnswer,
    EnrolmentTokenRequest,
    EnrolmentWithdrawalAnswer,
    EnrolmentWithdrawalRequest,
)
from handfast.app.server.platform import Platform
from handfast.base.events import EnrolmentGranted, EnrolmentRevoked
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal, Refused
from handfast.io.ids import new_event_id
from handfast.io.ledger.enrolment import token_id
from handfast.trust.entries import Workload

_TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The endpoints that concern enrolment tokens."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/est/tokens", handler=self.enrolment_token, roles=OPERATORS,
                body=EnrolmentTokenRequest, answer=EnrolmentTokenAnswer, status=201,
            ),
            Endpoint(
                method="POST", path="/v1/est/withdrawals", handler=self.withdraw_enrolment, roles=OPERATORS,
                body=EnrolmentWithdrawalRequest, answer=EnrolmentWithdrawalAnswer,
            ),
        )  # fmt: skip

    async def enrolment_token(self, caller: Caller, _: Request, body: EnrolmentTokenRequest) -> EnrolmentTokenAnswer:
        """Make a token with which devices enrol as one workload, over EST."""
        entry_of(self.platform, body.name)
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), self.platform.clock.now()
        granted = EnrolmentGranted(
            id=new_event_id(),
            at=now,
            grant=token_id(token),
            name=body.name,
            uses=body.uses,
            expires_at=now + timedelta(seconds=body.ttl_seconds),
            requester=str(caller),
        )
        await self.platform.ledger.add_enrolment_token(token, granted)
        return EnrolmentTokenAnswer(
            id=granted.grant, token=token, name=body.name, uses=body.uses, expires_at=granted.expires_at
        )

    async def withdraw_enrolment(
        self, caller: Caller, _: Request, body: EnrolmentWithdrawalRequest
    ) -> EnrolmentWithdrawalAnswer:
        """Take back all enrolment tokens of one workload."""
        event = EnrolmentRevoked(id=new_event_id(), at=self.platform.clock.now(), name=body.name, requester=str(caller))
        return EnrolmentWithdrawalAnswer(withdrawn=await self.platform.ledger.withdraw_enrolment_tokens(event))


def entry_of(platform: Platform, name: str) -> Workload:
    """Give the entry of a name: who enrols gets what the world grants, and nothing without.

    Raises:
        Refused: the world has none.
    """
    entry = platform.slices.world.workloads.get(name)
    if entry is None:
        raise Refused(Refusal(Reason.ENTRY_NO_MATCH, {"name": ascii(name[:80])}))
    return entry
