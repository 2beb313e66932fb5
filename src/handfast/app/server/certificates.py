"""Endpoints for certificates: issue, renew, list, show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from starlette.requests import Request

from handfast.app.server.callers import HOLDERS, OPERATOR_PREFIX, OPERATORS, Caller, Role
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateList,
    CertificateRequest,
    CertificateRow,
    RenewRequest,
)
from handfast.app.server.platform import Platform
from handfast.base.events import CertificateRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.base.spiffe import SpiffeId
from handfast.io.ids import new_event_id
from handfast.io.issuance import IssuedCertificate
from handfast.io.ledger import CertificateQuery
from handfast.io.records import CertificateRecord, CertificateState
from handfast.io.waiting import abreast
from handfast.trust.csr import CsrFacts, open_csr
from handfast.trust.entries import DEFAULT_TTL, Workload
from handfast.trust.facts import CertificateFacts
from handfast.trust.facts import pem as pem_of
from handfast.trust.plan import LeafRequest
from handfast.trust.profile import BACKDATE, LEAF, Profile

PAGE = 500
NEWEST = 2**63 - 1
_NUMBER = re.compile(r"[0-9]{1,19}")  # longer ones are too costly to read
_RENEW_RESERVED = frozenset({Role.AGENT, Role.OPERATOR})  # a gateway's certificates follow the world alone


@dataclass(frozen=True, slots=True)
class Certificates:
    """The endpoints that concern certificates."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/certificates", handler=self.issue, roles=OPERATORS,
                body=CertificateRequest, answer=CertificateAnswer, status=201,
            ),
            Endpoint(
                method="POST", path="/v1/certificates/renew", handler=self.renew, roles=HOLDERS,
                body=RenewRequest, answer=CertificateAnswer, status=201,
            ),
            Endpoint(
                method="GET", path="/v1/certificates", handler=self.list_certificates, roles=OPERATORS,
                answer=CertificateList, query=("name", "state", "after", "limit"),
            ),
            Endpoint(
                method="GET", path="/v1/certificates/{serial}", handler=self.show, roles=OPERATORS, answer=CertificateRow
            ),
        )  # fmt: skip

    async def issue(self, caller: Caller, _: Request, body: CertificateRequest) -> CertificateAnswer:
        """Issue a certificate for a workload, from a CSR."""
        ttl = timedelta(seconds=body.ttl_seconds) if body.ttl_seconds else None
        name = f"{OPERATOR_PREFIX}{body.name}" if body.operator else body.name
        identity = self.platform.trust_domain.id(name)
        return await issue(
            self.platform, caller, identity, body.csr, dns=tuple(body.dns), ttl=ttl, own=LEAF if body.operator else None
        )

    async def renew(self, caller: Caller, _: Request, body: RenewRequest) -> CertificateAnswer:
        """Issue the next certificate to the holder of one, with the same names and life, as far as its entry still grants them."""
        held = caller.certificate
        if held is None or caller.identity is None:
            raise Refused(Refusal(Reason.CALLER_UNKNOWN, {"caller": str(caller)}))
        await require_recorded(self.platform, held)
        if caller.role is Role.AGENT:
            await require_agent(self.platform, caller)
        entry = self.platform.slices.world.workloads.get(caller.identity.name)
        dns = tuple(name for name in held.dns_sans if entry is None or name in entry.dns)
        own, life = caller.role in _RENEW_RESERVED, self._life(held, entry)
        most = life if own else min(life, self.platform.slices.world.issuance.longest)
        ttl = min(most, entry.ttl) if entry else most
        profile = LEAF if own else None
        renewed = await issue(self.platform, caller, caller.identity, body.csr, dns=dns, ttl=ttl, own=profile)
        # It may have been revoked meanwhile, by somebody who could not see its successor yet.
        await require_recorded(self.platform, held)
        await self.platform.rotation.renewed(held.serial, held.window.not_after, renewed.serial)
        if caller.role is Role.AGENT:
            await self.platform.ledger.agent_renewed(caller.name, renewed.serial, self.platform.clock.now())
        return renewed

    def _life(self, held: CertificateFacts, entry: Workload | None) -> timedelta:
        """Give the life of a certificate. That of one which ended with its issuer says nothing: the usual one comes back."""
        life = held.window.length - BACKDATE
        issuer = self.platform.authorities.by_issuer(held.aki)
        if issuer is None or held.window.not_after < issuer.issuer_facts.window.not_after:
            return life
        return max(life, entry.ttl if entry else DEFAULT_TTL)

    async def list_certificates(self, _: Caller, request: Request, __: None) -> CertificateList:
        """List the inventory, newest first."""
        query = request.query_params
        limit = bounded_number(query.get("limit"), "limit", PAGE, PAGE)
        now = self.platform.clock.now()
        after = bounded_number(query.get("after"), "after", 0, NEWEST)
        asked = _query(query.get("state", ""), now)
        page = await self.platform.ledger.list_certificates(
            replace(asked, name=query.get("name") or None, after=after, limit=max(limit, 1))
        )
        return CertificateList(certificates=[row(record, now) for record in page.records], next=page.next or 0)

    async def show(self, _: Caller, request: Request, __: None) -> CertificateRow:
        """Show one certificate."""
        record = await self.platform.ledger.by_serial(request.path_params["serial"].lower())
        if record is None:
            raise Refused(Refusal(Reason.NOT_FOUND, {"serial": request.path_params["serial"][:64]}))
        return row(record, self.platform.clock.now(), pem=True)


async def issue(
    platform: Platform,
    caller: Caller,
    identity: SpiffeId,
    csr: str,
    *,
    dns: tuple[str, ...] = (),
    ttl: timedelta | None = None,
    own: Profile | None = None,
) -> CertificateAnswer:
    """Issue a certificate of ``identity`` and record the outcome. A refusal is recorded, too.

    ``own`` is the profile of a certificate that the platform itself works with; without it the world's limits count.

    Raises:
        Refused: the request is not granted.
    """
    profile = own or platform.slices.world.issuance
    asked = await _read(csr.encode(), profile)
    if isinstance(asked, Refusal):
        raise await _refused(platform, identity, str(caller), asked)
    request = LeafRequest(identity=identity, dns=dns, ttl=ttl, csr=asked, reserved=own is not None, profile=profile)
    issued = await issued_or_refused(platform, request, str(caller))
    await platform.rotation.issued(issued)
    return answer(issued)


async def _read(csr: bytes, profile: Profile) -> CsrFacts | Refusal:
    await abreast()
    opened = open_csr(csr, profile)
    if isinstance(opened, Refusal):
        return opened
    await abreast()
    proved = opened.proved()
    await abreast()
    return proved


async def issued_or_refused(platform: Platform, request: LeafRequest, requester: str) -> IssuedCertificate:
    """Issue what is asked for, by the identity's entry. A refusal is recorded, too.

    Raises:
        Refused: the request is not granted.
    """
    workload = platform.slices.world.workloads.get(request.identity.name)
    outcome = await platform.issuance.issue(request, workload=workload, requester=requester)
    if isinstance(outcome, IssuedCertificate):
        return outcome
    if outcome.reason is Reason.ISSUANCE_MISMATCH:  # recorded with its serial already, as it was signed
        raise Refused(outcome)
    raise await _refused(platform, request.identity, requester, outcome)


async def require_recorded(platform: Platform, held: CertificateFacts) -> None:
    """Check that a certificate which a caller holds stands in the ledger as issued.

    Raises:
        Refused: it does not.
    """
    record = await platform.ledger.by_fingerprint(held.fingerprint)
    if record is None or record.state is not CertificateState.ISSUED:
        raise Refused(Refusal(Reason.REVOKED if record else Reason.CALLER_UNKNOWN, {"serial": held.serial}))


async def require_agent(platform: Platform, caller: Caller) -> None:
    """Check that an agent is one still: who was forgotten has a certificate for a while, and is to get nothing by it.

    Raises:
        Refused: it was forgotten.
    """
    if not await platform.ledger.agent_known(caller.name):
        raise Refused(Refusal(Reason.AGENT_FORGOTTEN, {"agent": caller.name}))


async def _refused(platform: Platform, identity: SpiffeId, requester: str, refusal: Refusal) -> Refused:
    event = CertificateRefused(
        id=new_event_id(),
        at=platform.clock.now(),
        name=identity.name,
        reason=refusal.reason,
        evidence=dict(refusal.evidence),
        requester=requester,
    )
    await platform.ledger.append([event])
    return Refused(refusal)


def answer(issued: IssuedCertificate) -> CertificateAnswer:
    """Give what the holder of a new certificate needs."""
    said = issued.event
    return CertificateAnswer(
        serial=issued.serial,
        identity=said.identity,
        dns=list(said.dns),
        not_before=said.not_before,
        not_after=said.not_after,
        chain=issued.chain_pem,
        bundle=issued.bundle_pem,
        cut_short=issued.cut_short,
    )


def row(record: CertificateRecord, now: datetime, *, pem: bool = False) -> CertificateRow:
    """Give an inventory row; its state counts the clock in."""
    expired = record.state is CertificateState.ISSUED and now >= record.not_after
    return CertificateRow(
        serial=record.serial,
        name=record.name,
        identity=record.identity,
        dns=list(record.dns),
        state="expired" if expired else record.state.value,
        not_before=record.not_before,
        not_after=record.not_after,
        fingerprint=record.fingerprint,
        requester=record.requester,
        issuer=record.issuer,
        revoked_at=record.revoked_at,
        revocation_reason=record.revocation_reason,
        certificate=pem_of(record.der) if pem and record.der else "",
    )


def bounded_number(text: str | None, key: str, default: int, most: int) -> int:
    """Read a count from a query.

    Raises:
        BadInput: it is no number, or out of bounds.
    """
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise BadInput(f"a number from 0 to {most} is needed", key=key)
    return int(text)


def _query(state: str, now: datetime) -> CertificateQuery:
    """Give the query for a state; ``issued`` and ``expired`` count the clock in."""
    if state == "expired":
        return CertificateQuery(state=CertificateState.ISSUED, expiring_before=now)
    if state == "issued":
        return CertificateQuery(state=CertificateState.ISSUED, expiring_after=now)
    try:
        return CertificateQuery(state=CertificateState(state) if state else None)
    except ValueError:
        raise BadInput(
            f"{state!r} is not a state", key="state", hint="issued, expired, revoked, failed or intended"
        ) from None
