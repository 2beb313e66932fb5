"""What happened, each as one frozen dataclass in the past tense.

An event is at once the JSON log line, the ledger's row, the counter and the entry that `handfast events` prints. It names
things by identifier and never holds key material. Texts that a stranger chose are cut by whoever makes the event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from handfast.base.reasons import Reason

SERVER = "server"
"""What the server itself is called, where an event names a gateway or a source."""

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def kind(event: type[Event]) -> str:
    """Turn ``CertificateIssued`` into ``certificate.issued``."""
    return _dotted(event.__name__)


@cache
def _dotted(name: str) -> str:
    return _WORD.sub(".", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have: an id that a person can type, and when it happened (UTC)."""

    id: str
    at: datetime

    @property
    def kind(self) -> str:
        """The event's name: ``CertificateIssued`` is ``certificate.issued``."""
        return kind(type(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedCertificate:
    """What is known of the certificate that a client sent; unverified where the handshake failed.

    ``serial`` and ``fingerprint`` (SHA-256 of the DER) are lower case hex. ``chain_length`` counts the certificates sent.
    """

    subject: str = ""
    issuer: str = ""
    serial: str = ""
    fingerprint: str = ""
    uri_sans: tuple[str, ...] = ()
    dns_sans: tuple[str, ...] = ()
    not_before: datetime | None = None
    not_after: datetime | None = None
    chain_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityCreated(Event):
    """A root or issuing authority came to be."""

    trust_domain: str
    subject: str
    fingerprint: str
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssued(Event):
    """A certificate was signed, compared with its plan, and may be delivered."""

    serial: str
    fingerprint: str
    identity: str
    dns: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRefused(Event):
    """A certificate was asked for and not issued."""

    name: str
    reason: Reason
    evidence: dict[str, str] = field(default_factory=dict)
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRevoked(Event):
    """A certificate was revoked. ``crl_reason`` is one of RFC 5280 section 5.3.1."""

    serial: str
    fingerprint: str
    identity: str
    crl_reason: str
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateImported(Event):
    """Somebody else's certificate was put into the inventory, to be watched."""

    fingerprint: str
    serial: str
    subject: str
    owner: str
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRestored(Event):
    """The ledger is that of a backup. What was issued and revoked after ``backup_at`` is not in it."""

    backup_at: datetime
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldApplied(Event):
    """A world file became the revision that counts."""

    revision: int
    digest: str
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInvited(Event):
    """An operator made a token with which one agent joins: ``agent``, or where that is empty any of a name that no agent was given yet.

    ``grant`` is the token's public id.
    """

    grant: str
    agent: str
    expires_at: datetime
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJoined(Event):
    """An agent got its first certificate, by the token ``grant``; or, under a name that was given before, its first one ``again``.

    Then the certificates that the name had before are revoked, each with an event of its own.
    """

    agent: str
    serial: str
    grant: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRefused(Event):
    """Somebody came with a good join token for a name that it does not open. The token is used up."""

    agent: str
    grant: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsOmitted(Event):
    """An agent told more than the ledger takes from one, so these have no record: ``count`` events since ``since``, by kind."""

    agent: str
    count: int
    kinds: dict[str, int]
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRefused(Event):
    """A TLS handshake failed at a gateway, or at the server's own front.

    ``raw`` is what the TLS library reported; ``client_saw`` never gets it. ``peer`` is ``address:port``. In a flood of them ``more``
    others like it, from ``among`` (an address, a network, ``anywhere``), have no record of their own.
    """

    gateway: str
    listener: str
    peer: str
    server_name: str = ""
    tls_version: str = ""
    reason: Reason
    certificate: OfferedCertificate | None = None
    evidence: dict[str, str] = field(default_factory=dict)
    raw: str = ""
    more: int = 0
    among: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateDiscovered(Event):
    """A gateway let a client in with a certificate that the inventory did not know: another authority's, or one that it has lost."""

    gateway: str
    host: str
    peer: str
    identity: str = ""
    certificate: OfferedCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEnded(Event):
    """A connection whose handshake had succeeded is over: one record a connection, at its end."""

    gateway: str
    listener: str
    host: str
    peer: str
    server_name: str
    tls_version: str
    identity: str = ""
    certificate: OfferedCertificate | None = None
    duration_ms: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDenied(Event):
    """A request was refused. Its id is the request id that the client got. ``path`` has no query string."""

    gateway: str
    host: str
    route: str
    method: str
    path: str
    peer: str
    status: int
    reason: Reason
    identity: str = ""
    revision: str = ""
    certificate: OfferedCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestReported(RequestDenied):
    """A request on a route in report mode: it would have been refused, and was let pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRaised(Event):
    """Something is wrong with the platform itself."""

    source: str
    reason: Reason
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeBindingCreated(Event):
    """An operator made what lets ACME accounts be created for a workload. ``binding`` is its public id."""

    binding: str
    name: str
    domains: tuple[str, ...]
    accounts: int
    not_after: datetime
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeAccountCreated(Event):
    """An ACME client got an account, by a binding that an operator had made."""

    account: str
    binding: str
    name: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeAccountDeactivated(Event):
    """An ACME account was closed, by itself or by an operator."""

    account: str
    name: str
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeOrderFinalized(Event):
    """An ACME order became a certificate."""

    account: str
    order: str
    name: str
    dns: tuple[str, ...]
    serial: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeValidationFailed(Event):
    """A DNS name was not proved, after some tries. ``challenge`` is ``http-01``, ``tls-alpn-01`` or ``dns-01``."""

    account: str
    order: str
    dns: str
    challenge: str
    reason: Reason
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationStepped(Event):
    """A rotation of authorities went one step. ``stranded`` counts who is cut off by it, where somebody forced it."""

    step: str
    generation: int
    root: int
    issuer: str = ""
    stranded: int = 0
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentGranted(Event):
    """An operator made a token with which devices enrol as ``name``. ``grant`` is the token's public id; ``uses`` how often it works."""

    grant: str
    name: str
    uses: int
    expires_at: datetime
    requester: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRevoked(Event):
    """An operator took back all enrolment tokens of a name."""

    name: str
    requester: str


KINDS: dict[str, type[Event]] = {
    kind(cls): cls
    for cls in (
        AuthorityCreated,
        CertificateIssued,
        CertificateRefused,
        CertificateRevoked,
        CertificateImported,
        PlatformRestored,
        WorldApplied,
        AgentInvited,
        AgentJoined,
        AgentRefused,
        EventsOmitted,
        HandshakeRefused,
        CertificateDiscovered,
        ConnectionEnded,
        RequestDenied,
        RequestReported,
        FindingRaised,
        AcmeBindingCreated,
        AcmeAccountCreated,
        AcmeAccountDeactivated,
        AcmeOrderFinalized,
        AcmeValidationFailed,
        RotationStepped,
        EnrolmentGranted,
        EnrolmentRevoked,
    )
}
