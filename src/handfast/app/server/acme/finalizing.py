"""An order becomes a certificate; a certificate is fetched, revoked, and renewed in time.

Issuance is the platform's own, with the account as requester: the certificate carries the workload's SPIFFE id, the names that
were proved, and a life that the profile and the workload's entry allow. It is recorded before it is signed, as all are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from handfast.app.server.acme.answers import Told, json, moment, nothing_there, told
from handfast.app.server.acme.orders import Orders
from handfast.app.server.acme.requests import Asked, ours
from handfast.app.server.certificates import issued_or_refused
from handfast.app.server.platform import Platform
from handfast.app.server.revocations import revoked_event
from handfast.base.events import AcmeOrderFinalized
from handfast.base.refusal import BadInput, HandfastError, Refused
from handfast.base.windows import Window
from handfast.io.ids import new_event_id
from handfast.io.issuance import IssuedCertificate
from handfast.io.records import CertificateRecord, CertificateState
from handfast.trust.acme.accounts import Account
from handfast.trust.acme.csr import read_order_csr
from handfast.trust.acme.identifiers import check_granted
from handfast.trust.acme.keys import certificate_spki, from_base64url
from handfast.trust.acme.orders import Order, Status, begin_finalizing, finalized
from handfast.trust.acme.problems import AcmeError, Problem, problem_of
from handfast.trust.acme.profiles import life
from handfast.trust.acme.renewal import CertificateId, look_again, suggested_window
from handfast.trust.csr import CsrFacts
from handfast.trust.facts import fingerprint, pem
from handfast.trust.plan import LeafRequest
from handfast.trust.revocation import RevocationReason

_REASONS = {reason.code: reason for reason in RevocationReason}
_KNOWN = {CertificateState.ISSUED, CertificateState.REVOKED}


@dataclass(frozen=True, slots=True)
class Finalizing:
    """The endpoints that concern certificates."""

    platform: Platform
    orders: Orders

    async def finalize(self, request: Request) -> Response:
        """Make an order's certificate, from a CSR for exactly its names."""
        asked, account = await self.orders.desk.of_account(request)
        order, now = await self.orders.of(account, request), self.platform.clock.now()
        ours(begin_finalizing(order, now))
        der = from_base64url(asked.payload().get("csr"))
        csr = ours(read_order_csr(der, order.names, account.key, self.platform.slices.world.issuance))
        workload = self.platform.slices.world.workloads.get(account.name)
        ours(check_granted(order.names, account.granted(workload)))
        # Only one of many that come at once gets past this.
        begun = ours(await self.platform.ledger.change_acme_order(order.id, lambda one: begin_finalizing(one, now)))
        if begun is None:
            raise nothing_there("order")
        return self.orders.answer(asked.urls, await self._made(account, order, csr))

    async def certificate(self, request: Request) -> Response:
        """Give an order's certificate, with its chain."""
        _, account = await self.orders.desk.of_account(request)
        order = await self.orders.of(account, request)
        record = await self.platform.ledger.by_serial(order.serial) if order.serial else None
        issuer = self.platform.authorities.by_issuer(record.issuer) if record else None
        if record is None or record.state not in _KNOWN or issuer is None:
            raise nothing_there("certificate")
        return Response(pem(record.der) + issuer.chain_pem, media_type="application/pem-certificate-chain")

    async def revoke(self, request: Request) -> Response:
        """Revoke a certificate, for its account, for one that has proved all its names, or for its own key."""
        asked = await self.orders.desk.of_either(request)
        payload = asked.payload()
        der = from_base64url(payload.get("certificate"))
        record = await self.platform.ledger.by_fingerprint(fingerprint(der))
        if record is None or record.state not in _KNOWN or not await self._may_revoke(asked, record):
            raise told(AcmeError.UNAUTHORIZED, "this is no certificate that this key or account may revoke")
        await self.orders.desk.spend(asked)
        if record.state is CertificateState.REVOKED:
            raise told(AcmeError.ALREADY_REVOKED, "the certificate is revoked already")
        await self._revoke(record, _reason(payload.get("reason", 0)), asked)
        return Response(status_code=200)

    async def renewal(self, request: Request) -> Response:
        """Say when a certificate should be replaced (RFC 9773). Anyone may ask: the answer follows from the certificate."""
        self.orders.desk.urls(request)
        asked = CertificateId.parse(request.path_params["certificate"])
        record = await self.platform.ledger.by_serial(asked.serial)
        if record is None or record.issuer != asked.issuer or record.state not in _KNOWN:
            raise nothing_there("certificate")
        validity = Window(record.not_before, record.not_after)
        revoked = record.state is CertificateState.REVOKED
        window = suggested_window(validity, self.platform.clock.now(), revoked=revoked)
        said = {"suggestedWindow": {"start": moment(window.not_before), "end": moment(window.not_after)}}
        return json(said, retry_after=str(look_again(validity)))

    async def _made(self, account: Account, order: Order, csr: CsrFacts) -> Order:
        """Issue, and keep how it came out.

        Raises:
            Told: the platform refused. Unavailable: it could not; the order has failed in both cases.
        """
        try:
            issued = await self._issue(account, order, csr)
        except HandfastError as error:
            problem = _problem(error)
            await self._keep(order, problem)
            raise Told(problem) from error
        kept = await self._keep(order, issued.serial, self._event(account, order, issued.serial))
        await self.platform.rotation.issued(issued)
        await self._note_replacement(account, order, issued.serial)
        return kept

    async def _note_replacement(self, account: Account, order: Order, serial: str) -> None:
        """Note what the order replaces, where the same account had ordered that, too: another one may speak for its own alone."""
        if not order.replaces:
            return
        record = await self.platform.ledger.by_serial(CertificateId.parse(order.replaces).serial)
        if record and record.requester == account.requester:
            await self.platform.rotation.renewed(record.serial, record.not_after, serial)

    async def _issue(self, account: Account, order: Order, csr: CsrFacts) -> IssuedCertificate:
        world, identity = self.platform.slices.world, self.platform.trust_domain.id(account.name)
        workload = world.workloads.get(account.name)
        request = LeafRequest(
            identity=identity,
            csr=csr,
            dns=order.names,
            ttl=life(order.profile, workload, world.issuance.longest),
            profile=world.issuance,
            named_by_dns=True,
        )
        return await issued_or_refused(self.platform, request, account.requester)

    async def _keep(self, order: Order, outcome: str | Problem, *events: AcmeOrderFinalized) -> Order:
        kept = ours(
            await self.platform.ledger.change_acme_order(
                order.id, lambda one: finalized(one, outcome), lambda _: events
            )
        )
        return kept[0] if kept else order

    def _event(self, account: Account, order: Order, serial: str) -> AcmeOrderFinalized:
        now = self.platform.clock.now()
        return AcmeOrderFinalized(
            id=new_event_id(),
            at=now,
            account=account.id,
            order=order.id,
            name=account.name,
            dns=order.names,
            serial=serial,
        )

    async def _may_revoke(self, asked: Asked, record: CertificateRecord) -> bool:
        """Tell whether the request is of whom RFC 8555 section 7.6 names."""
        if asked.account is None:
            return asked.key.spki == certificate_spki(record.der)
        if record.requester == asked.account.requester:
            return True
        now = self.platform.clock.now()
        held = [order for _, order in await self.platform.ledger.acme_orders(asked.account.id, now)]
        proved = {name for order in held for name in _proved(order, now)}
        return record.name == asked.account.name and bool(record.dns) and set(record.dns) <= proved

    async def _revoke(self, record: CertificateRecord, reason: RevocationReason, asked: Asked) -> None:
        now = self.platform.clock.now()
        requester = asked.account.requester if asked.account else "its own key, by ACME"
        event = revoked_event(record, reason, requester, now)
        await self.platform.ledger.revoke([record.serial], now, reason.value, [event])
        await self.platform.slices.refresh_soon()


def _problem(error: HandfastError) -> Problem:
    if isinstance(error, Refused):
        return problem_of(error.refusal)
    if isinstance(error, BadInput):
        return Problem(AcmeError.BAD_CSR, str(error))
    return Problem(AcmeError.SERVER_INTERNAL, "the certificate could not be made now; begin another order", status=503)


def _proved(order: Order, now: datetime) -> list[str]:
    return [one.name for one in order.authorizations if one.status(now, order.expires) is Status.VALID]


def _reason(code: object) -> RevocationReason:
    if isinstance(code, bool) or not isinstance(code, int) or code not in _REASONS:
        known = ", ".join(str(number) for number in sorted(_REASONS))
        raise told(AcmeError.BAD_REVOCATION_REASON, f"the reasons are {known}")
    return _REASONS[code]
