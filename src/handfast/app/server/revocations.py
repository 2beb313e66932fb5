"""Endpoints for revocation: by serial or name at once, or of all that a selector means, in batches.

Decides what a selector means in the ledger's words. Each batch is one unit with one event a certificate: a caller that is cut
off asks again, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from starlette.requests import Request

from handfast.access.patterns import parse_pattern
from handfast.app.server.callers import AGENT_PREFIX, OPERATORS, Caller
from handfast.app.server.certificates import row
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.inventory_messages import BatchAnswer, BatchRequest, Selected, SelectorRequest
from handfast.app.server.messages import CertificateRow, RevocationAnswer, RevocationRequest
from handfast.app.server.platform import Platform
from handfast.app.server.unrecorded import unrecorded
from handfast.base.events import CertificateRevoked
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.ids import new_event_id
from handfast.io.ledger import Selector
from handfast.io.records import CertificateRecord, CertificateState
from handfast.trust.revocation import RevocationReason

SHOWN = 500
_FIELDS = ("serial", "fingerprint", "identity", "agent", "issuer")
_FOREIGN = "only its own authority can revoke its certificates; here, take it out of the hosts' clients.trust"
_NO_HOLD = "what was revoked stays revoked: gateways and lists would have to forget it again, everywhere at once"


@dataclass(frozen=True, slots=True)
class Revocations:
    """The endpoints that revoke."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/revocations", handler=self.revoke, roles=OPERATORS,
                body=RevocationRequest, answer=RevocationAnswer,
            ),
            Endpoint(
                method="POST", path="/v1/revocations/selected", handler=self.select, roles=OPERATORS,
                body=SelectorRequest, answer=Selected,
            ),
            Endpoint(
                method="POST", path="/v1/revocations/batches", handler=self.revoke_batch, roles=OPERATORS,
                body=BatchRequest, answer=BatchAnswer,
            ),
        )  # fmt: skip

    async def revoke(self, caller: Caller, _: Request, body: RevocationRequest) -> RevocationAnswer:
        """Revoke one certificate by serial, or all live ones of a name, until there is none: its holder may renew meanwhile."""
        reason, now = revocation_reason(body.reason), self.platform.clock.now()
        targets, answer = await self._targets(body, now), RevocationAnswer(revoked=[])
        while targets:
            revoked, answer.late = await self._revoke(targets, reason, caller, now)
            answer.revoked += revoked
            targets = await self.platform.ledger.live_by_name(body.name, now) if body.name else []
        return answer

    async def select(self, _: Caller, __: Request, body: SelectorRequest) -> Selected:
        """Tell which live certificates a selector means now, and change nothing."""
        revocation_reason(body.reason)  # what would be refused later is refused before anybody is asked
        now, ledger = self.platform.clock.now(), self.platform.ledger
        selector = self._selector(body)
        found = await ledger.selected(selector, now, SHOWN)
        if not found and (lost := await self._unrecorded(body, now)):
            return Selected(count=1, certificates=[row(lost, now)])
        if not found:
            raise Refused(await self._why_none(body))
        return Selected(
            count=await ledger.count_selected(selector, now), certificates=[row(record, now) for record in found]
        )

    async def _unrecorded(self, body: SelectorRequest, now: datetime) -> CertificateRecord | None:
        """Give what the ledger has no record of, and can be revoked all the same; not what it knows to be revoked or ended."""
        ledger = self.platform.ledger
        if body.serial and await ledger.by_serial(body.serial):
            return None
        if body.fingerprint and await ledger.by_fingerprint(body.fingerprint):
            return None
        found = await unrecorded(self.platform, body)
        return found if found and now < found.not_after else None

    async def _why_none(self, body: SelectorRequest) -> Refusal:
        ledger = self.platform.ledger
        known = await (ledger.by_serial(body.serial) if body.serial else ledger.by_fingerprint(body.fingerprint))
        if known is None:
            return Refusal(Reason.NOT_FOUND, {name: getattr(body, name) for name in _FIELDS if getattr(body, name)})
        gone = Reason.ALREADY_REVOKED if known.state is CertificateState.REVOKED else Reason.CERT_EXPIRED
        return Refusal(gone, {"serial": known.serial})

    async def revoke_batch(self, caller: Caller, _: Request, body: BatchRequest) -> BatchAnswer:
        """Revoke the next certificates that a selector means; the caller's own comes last, so that it can ask again."""
        reason, now, ledger = revocation_reason(body.reason), self.platform.clock.now(), self.platform.ledger
        selector = self._selector(body)
        own = caller.certificate.fingerprint if caller.certificate else ""
        found = await ledger.selected(selector, now, body.limit, own)
        if not found and (lost := await self._unrecorded(body, now)):
            revoked, late = await self._revoke_unrecorded(lost, reason, caller, now)
            return BatchAnswer(revoked=revoked, left=0, late=late)
        revoked, late = await self._revoke(found, reason, caller, now)
        return BatchAnswer(revoked=revoked, left=await ledger.count_selected(selector, now), late=late)

    async def _revoke(
        self, targets: Sequence[CertificateRecord], reason: RevocationReason, caller: Caller, now: datetime
    ) -> tuple[list[CertificateRow], str]:
        events = [revoked_event(record, reason, str(caller), now) for record in targets]
        changed = set(await self.platform.ledger.revoke([r.serial for r in targets], now, reason.value, events))
        late = await self.platform.slices.refresh_soon()
        done = [
            replace(record, state=CertificateState.REVOKED, revoked_at=now, revocation_reason=reason.value)
            for record in targets
            if record.serial in changed
        ]
        return [row(record, now) for record in done], late

    async def _revoke_unrecorded(
        self, lost: CertificateRecord, reason: RevocationReason, caller: Caller, now: datetime
    ) -> tuple[list[CertificateRow], str]:
        event = revoked_event(lost, reason, str(caller), now)
        done = await self.platform.ledger.revoke_unrecorded(lost, reason.value, event)
        late = await self.platform.slices.refresh_soon()
        gone = replace(lost, state=CertificateState.REVOKED, revoked_at=now, revocation_reason=reason.value)
        return [row(gone, now)] if done else [], late

    async def _targets(self, body: RevocationRequest, now: datetime) -> list[CertificateRecord]:
        if bool(body.serial) == bool(body.name):
            raise BadInput("name exactly one of serial and name", key="serial")
        if body.serial:
            return [await self._by_serial(body.serial)]
        found = await self.platform.ledger.live_by_name(body.name, now)
        if not found:
            raise Refused(Refusal(Reason.NOT_FOUND, {"name": body.name}))
        return found

    async def _by_serial(self, serial: str) -> CertificateRecord:
        record = await self.platform.ledger.by_serial(serial)
        if record and record.state is CertificateState.REVOKED:
            raise Refused(Refusal(Reason.ALREADY_REVOKED, {"serial": serial}))
        if record is None:
            raise Refused(Refusal(Reason.NOT_FOUND, {"serial": serial}))
        return record

    def _selector(self, body: SelectorRequest) -> Selector:
        given = [name for name in _FIELDS if getattr(body, name)]
        if len(given) != 1:
            raise BadInput(f"name exactly one of {', '.join(_FIELDS)}", key=given[1] if given else "identity")
        own = self.platform.trust_domain
        if body.agent:
            identity = own.id(f"{AGENT_PREFIX}{body.agent}")
            return Selector(requesters=(str(identity), f"join:{body.agent}"))
        if body.identity:
            pattern = parse_pattern(body.identity, own=own)
            if pattern.trust_domain != own:
                raise BadInput(f"{pattern.trust_domain} is another trust domain", key="identity", hint=_FOREIGN)
            return Selector(name=pattern.name, prefix=pattern.prefix)
        return Selector(serial=body.serial, issuer=body.issuer, fingerprint=body.fingerprint)


def revocation_reason(text: str) -> RevocationReason:
    """Read one of the reasons of RFC 5280 section 5.3.1.

    Raises:
        BadInput: it is none, or one that is not given here.
    """
    try:
        return RevocationReason(text)
    except ValueError:
        known = f"one of {', '.join(reason.value for reason in RevocationReason)}"
    if text in {"certificateHold", "removeFromCRL"}:
        raise BadInput(f"{text} is not given here", key="reason", hint=f"{_NO_HOLD}; {known}")
    raise BadInput(f"{text!r} is not a revocation reason", key="reason", hint=known)


def revoked_event(
    record: CertificateRecord, reason: RevocationReason, requester: str, now: datetime
) -> CertificateRevoked:
    """Make the event of a certificate's revocation."""
    return CertificateRevoked(
        id=new_event_id(),
        at=now,
        serial=record.serial,
        fingerprint=record.fingerprint,
        identity=record.identity,
        crl_reason=reason.value,
        requester=requester,
    )
