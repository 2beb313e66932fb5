from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.access.decide import Decision, Request, Visitor, decide
from handfast.access.policy import (
    JWKS_PATH,
    CertificateMode,
    Clients,
    Host,
    IdentityPattern,
    Listen,
    Open,
    Route,
    RouteMode,
    Rule,
    Upstream,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from tests.access import strategies as some
from tests.access.strategies import OTHER, OWN

PAYMENTS, REPORTS = OWN.id("payments"), OWN.id("team/reports")
READ_PAYMENTS = Rule(IdentityPattern(OWN, "payments"), ("GET", "POST"))
TEAM = Rule(IdentityPattern(OWN, "team/", prefix=True))
GET = Request("GET", "/v1")


def route(path: str = "/v1", **said: object) -> Route:
    return replace(Route(path, Upstream("http", "127.0.0.1", 9000), (READ_PAYMENTS, TEAM)), **said)


def host(*routes: Route, certificate: CertificateMode = CertificateMode.OPTIONAL, session: bool = False) -> Host:
    return Host("api.example.org", Listen("0.0.0.0", 8443), Clients((OWN,), certificate), routes or (route(),), session)


def outcome(decision: Decision) -> tuple[object, ...]:
    """All of a decision that must not depend on the order of what was written."""
    path = decision.route.path if decision.route else None
    return decision.allowed, decision.passes, decision.reported, decision.reason, decision.status, path, decision.rule


@pytest.mark.parametrize(
    ("where", "visitor", "request_", "reason"),
    [
        (host(), PAYMENTS, GET, None),
        (host(), REPORTS, Request("DELETE", "/v1/a/b"), None),
        (host(), PAYMENTS, Request("DELETE", "/v1"), Reason.POLICY_NO_MATCH),
        (host(), PAYMENTS, Request("get", "/v1"), Reason.POLICY_NO_MATCH),
        (host(), OWN.id("team"), GET, Reason.POLICY_NO_MATCH),
        (host(), OWN.id("payments2"), GET, Reason.POLICY_NO_MATCH),
        (host(), OTHER.id("payments"), GET, Reason.IDENTITY_FOREIGN_DOMAIN),
        (host(), None, GET, Reason.CLIENT_NO_CERTIFICATE),
        (host(), PAYMENTS, Request("GET", "/v10"), Reason.REQUEST_NO_ROUTE),
        (host(), None, Request("GET", "/v10"), Reason.REQUEST_NO_ROUTE),
        (host(route(deny=(TEAM,))), REPORTS, GET, Reason.POLICY_DENIED),
        (host(route(deny=(TEAM,))), PAYMENTS, GET, None),
        (host(route(deny=(TEAM,), allow=Open.ANYONE)), REPORTS, GET, Reason.POLICY_DENIED),
        (host(route(deny=(TEAM,), methods=("POST",))), REPORTS, GET, Reason.POLICY_DENIED),
        (host(route(methods=("POST",))), PAYMENTS, GET, Reason.POLICY_NO_MATCH),
        (host(route(methods=("POST",), allow=Open.ANYONE)), None, GET, Reason.POLICY_NO_MATCH),
        (host(route(allow=())), PAYMENTS, GET, Reason.POLICY_NO_MATCH),
        (host(route(allow=Open.ANYONE)), None, GET, None),
        (host(route(allow=Open.ANY_CERTIFICATE)), OWN.id("x"), GET, None),
        (host(route(allow=Open.ANY_CERTIFICATE)), None, GET, Reason.CLIENT_NO_CERTIFICATE),
        (host(route(allow=Open.ANYONE)), Refusal(Reason.REVOKED), GET, Reason.REVOKED),
        (host(route(allow=Open.ANYONE)), OTHER.id("x"), GET, Reason.IDENTITY_FOREIGN_DOMAIN),
        (host(route(allow=Open.ANYONE), certificate=CertificateMode.REQUIRED), None, GET, Reason.CLIENT_NO_CERTIFICATE),
        (host(certificate=CertificateMode.REQUIRED), PAYMENTS, GET, None),
        (host(route(allow=Open.ANYONE, deny=(TEAM,)), certificate=CertificateMode.OFF), REPORTS, GET, None),
        (host(session=True), None, Request("GET", JWKS_PATH), None),
        (host(session=False), None, Request("GET", JWKS_PATH), Reason.REQUEST_NO_ROUTE),
        (host(session=True), Refusal(Reason.REVOKED), Request("GET", JWKS_PATH), Reason.REVOKED),
    ],
)  # fmt: skip
def test_each_way_to_decide(where: Host, visitor: Visitor, request_: Request, reason: Reason | None):
    """Each branch of the policy gives its own reason, and a status that goes with it."""
    decision = decide(where, visitor, request_)
    assert (decision.allowed, decision.reason) == (reason is None, reason)
    assert decision.status == {None: 200, Reason.REQUEST_NO_ROUTE: 404}.get(reason, 403)


def test_the_longest_path_decides():
    """A route below another one decides alone, whether it is stricter or laxer."""
    where = host(route("/"), route("/v1/open", allow=Open.ANYONE))
    assert decide(where, None, Request("GET", "/v1/open/x")).passes
    assert not decide(where, None, Request("GET", "/v1/opened")).passes


def test_report_mode_softens_the_policy_alone():
    """Report mode lets pass what the policy refuses, and nothing that a bad certificate or a missing route is refused for."""
    where = host(route(mode=RouteMode.REPORT, deny=(TEAM,)))
    for visitor in (REPORTS, OWN.id("x"), None):
        decision = decide(where, visitor, GET)
        assert (decision.allowed, decision.passes, decision.reported) == (False, True, True)
    for binding in (decide(where, Refusal(Reason.CERT_EXPIRED), GET), decide(where, OTHER.id("x"), GET)):
        assert (binding.passes, binding.reported) == (False, False)
    assert not decide(where, PAYMENTS, Request("GET", "/")).passes
    assert not decide(replace(where, clients=Clients((OWN,), CertificateMode.REQUIRED)), None, GET).passes


def test_a_decision_is_no_truth_value():
    """Nobody can write ``if decide(...)`` by accident."""
    with pytest.raises(TypeError, match="passes"):
        bool(decide(host(), PAYMENTS, GET))


@given(some.hosts(), some.visitors, some.requests, st.randoms())
def test_order_never_changes_a_decision(where: Host, visitor: Visitor, request: Request, random: Random):
    """However routes and rules are shuffled, the decision is the same."""

    def shuffled(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(random.sample(items, len(items)))

    def shuffle(one: Route) -> Route:
        allow = one.allow if isinstance(one.allow, Open) else shuffled(one.allow)
        return replace(one, allow=allow, deny=shuffled(one.deny), methods=shuffled(one.methods))

    other = replace(where, routes=shuffled([shuffle(one) for one in where.routes]))
    assert outcome(decide(other, visitor, request)) == outcome(decide(where, visitor, request))


@given(some.hosts(), some.visitors, some.requests, some.rules, st.integers(0, 3))
def test_adding_a_deny_never_allows(where: Host, visitor: Visitor, request: Request, rule: Rule, at: int):
    """One deny more, on any route, lets nothing be allowed that was not."""
    at %= len(where.routes)
    stricter = replace(where.routes[at], deny=(*where.routes[at].deny, rule))
    other = replace(where, routes=(*where.routes[:at], stricter, *where.routes[at + 1 :]))
    assert decide(other, visitor, request).allowed <= decide(where, visitor, request).allowed


@given(some.hosts(), some.visitors, some.requests, some.rules, st.integers(0, 3))
def test_adding_an_allow_never_denies(where: Host, visitor: Visitor, request: Request, rule: Rule, at: int):
    """One allow more, on any route, takes nothing from anybody."""
    at %= len(where.routes)
    one = where.routes[at]
    laxer = one if isinstance(one.allow, Open) else replace(one, allow=(*one.allow, rule))
    other = replace(where, routes=(*where.routes[:at], laxer, *where.routes[at + 1 :]))
    assert decide(other, visitor, request).allowed >= decide(where, visitor, request).allowed


@settings(max_examples=50)
@given(some.hosts(), some.visitors, some.requests)
def test_nothing_is_allowed_without_an_allow(where: Host, visitor: Visitor, request: Request):
    """With all allows taken away only the session keys can be had; and what is allowed names the rule that allowed it."""
    closed = replace(where, routes=tuple(replace(one, allow=()) for one in where.routes))
    decision = decide(closed, visitor, request)
    assert not decision.allowed or (where.session and request.path == JWKS_PATH)
    allowed = decide(where, visitor, request)
    assert not allowed.allowed or allowed.rule is not None


@settings(max_examples=50)
@given(some.hosts(), some.refusals, some.requests)
def test_a_bad_certificate_is_never_waved_through(where: Host, refusal: Refusal, request: Request):
    """A refused certificate is refused with its own reason, on every route and in every mode."""
    decision = decide(where, refusal, request)
    assert (decision.passes, decision.status, decision.reason) == (False, 403, refusal.reason)


@settings(max_examples=50)
@given(some.hosts(), some.visitors, some.requests)
def test_a_replay_is_identical(where: Host, visitor: Visitor, request: Request):
    """The same question has the same answer, and it never passes without a route but for the session keys."""
    decision = decide(where, visitor, request)
    assert decision == decide(where, visitor, request)
    assert decision.route is not None or not decision.passes or request.path == JWKS_PATH
    assert not decision.reported or decision.route.mode is RouteMode.REPORT
