"""One certificate, from request to delivery: plan, lint, record, sign, compare, record, deliver.

Decides the order of the steps, which is the promise: what is signed was recorded before, what is delivered was recorded as
issued. Refuses to know who may ask (the caller) and what is allowed (`handfast.trust.plan`).

An exception leaves things as they are. Before the intent, nothing has happened. After it, the intent stays in the ledger:
nobody can tell whether the key was used (a network service may have signed and lost the answer), so it counts as
signed until somebody looks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from handfast.base.events import CertificateIssued, CertificateRefused
from handfast.base.refusal import Refusal
from handfast.io.authorities import Authority
from handfast.io.generations import Generations
from handfast.io.ids import new_event_id
from handfast.io.ports import Clock, Ledger, Signer
from handfast.io.records import CertificateRecord
from handfast.io.waiting import abreast
from handfast.trust import leaf
from handfast.trust.addresses import StatusSite
from handfast.trust.entries import Workload
from handfast.trust.facts import fingerprint, hex_serial, pem
from handfast.trust.lint import LintedPlan, compare, lint
from handfast.trust.plan import SERIAL_BYTES, LeafRequest, plan, serial_from


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A certificate, and what goes with it.

    ``serial`` is lower case hex. ``chain_pem`` is leaf and issuing CA, as a peer sends them; ``bundle_pem`` the roots, as a peer
    trusts them. ``event`` is what was recorded beside it. ``cut_short``: it ends with its issuer, sooner than was asked for.
    """

    serial: str
    der: bytes
    chain_pem: str
    bundle_pem: str
    event: CertificateIssued
    cut_short: bool


class Issuance:
    """Issues leaf certificates of the authority that is current. ``random`` gives as many random octets as it is asked for.

    ``status`` is where its revocations are published; certificates name it, where it is given.
    """

    def __init__(
        self,
        authority: Authority | Generations,
        ledger: Ledger,
        clock: Clock,
        random: Callable[[int], bytes] = secrets.token_bytes,
        *,
        status: StatusSite | None = None,
    ) -> None:
        """Keep what issuing needs."""
        self._authority = authority
        self._ledger = ledger
        self._clock = clock
        self._random = random
        self._status = status

    @property
    def names_status(self) -> bool:
        """Whether its certificates name a place to learn whether they are revoked."""
        return self._status is not None

    async def issue(
        self, request: LeafRequest, *, workload: Workload | None, requester: str
    ) -> IssuedCertificate | Refusal:
        """Issue a certificate, or say why not.

        ``workload`` is the identity's entry, where it has one; ``requester`` names who asked, for the record. A refusal that
        comes before the intent leaves no trace in the ledger: the caller records it with its own, such as a bad CSR's.

        Raises:
            Unavailable: the ledger or the signer cannot be used now.
        """
        now = self._clock.now()
        authority = self._authority.current  # one from plan to chain, whatever is switched meanwhile
        linted = self._linted(authority, request, workload, now)
        if isinstance(linted, Refusal):
            return linted
        intent = _intent(linted, requester, now)
        refusal = await self._ledger.record_intent(intent)
        if refusal:
            return refusal
        der = await sign(linted, authority.signer)
        await abreast()
        refusal = compare(der, linted)
        if refusal:
            return await self._failed(intent, der, refusal)
        return await self._issued(intent, der, authority, cut_short=linted.plan.cut_short)

    def _linted(
        self, authority: Authority, request: LeafRequest, workload: Workload | None, now: datetime
    ) -> LintedPlan | Refusal:
        serial = serial_from(self._random(SERIAL_BYTES))
        planned = plan(request, authority.issuer_facts, workload=workload, now=now, serial=serial, status=self._status)
        return planned if isinstance(planned, Refusal) else lint(leaf.tbs(planned), planned)

    async def _issued(
        self, intent: CertificateRecord, der: bytes, authority: Authority, *, cut_short: bool
    ) -> IssuedCertificate:
        event = CertificateIssued(
            id=new_event_id(self._random),
            at=self._clock.now(),
            serial=intent.serial,
            fingerprint=fingerprint(der),
            identity=intent.identity,
            dns=intent.dns,
            not_before=intent.not_before,
            not_after=intent.not_after,
            requester=intent.requester,
        )
        await self._ledger.record_issued(intent.serial, der, event)
        return IssuedCertificate(
            serial=intent.serial,
            der=der,
            chain_pem=pem(der) + authority.chain_pem,
            bundle_pem=authority.bundle_pem,
            event=event,
            cut_short=cut_short,
        )

    async def _failed(self, intent: CertificateRecord, der: bytes, refusal: Refusal) -> Refusal:
        """Record what was signed and is not what was planned: it exists, so its fingerprint must be known."""
        seen = Refusal(refusal.reason, {**refusal.evidence, "serial": intent.serial, "fingerprint": fingerprint(der)})
        event = CertificateRefused(
            id=new_event_id(self._random),
            at=self._clock.now(),
            name=intent.name,
            reason=seen.reason,
            evidence=dict(seen.evidence),
            requester=intent.requester,
        )
        await self._ledger.record_failed(intent.serial, event)
        return seen


async def sign(linted: LintedPlan, signer: Signer) -> bytes:
    """Sign what was linted, and nothing else; give the certificate (DER), not compared yet.

    Raises:
        Unavailable: the key cannot be used now.
    """
    return leaf.assemble(linted.tbs, await signer.sign(linted.tbs))


def _intent(linted: LintedPlan, requester: str, now: datetime) -> CertificateRecord:
    planned = linted.plan
    return CertificateRecord(
        serial=hex_serial(planned.serial),
        issuer=planned.issuer.key_id.hex(),
        identity=str(planned.identity),
        name=planned.identity.name,
        dns=planned.dns,
        not_before=planned.window.not_before,
        not_after=planned.window.not_after,
        requester=requester,
        tbs=linted.tbs,
        recorded_at=now,
    )
