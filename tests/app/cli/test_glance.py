import sys
from datetime import UTC, datetime

import pytest

from handfast.app.cli.glance import _fitting, _lines
from handfast.app.server.messages import AgentRow, PartnerRow, StatusAnswer
from handfast.app.server.rotation_messages import AuthoritiesAnswer, GenerationRow

AT = datetime(2026, 11, 21, 10, 18, tzinfo=UTC)
PARTNER = PartnerRow(name="acme", hosts=["api.example.org"], ends=AT, revocation="crl", lists_until=AT)
ROW = GenerationRow(
    number=1, root=1, stage="issuing", since=AT, issuer="ab", ends=AT, root_ends=AT, compromised=False, leaves=3, last_leaf_ends=AT,
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
        "  root 1: ends 2026-11-21 10:18 UTC, in every bundle",
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
