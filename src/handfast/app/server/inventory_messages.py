"""The bodies of the API about the inventory, revocation by selector, and the audit chain."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from handfast.app.server.messages import CertificateRow, Message

_END = r"$(?!\n)"

Owner = Annotated[str, Meta(max_length=256, description="Who looks after it: a team, an address")]
Hex40 = Annotated[str, Meta(pattern=f"^[0-9a-f]{{0,40}}{_END}")]
Hex64 = Annotated[str, Meta(pattern=f"^([0-9a-f]{{64}})?{_END}")]


class InventoryRow(Message):
    """A certificate of the inventory. ``source`` is issued, imported or discovered; what was imported is not verified.

    ``state`` counts the clock in: issued, expired, revoked, failed, intended, watched. ``issuer`` is the key identifier of our
    authority, or the issuer's name. ``certificate`` (PEM) is only there where one was asked for.
    """

    source: str
    fingerprint: str
    serial: str
    name: str
    dns: list[str]
    identity: str
    state: str
    not_before: datetime
    not_after: datetime
    issuer: str
    subject: str
    owner: str
    requester: str
    recorded_at: datetime
    revoked_at: datetime | None = None
    revocation_reason: str = ""
    certificate: str = ""


class InventoryList(Message):
    """A page of the inventory, newest first; ``next`` asks for the page after it, empty where there is none."""

    certificates: list[InventoryRow]
    next: str


class ImportRequest(Message):
    """Watch certificates of others: PEM, each certificate in it for itself."""

    certificates: Annotated[str, Meta(max_length=262144, description="PEM, 64 certificates at most")]
    owner: Owner = ""


class ImportAnswer(Message):
    """What was imported; ``known`` counts those that were there already."""

    imported: list[InventoryRow]
    known: int


class OwnerRequest(Message):
    """Say who looks after the certificates of a name; an empty ``owner`` means that nobody does."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    owner: Owner


class SelectorRequest(Message):
    """Name live certificates: exactly one field is given, besides the reason to revoke them.

    ``identity`` is a name, a SPIFFE id, or a pattern as rules have them (``team/*``). ``agent`` means all that this agent asked
    for, and its own; ``issuer`` the key identifier of an authority (hex). ``certificate`` (PEM) may stand beside the fingerprint: what the
    ledger does not know can then be revoked, if an issuing CA of this server signed it.
    """

    serial: Hex40 = ""
    fingerprint: Hex64 = ""
    identity: Annotated[str, Meta(max_length=2048)] = ""
    agent: Annotated[str, Meta(max_length=63)] = ""
    issuer: Annotated[str, Meta(pattern=f"^[0-9a-f]{{0,128}}{_END}")] = ""
    certificate: Annotated[str, Meta(max_length=65536)] = ""
    reason: Annotated[str, Meta(max_length=32, description="One of RFC 5280 section 5.3.1")] = "unspecified"


class Selected(Message):
    """What a selector means now: how many live certificates, and the first of them, newest first."""

    count: int
    certificates: list[CertificateRow]


class BatchRequest(SelectorRequest):
    """Revoke at most ``limit`` of the certificates that are meant. Ask again until nothing is left."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 500


class BatchAnswer(Message):
    """What this call revoked, and how many of the certificates that are meant are left; ``late`` as in `RevocationAnswer`."""

    revoked: list[CertificateRow]
    left: int
    late: str = ""


class ChainLink(Message):
    """One link of the audit chain: its number from 1, the event's number and id, and the hash."""

    number: int
    seq: int
    id: str
    hash: str


class ChainEntry(Message):
    """One event as it lies in the ledger: ``at`` in microseconds since 1970, ``body`` the JSON as it was hashed."""

    seq: int
    id: str
    kind: str
    at: int
    body: str


class ChainStatement(Message):
    """A signed statement of the audit chain: ``certificate`` is the authority's chain (PEM), ``signature`` base64."""

    purpose: str
    trust_domain: str
    number: int
    seq: int
    hash: str
    at: datetime
    certificate: str
    signature: str


class ChainAnswer(Message):
    """A page of the audit chain with the events among its links. ``unsealed`` counts the events that wait for their link."""

    anchor: ChainStatement | None
    links: list[ChainLink]
    entries: list[ChainEntry]
    unsealed: int
