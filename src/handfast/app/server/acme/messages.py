"""The bodies of the endpoints with which an operator lets ACME clients in, and sees who came."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, field

from handfast.app.server.messages import DnsName, Message, Name

MAX_ACCOUNTS = 100
LONGEST_BINDING_S = 30 * 86400


class AcmeKeyRequest(Message):
    """Make a key for external account binding. ``domains`` are for a workload that has no entry in the world."""

    name: Name
    domains: Annotated[list[DnsName], Meta(max_length=100)] = field(default_factory=list)
    ttl_seconds: Annotated[int, Meta(ge=60, le=LONGEST_BINDING_S)] = 86400
    accounts: Annotated[int, Meta(ge=1, le=MAX_ACCOUNTS)] = 1


class AcmeKeyAnswer(Message):
    """The key: shown once. ``hmac_key`` is base64url; ``directory`` a path below the server's address."""

    key_id: str
    hmac_key: str
    directory: str
    name: str
    domains: list[str]
    accounts: int
    expires_at: datetime


class AcmeKeyRow(Message):
    """A key that was made, without its secret. ``accounts`` is how many accounts it still lets in."""

    key_id: str
    name: str
    domains: list[str]
    accounts: int
    expires_at: datetime


class AcmeAccountRow(Message):
    """An account, and the workload whose certificates it gets."""

    account: str
    name: str
    domains: list[str]
    key_id: str
    contact: list[str]
    created_at: datetime
    active: bool


class AcmeListAnswer(Message):
    """The newest 1000 accounts, and as many keys."""

    accounts: list[AcmeAccountRow]
    keys: list[AcmeKeyRow]


class AcmeDeactivation(Message):
    """Close an account, for good. Its certificates go on counting until they end or are revoked."""

    account: Annotated[str, Meta(min_length=1, max_length=64)]
