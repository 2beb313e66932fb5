"""Accounts: made under an operator's binding, looked up, changed, closed (RFC 8555 section 7.3)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from handfast.app.server.acme.answers import Told, Urls, account_fields, created, json, nothing_there, told
from handfast.app.server.acme.operating import deactivate
from handfast.app.server.acme.requests import Asked, Desk, ours
from handfast.app.server.platform import Platform
from handfast.base.events import AcmeAccountCreated
from handfast.io.acme_keys import SECRET_BYTES
from handfast.io.ids import new_event_id
from handfast.trust.acme import jws
from handfast.trust.acme.accounts import Account, Binding, read_contact
from handfast.trust.acme.orders import Order
from handfast.trust.acme.problems import AcmeError, Problem

PAGE = 100
_CURSOR = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The endpoints that concern accounts."""

    platform: Platform
    desk: Desk

    async def create(self, request: Request) -> Response:
        """Make an account, or give the one that the key has."""
        asked = await self.desk.of_key(request)
        payload = asked.payload()
        held = await self.platform.ledger.acme_account_of(asked.key)
        if held:
            await self.desk.spend(asked)
            return _existing(asked.urls, held)
        if payload.get("onlyReturnExisting") is True:
            raise told(AcmeError.ACCOUNT_DOES_NOT_EXIST, "this key has no account")
        contact = ours(read_contact(payload.get("contact", [])))
        binding = await self._binding(asked, payload.get("externalAccountBinding"))
        await self.desk.spend(asked)
        account = _account(asked, binding, contact, self.platform.clock.now())
        if not await self.platform.ledger.add_acme_account(account, _created(account, request)):
            return await self._lost(asked)
        return created(account_fields(asked.urls, account), asked.urls.account(account))

    async def show(self, request: Request) -> Response:
        """Give an account, change its contacts, or close it."""
        asked, account = await self._own(request)
        if asked.is_get:
            return json(account_fields(asked.urls, account))
        payload = asked.payload()
        if payload.get("status") == "deactivated":
            await deactivate(self.platform, account, account.requester)
            return json(account_fields(asked.urls, replace(account, deactivated=True)))
        if "contact" in payload:
            contact = ours(read_contact(payload["contact"]))
            await self.platform.ledger.set_acme_contact(account.id, contact)
            account = replace(account, contact=contact)
        return json(account_fields(asked.urls, account))

    async def orders(self, request: Request) -> Response:
        """List an account's orders, a page at a time."""
        asked, account = await self._own(request)
        cursor = request.query_params.get("after", "0")
        if not _CURSOR.fullmatch(cursor):
            raise told(AcmeError.MALFORMED, "the cursor is one that this server gave")
        now = self.platform.clock.now()
        page = await self.platform.ledger.acme_orders(account.id, now, after=int(cursor), limit=PAGE)
        return json({"orders": [asked.urls.order(order) for _, order in page]}, **_next(asked.urls, account, page))

    async def change_key(self, request: Request) -> Response:
        """Give an account another key, which has to sign as well (RFC 8555 section 7.3.5)."""
        asked, account = await self.desk.of_account(request)
        inner = jws.read(asked.payload())
        url = asked.urls.account(account)
        new = ours(jws.verify_key_change(inner, account_url=url, old=account.key, url=asked.url))
        if not await self.platform.ledger.change_acme_key(account, new):
            holder = await self.platform.ledger.acme_account_of(new)
            place = {"location": asked.urls.account(holder)} if holder else {}
            raise Told(Problem(AcmeError.MALFORMED, "this key has an account already", status=409), **place)
        return json(account_fields(asked.urls, account))

    async def _own(self, request: Request) -> tuple[Asked, Account]:
        asked, account = await self.desk.of_account(request)
        if request.path_params["account"] != account.id:
            raise nothing_there("account")
        return asked, account

    async def _binding(self, asked: Asked, plain: object) -> Binding:
        """Check the external account binding. An unknown one and a wrong MAC are one answer, after the same work."""
        if not isinstance(plain, Mapping):
            raise told(
                AcmeError.EXTERNAL_ACCOUNT_REQUIRED, "an account needs a key that an operator makes: handfast acme key"
            )
        presented = jws.read(dict[str, Any](plain))
        found = await self.platform.ledger.acme_binding(presented.kid)
        mac = await self.platform.acme.mac_keys.unseal(found[0].id, found[1]) if found else None
        secret = mac or secrets.token_bytes(SECRET_BYTES)
        ours(jws.verify_binding(presented, secret, account=asked.key, url=asked.url))
        if found is None or not found[0].open(self.platform.clock.now()):
            raise told(AcmeError.UNAUTHORIZED, "the external account binding has ended, or was used")
        return found[0]

    async def _lost(self, asked: Asked) -> Response:
        """Answer who came at the same time as another: with the account that is there now, or that there is none to be had."""
        if held := await self.platform.ledger.acme_account_of(asked.key):
            return _existing(asked.urls, held)
        raise told(AcmeError.UNAUTHORIZED, "the external account binding has ended, or was used")


def _existing(urls: Urls, account: Account) -> Response:
    if account.deactivated:
        raise told(AcmeError.UNAUTHORIZED, "this key's account is deactivated", 401)
    return json(account_fields(urls, account), location=urls.account(account))


def _account(asked: Asked, binding: Binding, contact: tuple[str, ...], now: datetime) -> Account:
    return Account(
        id=new_event_id(),
        key=asked.key,
        name=binding.name,
        domains=binding.domains,
        binding=binding.id,
        created=now,
        contact=contact,
    )


def _created(account: Account, request: Request) -> AcmeAccountCreated:
    peer = f"{request.client.host}:{request.client.port}" if request.client else ""
    return AcmeAccountCreated(
        id=new_event_id(),
        at=account.created,
        account=account.id,
        binding=account.binding,
        name=account.name,
        peer=peer,
    )


def _next(urls: Urls, account: Account, page: list[tuple[int, Order]]) -> dict[str, str]:
    if len(page) < PAGE:
        return {}
    return {"link": f'<{urls.account(account)}/orders?after={page[-1][0]}>;rel="next"'}
