"""ACME's accounts, the bindings that let them in, their orders, and the nonces that were used.

Decides that a binding lets in as many accounts as it says, however many come at once; that an order changes from the state
that was looked at, or not at all; that a nonce works once, whichever server it reaches. Refuses to know what an order's
states mean: `handfast.trust.acme.orders` does.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from handfast.base.events import AcmeAccountCreated, AcmeAccountDeactivated, AcmeBindingCreated, Event
from handfast.base.refusal import Unavailable
from handfast.io.database import Conflict, Row, step
from handfast.io.encoding import decode, encode, from_plain
from handfast.io.ledger.events import MAX_BATCH, Events, bounded, from_micros, to_micros
from handfast.trust.acme.accounts import Account, Binding
from handfast.trust.acme.keys import AccountKey
from handfast.trust.acme.orders import ORDER_LIFE, Order, Status
from handfast.trust.acme.problems import Problem

Change = Callable[[Order], Order | Problem]
Told = Callable[[Order], Sequence[Event]]

_TRIES = 16
_ACCOUNT = "select id, jwk, name, domains, binding, created_at, contact, deactivated_at from acme_accounts"
_BINDING = "select id, name, domains, accounts, expires_at, mac from acme_bindings"
_LIVE = "(outcome = 'valid' or (outcome = '' and expires_at > $2))"


class Acme(Events):
    """What ACME needs to be remembered."""

    async def acme_secret(self, name: str, size: int) -> bytes:
        """Give ``size`` random bytes that are the same for all servers of this database, made when first asked for."""
        sql = "insert into meta (key, value) values ($1, $2) on conflict (key) do nothing"
        await self._db.write(step(sql, f"acme.{name}", secrets.token_hex(size)))
        ((value,),) = await self._db.fetch("select value from meta where key = $1", f"acme.{name}")
        return bytes.fromhex(value)

    # Nonces

    async def use_acme_nonce(self, nonce: str, expires: datetime) -> bool:
        """Use a nonce up, and tell whether it was unused."""
        sql = "insert into acme_nonces (nonce, expires_at) values ($1, $2)"
        try:
            await self._db.write(step(sql, nonce, to_micros(expires)))
        except Conflict:
            return False
        return True

    # Bindings

    async def add_acme_binding(self, binding: Binding, mac: bytes, event: AcmeBindingCreated) -> None:
        """Keep a new binding. ``mac`` is its MAC key as it shall be kept."""
        sql = """insert into acme_bindings (id, name, domains, mac, accounts, created_at, expires_at, requester)
            values ($1, $2, $3, $4, $5, $6, $7, $8)"""
        times = to_micros(event.at), to_micros(binding.expires)
        row = (binding.id, binding.name, json.dumps(binding.domains), mac, binding.accounts, *times, event.requester)
        await self._commit(step(sql, *row), events=[event])

    async def acme_binding(self, binding_id: str) -> tuple[Binding, bytes] | None:
        """Find a binding, and its MAC key as it was kept."""
        row = await self._db.one(f"{_BINDING} where id = $1", binding_id)
        return (_binding(row), row[5]) if row else None

    async def acme_bindings(self, limit: int = MAX_BATCH) -> list[Binding]:
        """Give the bindings, those that end last first.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = f"{_BINDING} order by expires_at desc, id limit $1"
        return [_binding(row) for row in await self._db.fetch(sql, bounded(limit))]

    # Accounts

    async def add_acme_account(self, account: Account, event: AcmeAccountCreated) -> bool:
        """Keep a new account and count its binding down, and tell whether that could be done.

        It cannot where the binding lets nobody in any more, or the key has an account already.
        """
        count = """update acme_bindings set accounts = accounts - 1, mac = case when accounts = 1 then $2 else mac end
            where id = $1 and accounts > 0 and expires_at > $3"""
        sql = """insert into acme_accounts (id, thumbprint, jwk, name, domains, binding, contact, created_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8)"""
        key, lists = account.key, (json.dumps(account.domains), account.binding, json.dumps(account.contact))
        row = (account.id, key.thumbprint, key.canonical, account.name, *lists, to_micros(account.created))
        used = step(count, account.binding, b"", to_micros(account.created), expect=1)
        try:
            await self._commit(used, step(sql, *row), events=[event])
        except Conflict:
            return False
        return True

    async def acme_account(self, account_id: str) -> Account | None:
        """Find an account by its id, deactivated ones too."""
        row = await self._db.one(f"{_ACCOUNT} where id = $1", account_id)
        return _account(row) if row else None

    async def acme_account_of(self, key: AccountKey) -> Account | None:
        """Find the account of a key, deactivated ones too."""
        row = await self._db.one(f"{_ACCOUNT} where thumbprint = $1", key.thumbprint)
        return _account(row) if row else None

    async def acme_accounts(self, limit: int = MAX_BATCH) -> list[Account]:
        """Give the accounts, newest first.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = f"{_ACCOUNT} order by created_at desc, id limit $1"
        return [_account(row) for row in await self._db.fetch(sql, bounded(limit))]

    async def set_acme_contact(self, account_id: str, contact: Sequence[str]) -> None:
        """Change an account's contacts."""
        sql = "update acme_accounts set contact = $2 where id = $1"
        await self._db.write(step(sql, account_id, json.dumps(contact)))

    async def deactivate_acme_account(self, event: AcmeAccountDeactivated) -> bool:
        """Close an account, for good, and tell whether it was open."""
        sql = "update acme_accounts set deactivated_at = $2 where id = $1 and deactivated_at is null"
        try:
            await self._commit(step(sql, event.account, to_micros(event.at), expect=1), events=[event])
        except Conflict:
            return False
        return True

    async def change_acme_key(self, account: Account, new: AccountKey) -> bool:
        """Give an account another key, and tell whether that could be done: another account may have it."""
        sql = "update acme_accounts set thumbprint = $2, jwk = $3 where id = $1 and thumbprint = $4"
        changed = (account.id, new.thumbprint, new.canonical, account.key.thumbprint)
        try:
            await self._db.write(step(sql, *changed, expect=1))
        except Conflict:
            return False
        return True

    # Orders

    async def add_acme_order(self, order: Order) -> None:
        """Keep a new order."""
        sql = """insert into acme_orders (id, account, body, version, outcome, replaces, expires_at)
            values ($1, $2, $3, 0, '', $4, $5)"""
        row = (order.id, order.account, encode(order).decode(), order.replaces, to_micros(order.expires))
        await self._db.write(step(sql, *row))

    async def acme_order(self, order_id: str) -> Order | None:
        """Find an order."""
        row = await self._db.one("select body from acme_orders where id = $1", order_id)
        return _order(row[0]) if row else None

    async def change_acme_order(
        self, order_id: str, change: Change, events: Told = lambda _: ()
    ) -> tuple[Order, bool] | Problem | None:
        """Change an order as ``change`` says: it gets the order as it is, and is asked again where another was faster.

        Returns:
            The order, and whether this call changed it; ``change``'s problem; or None where there is no such order.

        Raises:
            Unavailable: others changed the same order again and again.
        """
        sql = "update acme_orders set body = $3, version = version + 1, outcome = $4 where id = $1 and version = $2"
        for _ in range(_TRIES):
            row = await self._db.one("select body, version from acme_orders where id = $1", order_id)
            if row is None:
                return None
            before = _order(row[0])
            after = change(before)
            if isinstance(after, Problem) or after == before:
                return after if isinstance(after, Problem) else (after, False)
            update = step(sql, order_id, row[1], encode(after).decode(), _outcome(after), expect=1)
            try:
                await self._commit(update, events=events(after))
            except Conflict:
                continue
            return after, True
        raise Unavailable("others change the same order", hint="try again")

    async def count_acme_orders(self, account_id: str, now: datetime) -> tuple[int, int]:
        """Count an account's orders that may still change, and all that it began within the life of one."""
        sql = """select sum(case when outcome = '' then 1 else 0 end), count(*) from acme_orders
            where account = $1 and expires_at > $2"""
        ((still_open, all_),) = await self._db.fetch(sql, account_id, to_micros(now))
        return int(still_open or 0), int(all_)

    async def acme_orders(
        self, account_id: str, now: datetime, after: int = 0, limit: int = MAX_BATCH
    ) -> list[tuple[int, Order]]:
        """Give an account's orders that are open or came to a certificate, oldest first, with a number to go on from.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = f"select seq, body from acme_orders where account = $1 and {_LIVE} and seq > $3 order by seq limit $4"  # noqa: S608
        rows = await self._db.fetch(sql, account_id, to_micros(now), after, bounded(limit))
        return [(seq, _order(body)) for seq, body in rows]

    async def acme_replaced(self, certificate_id: str, now: datetime) -> bool:
        """Tell whether an order that is open, or came to a certificate, replaces this one (RFC 9773 section 5)."""
        sql = f"select 1 from acme_orders where replaces = $1 and {_LIVE} limit 1"  # noqa: S608 - words of ours
        return await self._db.one(sql, certificate_id, to_micros(now)) is not None

    async def prune_acme(self, now: datetime, before: datetime) -> None:
        """Forget what has ended: nonces and MAC keys at once, orders without a certificate in a day, the rest as of ``before``."""
        await self._db.write(
            step("delete from acme_nonces where expires_at <= $1", to_micros(now)),
            step("update acme_bindings set mac = $2 where expires_at <= $1 and mac <> $2", to_micros(now), b""),
            step("delete from acme_bindings where expires_at < $1", to_micros(before)),
            step("delete from acme_orders where expires_at <= $1 and outcome <> 'valid'", to_micros(now - ORDER_LIFE)),
            step("delete from acme_orders where expires_at < $1", to_micros(before)),
        )


def _outcome(order: Order) -> str:
    if not order.done:
        return ""
    return Status.VALID.value if order.serial else Status.INVALID.value


def _order(body: str) -> Order:
    return from_plain(Order, decode(body.encode()))


def _binding(row: Row) -> Binding:
    binding_id, name, domains, accounts, expires_at, _ = row
    names = tuple(json.loads(domains))
    return Binding(id=binding_id, name=name, domains=names, accounts=accounts, expires=from_micros(expires_at))


def _account(row: Row) -> Account:
    account_id, jwk, name, domains, binding, created_at, contact, deactivated_at = row
    return Account(
        id=account_id,
        key=AccountKey(jwk),
        name=name,
        domains=tuple(json.loads(domains)),
        binding=binding,
        created=from_micros(created_at),
        contact=tuple(json.loads(contact)),
        deactivated=deactivated_at is not None,
    )
