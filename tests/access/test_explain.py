from __future__ import annotations

import json

import pytest
from hypothesis import given

from handfast.access.decide import Request, Visitor, decide, weigh
from handfast.access.explain import NEAREST, Explanation, as_json, as_text, explain
from handfast.access.policy import JWKS_PATH, Host
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from tests.access import strategies as some
from tests.access.strategies import OTHER, OWN

HOST = parse_world("""
trust_domain: example.org
hosts:
  api.example.org:
    listen: 8443
    clients: {certificate: optional}
    session: true
    routes:
      - path: /v1/ledger
        upstream: http://127.0.0.1:9000
        allow: [{identity: payments, methods: [GET, POST]}, {identity: "acme/*", methods: [GET]}, {identity: reporting, methods: [DELETE]}]
        deny: [team/mallory]
      - {path: /open, upstream: "http://127.0.0.1:9000", allow: anyone, methods: [GET]}
      - {path: /closed, upstream: "http://127.0.0.1:9000", allow: [], mode: report}
""").hosts["api.example.org"]
PAYMENTS = OWN.id("payments")


def told(visitor: Visitor, method: str = "GET", path: str = "/v1/ledger") -> Explanation:
    return explain(HOST, visitor, Request(method, path))


def text(visitor: Visitor, method: str = "GET", path: str = "/v1/ledger") -> str:
    return as_text(told(visitor, method, path), own=OWN)


def test_a_refusal_is_told_with_the_rules_that_come_nearest():
    """The text names who, what and where, and the rules by nearness with what each lacks: that is all that the hint leads to."""
    assert text(PAYMENTS, "DELETE").splitlines() == [
        "refused: policy.no-match (403): no rule allows this identity to do this here",
        "  who      payments",
        "  asks     DELETE /v1/ledger on api.example.org",
        "  route    /v1/ledger (enforce)",
        "  allow    payments GET, POST: identity matches; method DELETE is not among GET, POST",
        "  allow    reporting DELETE: method matches; identity payments is not reporting",
        "  deny     team/mallory: method matches; identity payments is not team/mallory",
        "  allow    acme/* GET: identity payments is not acme/*; method DELETE is not among GET",
    ]


def test_a_hint_is_told_where_it_leads_further():
    """That of no rule would lead to this very text."""
    assert Reason.REQUEST_NO_ROUTE.hint in text(PAYMENTS, "GET", "/elsewhere")


@pytest.mark.parametrize(
    ("visitor", "method", "path", "lines"),
    [
        (PAYMENTS, "GET", "/v1/ledger/a", ["allowed", "  allow    payments GET, POST: identity and method match"]),
        (OWN.id("team/mallory"), "GET", "/v1/ledger", ["  deny     team/mallory: identity and method match"]),
        (None, "GET", "/v1/ledger", ["  who      nobody, as no certificate was shown", "  allow    acme/* GET: method matches; there is no identity, it wants acme/*"]),
        (None, "POST", "/open", ["  because  the route has the methods GET for anybody, and POST is not among them"]),
        (None, "GET", "/open", ["allowed", "  because  the route allows anyone"]),
        (None, "GET", "/else", ["  because  the host has routes for /closed, /open, /v1/ledger"]),
        (None, "GET", JWKS_PATH, ["  because  the host shows its session keys to anyone"]),
        (OTHER.id("x"), "GET", "/open", ["  who      spiffe://partner.org/x", "  because  the host trusts example.org"]),
        (PAYMENTS, "GET", "/closed", ["  because  the route allows nobody", "  route    /closed (report)"]),
        (Refusal(Reason.CERT_EXPIRED, {"not_after": "2026"}), "GET", "/open", ["  who      a certificate that is refused", "  because  a certificate that is refused is refused everywhere, whatever the rules say", "  seen     not_after: 2026"]),
    ],
)  # fmt: skip
def test_each_outcome_says_why(visitor: Visitor, method: str, path: str, lines: list[str]):
    """Whatever the outcome is, there is a line that says what brought it about."""
    assert set(lines) <= set(text(visitor, method, path).splitlines())


def test_a_report_says_that_it_passes():
    """A report is told as what it would be, and as what it is."""
    head = text(PAYMENTS, path="/closed").splitlines()[0]
    assert head.startswith("reported: policy.no-match (403; passes, as the route only reports)")


def test_certificates_that_a_host_does_not_ask_for():
    """Where a host asks for no certificate, an identity is said to go unseen; where it requires one, the handshake is named."""
    source = "trust_domain: example.org\nhosts: {a.org: {listen: 1, clients: {certificate: MODE}, routes: [{path: /, upstream: 'http://a', allow: anyone, deny: [payments]}]}}"
    off = parse_world(source.replace("MODE", "off")).hosts["a.org"]
    seen = as_text(explain(off, PAYMENTS, Request("GET", "/")), own=OWN).splitlines()
    assert seen[:2] == ["allowed", "  who      payments, unseen: the host asks for no certificate"]
    assert "  deny     payments: method matches; there is no identity, it wants payments" in seen
    required = parse_world(source.replace("MODE", "required")).hosts["a.org"]
    assert "handshake fails" in as_text(explain(required, None, Request("GET", "/")), own=OWN)


def test_the_json_face_has_all_of_it():
    """The JSON face carries verdict, reason, rule and the nearest rules as values, and can be written down."""
    plain = json.loads(json.dumps(as_json(told(PAYMENTS, "DELETE"), own=OWN)))
    assert (plain["verdict"], plain["reason"], plain["status"], plain["passes"]) == (
        "refused",
        "policy.no-match",
        403,
        False,
    )
    assert plain["identity"] == "spiffe://example.org/payments"
    assert plain["route"] == {"path": "/v1/ledger", "mode": "enforce"}
    assert plain["nearest"][0] == {
        "kind": "allow",
        "rule": {"identity": "spiffe://example.org/payments", "methods": ["GET", "POST"]},
        "identity_matches": True,
        "method_matches": False,
        "missing": "identity matches; method DELETE is not among GET, POST",
    }
    assert as_json(told(None, path="/open"), own=OWN)["rule"] == "anyone"
    assert as_json(told(Refusal(Reason.REVOKED, {"serial": "01"})), own=OWN)["evidence"] == {"serial": "01"}
    assert as_json(told(None, path="/else"), own=OWN)["route"] is None


@given(some.hosts(), some.visitors, some.requests)
def test_explain_is_the_deciding_code(where: Host, visitor: Visitor, request: Request):
    """The explanation's decision is the decision; the rule that decided stands first, and what applies before what does not."""
    found = explain(where, visitor, request)
    decision = decide(where, visitor, request)
    assert found.decision == decision
    assert len(found.nearest) <= NEAREST
    if decision.rule is not None and not isinstance(decision.rule, str):
        assert found.nearest[0].rule == decision.rule
        assert found.nearest[0].match.whole
    for one in found.nearest:
        assert one.rule in (decision.route.deny if one.kind == "deny" else decision.route.allow)
        assert one.match.method == weigh(one.rule, None, request.method).method
    whole = [one.match.whole for one in found.nearest]
    assert whole == sorted(whole, reverse=True)


@given(some.hosts(), some.visitors, some.requests)
def test_both_faces_say_the_verdict(where: Host, visitor: Visitor, request: Request):
    """Each explanation can be told in both faces, and both begin with the same verdict and name the same reason."""
    found = explain(where, visitor, request)
    plain, lines = as_json(found, own=OWN), as_text(found, own=OWN).splitlines()
    assert lines[0].partition(":")[0] == plain["verdict"]
    assert (plain["reason"] or "") in lines[0]
    assert plain["passes"] == found.decision.passes
    json.dumps(plain)
