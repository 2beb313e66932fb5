from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from handfast.base.events import (
    KINDS,
    AcmeAccountCreated,
    AcmeAccountDeactivated,
    AcmeBindingCreated,
    AcmeOrderFinalized,
    AcmeValidationFailed,
    AgentInvited,
    AgentJoined,
    AgentRefused,
    AuthorityCreated,
    CertificateDiscovered,
    CertificateImported,
    CertificateIssued,
    CertificateRefused,
    CertificateRevoked,
    ConnectionEnded,
    EnrolmentGranted,
    EnrolmentRevoked,
    Event,
    EventsOmitted,
    FindingRaised,
    HandshakeRefused,
    OfferedCertificate,
    PlatformRestored,
    RequestDenied,
    RequestReported,
    RotationStepped,
    WorldApplied,
)
from handfast.base.reasons import Reason
from handfast.doctor.report import story

AT = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
END = datetime(2026, 3, 5, 5, 6, 7, tzinfo=UTC)
CERTIFICATE = OfferedCertificate(
    subject="CN=payments", issuer="CN=Handfast issuing CA example.org", serial="4bac", fingerprint="2237",
    uri_sans=("spiffe://example.org/payments",), dns_sans=("payments.internal",), not_before=AT, not_after=END, chain_length=1,
)  # fmt: skip
DENIED = RequestDenied(
    id="r1", at=AT, gateway="edge", host="api.example.org", route="/v1", method="PUT", path="/v1/ledger", peer="192.0.2.1:40000",
    status=403, reason=Reason.POLICY_NO_MATCH, identity="spiffe://example.org/payments", revision="3", certificate=CERTIFICATE,
)  # fmt: skip
ACME_REASON = next(reason for reason in Reason if reason.value.startswith("acme."))
EVENTS: list[Event] = [
    AuthorityCreated(id="a1", at=AT, trust_domain="example.org", subject="CN=Root", fingerprint="00", not_after=END),
    CertificateIssued(
        id="i1", at=AT, serial="4bac", fingerprint="22", identity="spiffe://example.org/a", dns=("a.internal",), not_before=AT,
        not_after=END, requester="uid:0",
    ),
    CertificateRefused(id="f1", at=AT, name="a", reason=Reason.ISSUANCE_TOO_LONG, evidence={"asked": "2 days"}, requester="uid:0"),
    CertificateRevoked(id="v1", at=AT, serial="4bac", fingerprint="22", identity="spiffe://example.org/a", crl_reason="superseded", requester="x"),
    WorldApplied(id="w1", at=AT, revision=3, digest="00", requester="uid:0"),
    AgentJoined(id="j1", at=AT, agent="edge", serial="4bac"),
    HandshakeRefused(
        id="h1", at=AT, gateway="edge", listener="127.0.0.1:8443", peer="192.0.2.1:40000", server_name="api.example.org",
        tls_version="TLSv1.3", reason=Reason.CHAIN_MISSING_INTERMEDIATE, certificate=CERTIFICATE, evidence={"issuer": "known"}, raw="no issuer",
    ),
    CertificateDiscovered(
        id="s1", at=AT, gateway="edge", host="api.example.org", peer="192.0.2.1:40000", identity="spiffe://example.org/payments",
        certificate=CERTIFICATE,
    ),
    ConnectionEnded(
        id="c1", at=AT, gateway="edge", listener="127.0.0.1:8443", host="api.example.org", peer="192.0.2.1:40000", server_name="api.example.org",
        tls_version="TLSv1.3", identity="spiffe://example.org/payments", certificate=CERTIFICATE,
    ),
    DENIED,
    RequestReported(**{name: getattr(DENIED, name) for name in DENIED.__dataclass_fields__} | {"id": "p1", "status": 200}),
    FindingRaised(id="g1", at=AT, source="edge", reason=Reason.ENVOY_REJECTED, evidence={"envoy": "bad listener"}),
    CertificateImported(id="m1", at=AT, fingerprint="22", serial="4bac", subject="CN=partner", owner="team-a", requester="uid:0"),
    PlatformRestored(id="b1", at=AT, backup_at=END, requester="uid:0"),
    AcmeBindingCreated(
        id="k1", at=AT, binding="4bac", name="payments", domains=("payments.internal",), accounts=1, not_after=END, requester="uid:0"
    ),
    AcmeAccountCreated(id="k2", at=AT, account="a1", binding="4bac", name="payments", peer="192.0.2.1:40000"),
    AcmeAccountDeactivated(id="k3", at=AT, account="a1", name="payments", requester="uid:0"),
    AcmeOrderFinalized(id="k4", at=AT, account="a1", order="o1", name="payments", dns=("payments.internal",), serial="4bac"),
    AcmeValidationFailed(
        id="k5", at=AT, account="a1", order="o1", dns="payments.internal", challenge="http-01", reason=ACME_REASON, evidence={"status": "404"}
    ),
    EnrolmentGranted(id="e1", at=AT, grant="4bac", name="sensor", uses=3, expires_at=END, requester="uid:0"),
    EnrolmentRevoked(id="e2", at=AT, name="sensor", requester="uid:0"),
    AgentInvited(id="j2", at=AT, grant="4bac", agent="edge", expires_at=END, requester="uid:0"),
    AgentRefused(id="j3", at=AT, agent="edge", grant="4bac", reason=Reason.AGENT_NAME_TAKEN),
    EventsOmitted(id="o1", at=AT, agent="edge", count=7, kinds={"connection.ended": 5, "request.denied": 2}, since=END),
    RotationStepped(id="s1", at=AT, step="switch", generation=2, root=1, issuer="4bac", stranded=1, requester="uid:0"),
]  # fmt: skip


def test_every_kind_of_event_has_a_story(golden: Callable[[str, str], None]):
    """Each reads as it did when somebody last looked; a new kind must be looked at, too."""
    assert {event.kind for event in EVENTS} == set(KINDS)
    golden("stories.txt", "\n\n".join("\n".join(story(event)) for event in EVENTS) + "\n")


def test_a_connection_whose_certificate_was_only_named_leads_to_the_inventory():
    """The record of a good connection has fingerprint and identity, and the story says where the rest is."""
    named = OfferedCertificate(
        subject="", issuer="", serial="", fingerprint="2237", uri_sans=("spiffe://example.org/payments",), dns_sans=(),
        not_before=None, not_after=None,
    )  # fmt: skip
    told = "\n".join(story(replace(EVENTS[7], certificate=named)))  # type: ignore[call-arg]
    assert "handfast cert show 2237" in told
    assert "no subject" not in told


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_says_what_it_is_who_has_to_act_and_what_to_do(reason: Reason):
    """Whatever the reason. A hint to ask for the explanation is left out of the explanation."""
    text = "\n".join(story(replace(EVENTS[6], reason=reason)))  # type: ignore[call-arg]
    for part in (reason.value, reason.summary, reason.side.value):
        assert part in text
    assert (reason.hint in text) != ("handfast explain" in reason.hint)
    assert "handfast explain" not in text


def test_what_is_not_known_is_left_out_or_called_none():
    """No row is empty."""
    bare = HandshakeRefused(
        id="h",
        at=AT,
        gateway="g",
        listener="l",
        peer="",
        reason=Reason.HANDSHAKE_TIMEOUT,
        certificate=OfferedCertificate(),
    )
    for line in story(bare):
        assert line.strip()
        assert not line.rstrip().endswith(":")


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[31mred", "a\r\n  reason:       cert.fine"])
def test_a_stranger_writes_no_line_of_the_story(hostile: str):
    """Names in a certificate come from outside; they move no cursor and begin no line."""
    certificate = replace(CERTIFICATE, subject=hostile, dns_sans=(hostile,))
    event = replace(DENIED, certificate=certificate, path=hostile, host=hostile)
    plain = story(DENIED)
    told = story(event)
    assert len(told) == len(plain)
    assert all(line.isprintable() for line in told)


def test_a_record_that_stands_for_others_says_so():
    """How many, and where they are from; one that stands for itself says nothing of it."""
    refused = next(event for event in EVENTS if isinstance(event, HandshakeRefused))
    assert not [line for line in story(refused) if "more like it" in line]
    lines = story(replace(refused, more=4211, among="192.0.2.0/24"))
    assert lines[-1].split() == ["and:", "4,211", "more", "like", "it,", "from", "192.0.2.0/24"]
