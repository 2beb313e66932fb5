from __future__ import annotations

import pytest
from hypothesis import given

from handfast.access.host_file import MAX_HEADERS, host_document, parse_host
from handfast.access.policy import Host, IdentityPattern, Rule
from handfast.access.yaml_lines import parse_yaml
from handfast.base.refusal import BadInput
from tests.access import strategies as some
from tests.access.strategies import OWN


def host(route: str = "allow: []", more: str = "") -> Host:
    text = f"{{listen: 8443, routes: [{{path: /, upstream: 'http://a', {route}}}]{more}}}"
    return parse_host("a.org", parse_yaml(text), own=OWN)


@pytest.mark.parametrize(
    ("route", "more", "message"),
    [
        ("allow: {identity: a}", "", "a list"),
        ("allow: [[a]]", "", "a mapping"),
        ("allow: [{identity: [a]}]", "", "a single value"),
        ("allow: [{methods: [GET]}]", "", "'identity' is missing"),
        ("allow: [{identity: a, method: GET}]", "", "not a known key"),
        ("allow: [a, a]", "", "written twice"),
        ("allow: [a, 'spiffe://example.org/a']", "", "written twice"),
        ("allow: [{identity: a, methods: [GET, POST]}, {identity: a, methods: [POST, GET]}]", "", "written twice"),
        ("allow: [{identity: a, methods: [GET, GET]}]", "", "written twice"),
        ("allow: [{identity: a, methods: GET}]", "", "a list"),
        ("allow: ~", "", "not one of anyone"),
        ("allow: [], deny: anyone", "", "a list"),
        ("allow: [], deny: ~", "", "a list"),
        ("allow: [], mode: off", "", "not one of enforce, report"),
        ("allow: [], headers: {X-A: password}", "", "not one of identity"),
        ("allow: [], headers: [X-A]", "", "a mapping"),
        (f"allow: [], headers: {{{', '.join(f'X-{at}: name' for at in range(MAX_HEADERS + 1))}}}", "", "are the most"),
        ("allow: []", ", session: maybe", "neither true nor false"),
        ("allow: []", ", must_staple: 1", "neither true nor false"),
        ("allow: []", ", clients: {trust: []}", "at least one"),
        ("allow: []", ", clients: {trust: [example.org, example.org]}", "written twice"),
        ("allow: []", ", clients: {require: true}", "not a known key"),
        ("allow: []", ", tls: {}", "not a known key"),
    ],
)
def test_what_a_host_may_not_say(route: str, more: str, message: str):
    """Each wrong key or value of a host, a route or a rule is refused by name."""
    with pytest.raises(BadInput, match=message):
        host(route, more)


def test_order_is_not_kept():
    """Two hosts that were written in another order, and decide alike, are equal."""
    rules = "allow: [b, {identity: a, methods: [POST, GET]}], methods: [GET, POST]"
    assert host(rules) == host("allow: [{identity: a, methods: [GET, POST]}, b], methods: [POST, GET]")
    assert host(rules).routes[0].allow == (
        Rule(IdentityPattern(OWN, "a"), ("GET", "POST")),
        Rule(IdentityPattern(OWN, "b")),
    )


def test_a_hosts_name_is_a_dns_name():
    """A host is known by the name that clients send, which no wildcard, port or upper case letter is part of."""
    for name in ("A.org", "*.org", "a.org:8443", "10.0.0.1", "a..org"):
        with pytest.raises(BadInput):
            parse_host(name, parse_yaml("{listen: 1, routes: []}"), own=OWN)


@given(some.hosts())
def test_what_is_written_is_read_back(one: Host):
    """A host's plain values read back to it."""
    text = repr(host_document(one, own=OWN)).replace("True", "true")
    assert parse_host(one.name, parse_yaml(text), own=OWN) == one
