"""Orders, authorizations and challenges (RFC 8555 sections 7.4 and 7.5)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from handfast.app.server.acme.answers import (
    POLL_S,
    Urls,
    authorization_fields,
    challenge_fields,
    created,
    json,
    nothing_there,
    order_fields,
    told,
    waiting,
)
from handfast.app.server.acme.requests import Desk, ours
from handfast.app.server.acme.trials import Trials
from handfast.app.server.platform import Platform
from handfast.base.refusal import BadInput
from handfast.io.ids import new_event_id
from handfast.trust.acme.accounts import Account
from handfast.trust.acme.challenges import TOKEN_BYTES, ChallengeKind
from handfast.trust.acme.identifiers import check_granted, read_identifiers
from handfast.trust.acme.orders import STALLED, Order, Status, find, give_up, has, new_order
from handfast.trust.acme.problems import AcmeError
from handfast.trust.acme.profiles import DEFAULT_PROFILE, check_profile
from handfast.trust.acme.renewal import CertificateId

MOST_OPEN = 50
MOST_A_DAY = 1000
_PLACE = re.compile(r"[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Orders:
    """The endpoints that concern orders, up to their finalization."""

    platform: Platform
    desk: Desk
    trials: Trials

    async def create(self, request: Request) -> Response:
        """Begin an order."""
        asked, account = await self.desk.of_account(request)
        payload, now = asked.payload(), self.platform.clock.now()
        names = ours(read_identifiers(payload.get("identifiers")))
        profile = _profile(payload)
        if "notBefore" in payload or "notAfter" in payload:
            raise told(AcmeError.MALFORMED, "the times follow from the profile: choose one of those in the directory")
        ours(check_granted(names, account.granted(self.platform.slices.world.workloads.get(account.name))))
        replaces = await self._replaces(account, payload, names)
        await self._check_counts(account, now)
        bare = Order(
            id=new_event_id(), account=account.id, profile=profile, replaces=replaces, created=now, authorizations=()
        )
        order = new_order(bare, names, lambda: secrets.token_urlsafe(TOKEN_BYTES))
        await self.platform.ledger.add_acme_order(order)
        return created(order_fields(asked.urls, order, now), asked.urls.order(order))

    async def show(self, request: Request) -> Response:
        """Give an order."""
        asked, account = await self.desk.of_account(request)
        return self.answer(asked.urls, await self._revived(account, await self.of(account, request)))

    async def authorization(self, request: Request) -> Response:
        """Give an authorization, or give it up."""
        asked, account = await self.desk.of_account(request)
        order, now = await self.of(account, request), self.platform.clock.now()
        place = _place(request, order)
        if not asked.is_get and asked.payload().get("status") == "deactivated":
            outcome = ours(await self.platform.ledger.change_acme_order(order.id, lambda one: give_up(one, place, now)))
            order = outcome[0] if outcome else order
        order = await self._revived(account, order)
        fields = authorization_fields(asked.urls, order, place, now)
        return json(fields, **waiting(order.authorizations[place]))

    async def challenge(self, request: Request) -> Response:
        """Give a challenge, or begin to try it: the client says by an empty object that it is ready."""
        asked, account = await self.desk.of_account(request)
        order = await self.of(account, request)
        place, kind = _place(request, order), request.path_params["kind"]
        if not has(order, place, kind):
            raise nothing_there("challenge")
        challenge = find(order, place, ChallengeKind(kind))
        if not asked.is_get:
            asked.payload()
            order = ours(await self.trials.begin(account, order, place, challenge))
        order = await self._revived(account, order)
        fields = challenge_fields(asked.urls, order, place, find(order, place, challenge.kind))
        up = f'<{asked.urls.authorization(order, place)}>;rel="up"'
        return json(fields, link=up, **waiting(order.authorizations[place]))

    async def of(self, account: Account, request: Request) -> Order:
        """Find the order that the URL names, which is the account's own.

        Raises:
            Told: there is none.
        """
        order = await self.platform.ledger.acme_order(request.path_params["order"])
        if order is None or order.account != account.id:
            raise nothing_there("order")
        return order

    def answer(self, urls: Urls, order: Order) -> Response:
        """Describe an order as it is now."""
        now = self.platform.clock.now()
        wait = {"retry_after": str(POLL_S)} if order.status(now) is Status.PROCESSING else {}
        return json(order_fields(urls, order, now), location=urls.order(order), **wait)

    async def _revived(self, account: Account, order: Order) -> Order:
        """Begin anew what was being tried by a server that is gone."""
        now = self.platform.clock.now()
        for place, authorization in enumerate(order.authorizations):
            for challenge in authorization.challenges:
                if challenge.status is Status.PROCESSING and challenge.began and now >= challenge.began + STALLED:
                    order = ours(await self.trials.begin(account, order, place, challenge))
        return order

    async def _check_counts(self, account: Account, now: datetime) -> None:
        """Bound what one account makes us keep; it may be in wrong hands."""
        still_open, today = await self.platform.ledger.count_acme_orders(account.id, now)
        if still_open >= MOST_OPEN:
            raise told(
                AcmeError.RATE_LIMITED, f"an account has {MOST_OPEN} open orders at most; finish or give up some"
            )
        if today >= MOST_A_DAY:
            raise told(AcmeError.RATE_LIMITED, f"an account begins {MOST_A_DAY} orders a day at most")

    async def _replaces(self, account: Account, payload: Mapping[str, Any], names: tuple[str, ...]) -> str:
        """Check which certificate the order replaces: one of this workload, with a name in common, not replaced yet."""
        text = payload.get("replaces", "")
        if not isinstance(text, str):
            raise BadInput("replaces is a certificate's id as RFC 9773 section 4.1 has it", key="replaces")
        if not text:
            return ""
        asked = CertificateId.parse(text)
        record = await self.platform.ledger.by_serial(asked.serial)
        if record is None or record.issuer != asked.issuer or record.name != account.name:
            raise told(AcmeError.MALFORMED, "the certificate to be replaced is none of this account's")
        if not set(record.dns) & set(names):
            raise told(AcmeError.MALFORMED, "the order has no name in common with the certificate that it replaces")
        if await self.platform.ledger.acme_replaced(str(asked), self.platform.clock.now()):
            raise told(AcmeError.ALREADY_REPLACED, "another order replaces this certificate")
        return str(asked)


def _profile(payload: Mapping[str, Any]) -> str:
    profile = payload.get("profile", DEFAULT_PROFILE)
    if not isinstance(profile, str):
        raise BadInput("a profile is named by a text", key="profile")
    if refusal := check_profile(profile):
        ours(refusal)
    return profile


def _place(request: Request, order: Order) -> int:
    text = request.path_params["place"]
    if not _PLACE.fullmatch(text) or not has(order, int(text)):
        raise nothing_there("authorization")
    return int(text)
