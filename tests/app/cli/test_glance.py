import sys
from datetime import UTC, datetime

import msgspec
import pytest

from handfast.app.cli.glance import _agent, _fitting, _lines
from handfast.app.cli.rotation import tree
from handfast.app.server.messages import AgentRow, PartnerRow, StatusAnswer
from handfast.app.server.rotation_messages import AuthoritiesAnswer, GenerationRow
from handfast.base.reasons import Reason

AT = datetime(2026, 11, 21, 10, 18, tzinfo=UTC)
LATER = datetime(2030, 11, 21, 10, 18, tzinfo=UTC)
PARTNER = PartnerRow(name="acme", hosts=["api.example.org"], ends=AT, revocation="crl", lists_until=AT)
ROW = GenerationRow(
    number=1, root=1, stage="issuing", since=AT, issuer="ab", ends=AT, root_ends=LATER, compromised=False, leaves=3, last_leaf_ends=AT,
    renew_at=AT,
)  # fmt: skip
AGENT = AgentRow(name="edge", last_seen=AT, acknowledged="x", current=True, findings=[])


def seen(*partners: PartnerRow) -> StatusAnswer:
    return StatusAnswer(
        version="1", trust_domain="example.org", revision=2, digest="x", authority=[], certificates={"issued": 3, "revoked": 0},
        next_expiry=AT, next_name="payments", hosts=[], agents=[AGENT], partners=list(partners),
    )  # fmt: skip


def test_the_graph_has_a_date_at_each():
    """Root, issuing CA, leaves; partners with their lists; the first certificate to end. All within 80 columns."""
    lines = list(
        _lines(seen(PARTNER), AuthoritiesAnswer(trust_domain="example.org", bundle="", generations=[ROW], waiting=[]))
    )
    assert lines == [
        "trust domain  example.org",
        "revision      2",
        "  root 1: ends 2030-11-21 10:18 UTC, in every bundle",
        "    issuing CA 1: issuing since 2026-11-21 10:18 UTC, ends 2026-11-21 10:18 UTC",
        "      the next one begins by itself: 2026-11-21 10:18 UTC",
        "      leaves: 3, the last ends 2026-11-21 10:18 UTC",
        "  partner acme: ends 2026-11-21 10:18 UTC, at api.example.org",
        "      its next revocation list is due: 2026-11-21 10:18 UTC",
        "certificates  3 issued",
        "              the first to end: payments, 2026-11-21 10:18 UTC",
        "agent         edge serves the newest, seen 10:18:00 UTC",
    ]
    assert max(map(len, lines)) <= 80


def test_an_issuing_authority_that_ends_with_its_root_says_so():
    """None follows it by itself, so no moment is promised."""
    row = msgspec.structs.replace(ROW, root_ends=ROW.ends, renew_at=None)
    lines = list(tree(AuthoritiesAnswer(trust_domain="example.org", bundle="", generations=[row], waiting=[])))
    assert lines[2:-1] == ["      it ends with its root: 'handfast ca rotate --root' replaces both"]
    assert max(map(len, lines)) <= 80


def test_staples_are_shown_beside_their_host():
    """When each is due, by agent; a host without one has no line more."""
    host = {"name": "api", "listen": "127.0.0.1:8443", "certificate": "required", "routes": 1}
    stapled = {**host, "name": "web", "staples": [{"agent": "edge", "next_update": "2026-11-21T10:18:00Z"}]}
    answer = seen()
    answer.hosts = [host, {**host, "staples": []}, stapled]
    lines = list(_lines(answer, AuthoritiesAnswer(trust_domain="example.org", bundle="", generations=[], waiting=[])))
    assert lines[-5:-1] == [
        "host          api on 127.0.0.1:8443, certificate required, routes 1",
        "host          api on 127.0.0.1:8443, certificate required, routes 1",
        "host          web on 127.0.0.1:8443, certificate required, routes 1",
        "              staple at edge: next update 2026-11-21 10:18 UTC",
    ]


def test_what_needs_a_hand_stands_below_its_ca():
    """Leaves that end with it, and old ones that are in use beside their successors; both within 80 columns."""
    row = msgspec.structs.replace(ROW, cut_short=2, copies=1)
    lines = list(tree(AuthoritiesAnswer(trust_domain="example.org", bundle="", generations=[row], waiting=[])))
    assert lines[-2:] == [
        "      cut short: 2 end with this CA, sooner than was asked for",
        "      copies: 1 were renewed, and the old one is in use again",
    ]
    assert max(map(len, lines)) <= 80


def test_a_partner_s_fault_says_what_to_do():
    """With its code, as everywhere; and a rotation that is stuck points to its own verb."""
    fault = PartnerRow(name="acme", hosts=["a"], ends=AT, revocation="crl", fault="revocation.crl-unavailable")
    stuck = AuthoritiesAnswer(trust_domain="example.org", bundle="", generations=[ROW], waiting=[], fault="no key")
    text = "\n".join(_lines(seen(fault), stuck))
    assert "      revocation.crl-unavailable: " in text
    assert "is due" not in text
    assert "rotation      stuck: see 'handfast ca status'" in text


def test_a_person_gets_whole_words(monkeypatch: pytest.MonkeyPatch):
    """On a terminal a long line is broken between words, with the rest below the values; a program gets it as it is."""
    line = "agent         " + "word " * 30 + "end"
    assert _fitting(line) == [line]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    first, *rest = _fitting(line)
    assert max(map(len, (first, *rest))) <= 80
    assert all(piece.startswith(" " * 14 + "word") for piece in rest)


@pytest.mark.parametrize("reason", [Reason.AGENT_REVOKED, Reason.AGENT_EXPIRED])
def test_an_agent_that_cannot_come_is_said_to_be_so(reason: Reason):
    """Not that it is behind: with the reason, what brings it back, and what makes it forgotten."""
    lines = list(_agent(msgspec.structs.replace(AGENT, current=False, fault=reason.value)))
    assert lines[0] == "agent         edge cannot come, seen 10:18:00 UTC"
    assert reason.value in lines[1]
    assert "token" in lines[1]
    assert "'handfast ca forget-agent edge'" in lines[2]
