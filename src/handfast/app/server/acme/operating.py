"""Endpoints for operators: let an ACME client in, see who came, close an account."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from starlette.requests import Request

from handfast.app.server.acme.messages import (
    AcmeAccountRow,
    AcmeDeactivation,
    AcmeKeyAnswer,
    AcmeKeyRequest,
    AcmeKeyRow,
    AcmeListAnswer,
)
from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import Nothing
from handfast.app.server.platform import Platform
from handfast.base.events import AcmeAccountDeactivated, AcmeBindingCreated
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.acme_keys import SECRET_BYTES
from handfast.io.ids import new_event_id
from handfast.trust.acme.accounts import Account, Binding
from handfast.trust.acme.keys import to_base64url
from handfast.trust.entries import RESERVED
from handfast.trust.plan import is_dns_name


@dataclass(frozen=True, slots=True)
class AcmeOperating:
    """The endpoints that an operator calls."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/acme/keys", handler=self.make_acme_key, roles=OPERATORS,
                body=AcmeKeyRequest, answer=AcmeKeyAnswer, status=201,
            ),
            Endpoint(method="GET", path="/v1/acme", handler=self.list_acme, roles=OPERATORS, answer=AcmeListAnswer),
            Endpoint(
                method="POST", path="/v1/acme/deactivations", handler=self.deactivate_acme_account, roles=OPERATORS,
                body=AcmeDeactivation, answer=Nothing,
            ),
        )  # fmt: skip

    async def make_acme_key(self, caller: Caller, _: Request, body: AcmeKeyRequest) -> AcmeKeyAnswer:
        """Make a key for external account binding: it lets ACME accounts be created for one workload."""
        platform, now = self.platform, self.platform.clock.now()
        binding = Binding(
            id=new_event_id(),
            name=body.name,
            domains=self._domains(body),
            accounts=body.accounts,
            expires=now + timedelta(seconds=body.ttl_seconds),
        )
        secret = secrets.token_bytes(SECRET_BYTES)
        event = AcmeBindingCreated(
            id=new_event_id(),
            at=now,
            binding=binding.id,
            name=binding.name,
            domains=binding.domains,
            accounts=binding.accounts,
            not_after=binding.expires,
            requester=str(caller),
        )
        kept = await platform.acme.mac_keys.seal(binding.id, secret)
        await platform.ledger.add_acme_binding(binding, kept, event)
        return AcmeKeyAnswer(
            key_id=binding.id,
            hmac_key=to_base64url(secret),
            directory=f"/acme/{platform.trust_domain}/directory",
            name=binding.name,
            domains=list(binding.domains),
            accounts=binding.accounts,
            expires_at=binding.expires,
        )

    async def list_acme(self, _: Caller, __: Request, ___: None) -> AcmeListAnswer:
        """List ACME accounts and the keys that let them in."""
        accounts = [_account(one) for one in await self.platform.ledger.acme_accounts()]
        return AcmeListAnswer(accounts=accounts, keys=[_key(one) for one in await self.platform.ledger.acme_bindings()])

    async def deactivate_acme_account(self, caller: Caller, _: Request, body: AcmeDeactivation) -> Nothing:
        """Close an ACME account."""
        account = await self.platform.ledger.acme_account(body.account)
        if account is None or not await deactivate(self.platform, account, str(caller)):
            raise Refused(Refusal(Reason.NOT_FOUND, {"account": body.account}))
        return Nothing()

    def _domains(self, body: AcmeKeyRequest) -> tuple[str, ...]:
        """Check whom the key is for, and give the names that it grants by itself."""
        identity = self.platform.trust_domain.id(body.name)
        if identity.name.startswith(RESERVED):
            raise Refused(Refusal(Reason.ENTRY_RESERVED, {"identity": str(identity)}))
        entry = self.platform.slices.world.workloads.get(body.name)
        names = tuple(dict.fromkeys(name.lower() for name in body.domains))
        if wrong := [name for name in names if not is_dns_name(name)]:
            raise BadInput(f"{wrong[0][:80]!r} is not a DNS name", key="domains")
        if entry and names:
            raise BadInput("the world's entry says which names this workload has", key="domains", hint="name none here")
        if not (entry.dns if entry else names):
            raise BadInput(
                "this workload has no DNS name to prove",
                key="domains",
                hint="give it 'dns' in the world file, or name its domains here where it has no entry",
            )
        return names


async def deactivate(platform: Platform, account: Account, requester: str) -> bool:
    """Close an account, and tell whether it was open."""
    now = platform.clock.now()
    event = AcmeAccountDeactivated(
        id=new_event_id(), at=now, account=account.id, name=account.name, requester=requester
    )
    return await platform.ledger.deactivate_acme_account(event)


def _account(account: Account) -> AcmeAccountRow:
    return AcmeAccountRow(
        account=account.id,
        name=account.name,
        domains=list(account.domains),
        key_id=account.binding,
        contact=list(account.contact),
        created_at=account.created,
        active=not account.deactivated,
    )


def _key(binding: Binding) -> AcmeKeyRow:
    return AcmeKeyRow(
        key_id=binding.id,
        name=binding.name,
        domains=list(binding.domains),
        accounts=binding.accounts,
        expires_at=binding.expires,
    )
