"""The bodies of the REST API, in and out: each checked as it is read, bounded in size, and published as OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

GATEWAY_NAME = "handfast/gateway/"
"""What the name of a gateway's identity begins with; its agent's name follows."""

_END = r"$(?!\n)"  # Python's "$" lets a line end pass, and JSON Schema has no "\Z"

Name = Annotated[str, Meta(min_length=1, max_length=512, description="An identity's name, such as payments")]
DnsName = Annotated[str, Meta(min_length=1, max_length=253)]
Csr = Annotated[str, Meta(max_length=16384, description="PKCS#10, PEM")]
Text = Annotated[str, Meta(max_length=1024)]
Moment = Annotated[datetime, Meta(tz=True)]
Serial = Annotated[str, Meta(pattern=f"^[0-9a-f]{{1,40}}{_END}")]


class Message(Struct, forbid_unknown_fields=True, kw_only=True):
    """What all bodies have in common: unknown fields are errors."""


class CertificateRequest(Message):
    """Ask for a certificate of ``name``. Without ``dns`` and ``ttl_seconds`` the workload's entry counts.

    An ``operator``'s certificate is of the name ``handfast/operator/NAME``, and may do all that this API offers.
    """

    name: Name
    csr: Csr
    dns: Annotated[list[DnsName], Meta(max_length=100)] = []
    ttl_seconds: Annotated[int, Meta(ge=1, le=400 * 86400)] | None = None
    operator: bool = False


class CertificateAnswer(Message, omit_defaults=True):
    """A certificate: ``chain`` is the leaf and all CAs below the root, ``bundle`` the roots; all PEM.

    ``cut_short``: it ends with its issuing CA, sooner than was asked for.
    """

    serial: str
    identity: str
    dns: list[str]
    not_before: datetime
    not_after: datetime
    chain: str
    bundle: str
    cut_short: bool = False


class CertificateRow(Message):
    """A certificate as the inventory lists it. ``state`` counts the clock in: issued, expired, revoked, failed, intended."""

    serial: str
    name: str
    identity: str
    dns: list[str]
    state: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    requester: str
    issuer: str
    revoked_at: datetime | None = None
    revocation_reason: str = ""
    certificate: str = ""


class CertificateList(Message):
    """A page of the inventory; ``next`` asks for the page after it, 0 where there is none."""

    certificates: list[CertificateRow]
    next: int = 0


class RevocationRequest(Message):
    """Revoke one certificate by serial (hex), or all live ones of a name."""

    serial: Annotated[str, Meta(pattern=f"^[0-9a-f]{{0,40}}{_END}")] = ""
    name: Annotated[str, Meta(max_length=512)] = ""
    reason: Annotated[str, Meta(max_length=32, description="One of RFC 5280 section 5.3.1")] = "unspecified"


class RevocationAnswer(Message):
    """What was revoked by this call. It counts; ``late`` says why revocation lists have not all of it yet, empty where they have."""

    revoked: list[CertificateRow]
    late: str = ""


class WorldAnswer(Message):
    """What an apply or a diff came to. ``effect`` is for people, one line a change."""

    revision: int
    digest: str
    changed: bool
    effect: list[str]
    warnings: list[str]


class RevisionRow(Message):
    """A world that was applied: ``digest`` is the SHA-256 of its text."""

    number: int
    digest: str
    applied_at: datetime
    requester: str


class RevisionList(Message):
    """What was applied, newest first. Where there may be older ones, ``next`` is the ``before`` to go on with, else 0."""

    revisions: list[RevisionRow]
    next: int


class EventList(Message):
    """Events, oldest first, each with its number; ``next`` is where to go on."""

    events: list[dict[str, Any]]
    next: int


class ExplanationAnswer(Message):
    """Why a request or handshake was refused: for people as text, and as fields."""

    text: str
    event: dict[str, Any]
    decision: dict[str, Any] | None = None


class AuthorityAnswer(Message):
    """The trust domain with its roots and issuing certificates, PEM."""

    trust_domain: str
    bundle: str
    issuers: str


class AgentRow(Message):
    """An agent as the server knows it. ``fault`` is the reason why it cannot come any more: its certificate was revoked, or ended."""

    name: str
    last_seen: datetime
    acknowledged: str
    current: bool
    findings: list[dict[str, Any]]
    fault: str = ""


class PartnerRow(Message):
    """An authority of somebody else. ``ends`` is when the first of its CAs ends, ``lists_until`` when the first list grows old.

    ``revocation`` is how it is learned what it revoked: ``crl``, ``ocsp``, ``ocsp+crl``, or empty. ``fault`` is the reason why it does not count, or
    not fully.
    """

    name: str
    hosts: list[str]
    ends: datetime
    revocation: str
    lists_until: datetime | None = None
    fault: str = ""


class StatusAnswer(Message):
    """The platform at a glance."""

    version: str
    trust_domain: str
    revision: int
    digest: str
    authority: list[dict[str, Any]]
    certificates: dict[str, int]
    next_expiry: datetime | None
    next_name: str
    hosts: list[dict[str, Any]]
    agents: list[AgentRow]
    partners: list[PartnerRow] = []


AgentName = Annotated[str, Meta(pattern=f"^[a-z0-9][a-z0-9-]{{0,62}}{_END}")]


class JoinRequest(Message):
    """An agent's first words: a join token, and a CSR for its own certificate."""

    token: Annotated[str, Meta(min_length=16, max_length=128)]
    name: AgentName
    csr: Csr


class RenewRequest(Message):
    """A certificate's holder asks for the next one, with the same names."""

    csr: Csr


class HostCertificateRequest(Message):
    """A gateway's agent asks for the server certificate of one host of the world."""

    host: DnsName
    csr: Csr


class HostCertificateAnswer(CertificateAnswer):
    """The server certificate of a host. ``staple`` is an OCSP response (DER, base64) for it; empty where none could be made."""

    staple: bytes = b""


class StapleAnswer(Message):
    """What is known of a certificate: an OCSP response (DER, base64), which whoever gets it has to verify."""

    response: bytes


class TrafficRow(Message):
    """How many requests of one kind were decided, since the last report. ``code`` is empty for allowed ones."""

    host: Text
    route: Text
    identity: Text
    method: Annotated[str, Meta(max_length=64)]
    code: Annotated[str, Meta(max_length=64)]
    count: Annotated[int, Meta(ge=0, le=10**12)]
    """Bounded so that the sums of many still fit the ledger's 64 bits: all share them."""


ReportedEvent = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"type": "object", "description": "As in the events' reference"})
]
"""An event's JSON as the agent wrote it: it is read once, by what bounds and checks it."""


class AgentReport(Message):
    """What an agent has to tell: the slice that Envoy acknowledged and what is wrong now, events, traffic.

    Without ``acknowledged`` the report says nothing of the agent's state, and its findings do not count. ``serving`` are serials
    of host certificates that Envoy has taken since the last report: of each host the newest. ``staples`` says of hosts where that
    changed when the OCSP response ends that is stapled now, if there is one.
    """

    acknowledged: Annotated[str, Meta(max_length=64)] | None = None
    findings: Annotated[list[dict[str, Any]], Meta(max_length=100)] = []
    events: Annotated[list[ReportedEvent], Meta(max_length=1000)] = []
    traffic: Annotated[list[TrafficRow], Meta(max_length=1000)] = []
    serving: Annotated[list[Serial], Meta(max_length=100)] = []
    staples: Annotated[dict[DnsName, Moment | None], Meta(max_length=100)] = {}


class TokenAnswer(Message):
    """A join token. It is shown once, works once, and is kept as a hash; ``id`` names it in the records."""

    id: str
    token: str
    name: str
    expires_at: datetime


class TokenRequest(Message):
    """Ask for a join token: for the agent ``name``, new or not, or without it for any one of a name that no agent was given yet."""

    name: AgentName | None = None
    ttl_seconds: Annotated[int, Meta(ge=10, le=7 * 86400)] = 3600


class EnrolmentTokenRequest(Message):
    """Ask for a token with which devices enrol as the workload ``name``, over EST."""

    name: Name
    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    ttl_seconds: Annotated[int, Meta(ge=10, le=30 * 86400)] = 3600


class EnrolmentTokenAnswer(Message):
    """An enrolment token. It is shown once, and kept as a hash; ``id`` names it in the records."""

    id: str
    token: str
    name: str
    uses: int
    expires_at: datetime


class EnrolmentWithdrawalRequest(Message):
    """Take back all enrolment tokens of a workload."""

    name: Name


class EnrolmentWithdrawalAnswer(Message):
    """How many tokens could still be used, and no longer can."""

    withdrawn: int


class Problem(Message):
    """A problem document (RFC 9457) with a stable code."""

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    hint: str = ""


class Nothing(Message):
    """An empty body."""


ENCODER = msgspec.json.Encoder()
