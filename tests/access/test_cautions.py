from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from handfast.access.cautions import covers, endings, unstapled, warnings
from handfast.access.policy import Open, Rule
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.spiffe import SpiffeId
from tests.access import strategies as some
from tests.access.strategies import METHODS
from tests.support.partners import authority


def world(route: str, *, certificate: str = "optional", workloads: str = "{payments: {}, team/a: {}}") -> World:
    return parse_world(
        f"trust_domain: example.org\nworkloads: {workloads}\n"
        f"hosts: {{a.org: {{listen: 1, clients: {{certificate: {certificate}}}, routes: [{{path: /v1, upstream: 'http://a', {route}}}]}}}}"
    )


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("allow: [payments]", []),
        ("allow: [team/*, '*', {identity: handfast/operator/eve, methods: [GET]}]", ["allow team/* adds nothing: allow * covers it", "allow handfast/operator/eve adds nothing: allow * covers it"]),
        ("allow: anyone", ["lets in anyone, without a certificate"]),
        ("allow: any-certificate", ["lets in every identity of the trust domain"]),
        ("allow: []", ["allows nobody"]),
        ("allow: [payments], mode: report", ["is in report mode: what it would refuse is let pass"]),
        ("allow: [payment]", ["payment: no workload has this identity"]),
        ("allow: [teams/*]", ["teams/*: no workload has this identity"]),
        ("allow: ['spiffe://partner.org/x']", ["spiffe://partner.org/x: the host does not trust this trust domain"]),
        ("allow: [payments, team/a], deny: [team/*]", ["allow team/a has no effect: deny team/* covers it"]),
        ("allow: [team/a], deny: [{identity: team/*, methods: [POST]}]", []),
        ("allow: [{identity: team/a, methods: [POST]}], deny: [{identity: '*', methods: [GET, POST]}]", ["allow team/a has no effect: deny * covers it"]),
        ("allow: [payments, {identity: payments, methods: [GET]}]", ["allow payments adds nothing: allow payments covers it"]),
        ("allow: [{identity: payments, methods: [POST]}], methods: [GET]", ["allow payments has no effect: the route has none of its methods"]),
    ],
)  # fmt: skip
def test_what_is_pointed_at(route: str, expected: list[str]):
    """Each doubt is one sentence that begins with its host and route, and a route without doubts has none."""
    assert sorted(warnings(world(route))) == sorted(f"a.org/v1: {doubt}" for doubt in expected)


def test_what_depends_on_the_host():
    """Whether a host asks for certificates changes what its rules come to."""
    assert warnings(world("allow: anyone", certificate="required")) == [
        "a.org/v1: allows anyone, yet the host requires a certificate: nobody comes without one"
    ]
    assert "a.org/v1: its denies never apply, as the host asks for no certificate" in warnings(
        world("allow: anyone, deny: [payments]", certificate="off")
    )


def test_names_that_two_workloads_share():
    """Two workloads with one DNS name can stand in for each other towards those who look at DNS names."""
    shared = world("allow: [a]", workloads="{a: {dns: [x.org, y.org]}, b: {dns: [x.org]}, c: {}}")
    assert warnings(shared) == ["a: shares the DNS name x.org with b: each can stand in for the other"]


def test_staples_that_nobody_could_get_are_pointed_at():
    """For a server whose certificates name no place to ask: each workload that demands them, and no other."""
    found = world("allow: [a]", workloads="{a: {must_staple: true}, b: {must_staple: false}, c: {}}")
    assert unstapled(found) == [
        "a: gets no certificate, as 'must_staple' needs a server with --status and --status-url"
    ]
    assert warnings(found) == []


def test_what_has_ended_is_pointed_at():
    """By the name of the authority, the CA and the day; one that counts is not."""
    old, new = authority("Old", ends=timedelta(days=-1)), authority("New")
    entry = {"hosts": ["a.org"], "identities": [{"match": {"common_name": "x"}, "identity": "acme/x"}]}
    beta = {**entry, "identities": [{"match": {"common_name": "x"}, "identity": "beta/x"}]}
    plain = {
        "trust_domain": "example.org",
        "authorities": {
            "acme": entry | {"roots_pem": (old.cert_pem + new.cert_pem).decode()},
            "beta": beta | {"roots_pem": authority("Beta").cert_pem.decode()},
        },
        "hosts": {"a.org": {"listen": 1, "routes": [{"path": "/", "upstream": "http://a", "allow": ["acme/x"]}]}},
    }
    of, now = parse_world(json.dumps(plain)), datetime.now(UTC)
    day = old.cert.not_valid_after_utc
    assert endings(of, now) == [f"acme: CN=Old ended on {day:%Y-%m-%d}, so it does not count"]
    assert endings(of, day - timedelta(hours=1)) == []


@given(some.rules, some.rules, some.identities)
def test_covers_is_what_it_says(wide: Rule, narrow: Rule, identity: SpiffeId):
    """Where a rule covers another, it applies to each identity and method that the other applies to."""
    for method in METHODS if covers(wide, narrow) else ():
        applies = narrow.identity.matches(identity) and narrow.covers_method(method)
        assert not applies or (wide.identity.matches(identity) and wide.covers_method(method))
    assert covers(narrow, narrow)


@given(some.worlds())
def test_each_open_or_reporting_route_is_pointed_at(world: World):
    """However large a world is, no route that is open or only reports goes unmentioned."""
    found = warnings(world)
    for host in world.hosts.values():
        for route in host.routes:
            doubts = [one for one in found if one.startswith(f"{host.name}{route.path}: ")]
            assert doubts or route.allow is not Open.ANYONE
            assert any("report mode" in one for one in doubts) == (route.mode.value == "report")
    assert warnings(replace(world, hosts={})) == [one for one in found if "shares the DNS name" in one]


def test_a_large_world_is_looked_through_quickly():
    """A thousand rules on each of many routes over ten thousand workloads take about a second, not minutes."""
    names = [f"w{at}" for at in range(10_000)]
    rules = ", ".join(names[:1000])
    routes = ", ".join(f"{{path: /{at}, upstream: 'http://a', allow: [{rules}]}}" for at in range(5))
    large = parse_world(
        f"trust_domain: example.org\nworkloads: {{{', '.join(f'{name}: {{}}' for name in names)}}}\n"
        f"hosts: {{a.org: {{listen: 1, routes: [{routes}]}}}}"
    )
    began = time.process_time()
    assert warnings(large) == []
    assert time.process_time() - began < 2
