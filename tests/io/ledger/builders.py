"""Records and events with everything filled in; a test names what it is about."""

from datetime import UTC, datetime, timedelta

from handfast.base.events import (
    AgentInvited,
    AgentJoined,
    CertificateIssued,
    CertificateRefused,
    CertificateRevoked,
    Event,
    RequestDenied,
    WorldApplied,
)
from handfast.base.reasons import Reason
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.enrolment import token_id
from handfast.io.records import CertificateRecord
from handfast.trust.audit import Link, Purpose, Statement

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def intent(serial: str, **changed: object) -> CertificateRecord:
    """Give the record of a certificate that is about to be signed."""
    name = changed.get("name", "payments")
    fields = {
        "serial": serial,
        "issuer": "CN=example.org issuing",
        "identity": f"spiffe://example.org/{name}",
        "name": name,
        "dns": ("payments.internal",),
        "not_before": NOW,
        "not_after": NOW + DAY,
        "requester": "operator/ann",
        "tbs": b"to be signed",
        "recorded_at": NOW,
    }
    return CertificateRecord(**{**fields, **changed})


def issued(serial: str, **changed: object) -> CertificateIssued:
    """Give the event of an issued certificate."""
    fields = {
        "id": f"issued-{serial}",
        "at": NOW,
        "serial": serial,
        "fingerprint": "",
        "identity": "spiffe://example.org/payments",
        "dns": (),
        "not_before": NOW,
        "not_after": NOW + DAY,
        "requester": "operator/ann",
    }
    return CertificateIssued(**{**fields, **changed})


def refused(serial: str) -> CertificateRefused:
    """Give the event of an intent that came to nothing."""
    return CertificateRefused(
        id=f"refused-{serial}", at=NOW, name="payments", reason=Reason.ISSUANCE_LINT, requester="operator/ann"
    )


def revoked(serial: str, **changed: object) -> CertificateRevoked:
    """Give the event of a revoked certificate."""
    fields = {
        "id": f"revoked-{serial}",
        "at": NOW,
        "serial": serial,
        "fingerprint": "",
        "identity": "spiffe://example.org/payments",
        "crl_reason": "keyCompromise",
        "requester": "operator/ann",
    }
    return CertificateRevoked(**{**fields, **changed})


def applied(digest: str, **changed: object) -> WorldApplied:
    """Give the event of an applied world."""
    fields = {"id": f"applied-{digest[:8]}", "at": NOW, "revision": 0, "digest": digest, "requester": "operator/ann"}
    return WorldApplied(**{**fields, **changed})


def invited(token: str, expires_at: datetime = NOW + HOUR, agent: str = "") -> AgentInvited:
    """Give the event of a join token: for this agent, or for any new one."""
    grant = token_id(token)
    return AgentInvited(
        id=f"{grant}-{expires_at:%d%H}", at=NOW, grant=grant, agent=agent, expires_at=expires_at, requester="uid:0"
    )


def joined(event_id: str, **changed: object) -> AgentJoined:
    """Give the event of an agent that joined."""
    return AgentJoined(**{"id": event_id, "at": NOW, "agent": "web-1", "serial": "0a", **changed})


def denied(event_id: str, **changed: object) -> RequestDenied:
    """Give the event of a denied request."""
    fields = {
        "id": event_id,
        "at": NOW,
        "gateway": "web-1",
        "host": "api.example.org",
        "route": "/",
        "method": "GET",
        "path": "/",
        "peer": "192.0.2.1:1000",
        "status": 403,
        "reason": Reason.POLICY_NO_MATCH,
    }
    return RequestDenied(**{**fields, **changed})


async def issue(ledger: SqlLedger, serial: str, **changed: object) -> None:
    """Take a certificate from intent to issued; its DER is its serial."""
    assert await ledger.record_intent(intent(serial, **changed)) is None
    await ledger.record_issued(serial, b"der " + serial.encode(), issued(serial))


async def ids(ledger: SqlLedger) -> list[str]:
    """Give the ids of all events, in order."""
    found: list[tuple[int, Event]] = await ledger.page(limit=1000)
    return [event.id for _, event in found]


async def prune(ledger: SqlLedger, before: datetime = NOW + DAY, now: datetime = NOW) -> int:
    """Seal and prune a ledger's events, a batch of a thousand; nobody signs the anchor here."""
    await ledger.seal(now)
    last = await ledger.last_to_prune(before)
    return await ledger.prune_chain(anchor(last)) if last else 0


def anchor(at: Link) -> Statement:
    """Give the statement of a link, not signed."""
    return Statement(
        purpose=Purpose.ANCHOR, trust_domain="example.org", number=at.number, seq=at.seq, hash=at.hash, at=NOW
    )
