from __future__ import annotations

import pytest
from hypothesis import given

from handfast.access.changes import Change, Kind, changes
from handfast.access.world import World
from handfast.access.world_file import parse_world
from tests.access import strategies as some

OLD = """
trust_domain: example.org
workloads: {payments: {ttl: 1h, dns: [a.internal]}}
hosts:
  a.org:
    listen: 8443
    routes:
      - {path: /v1, upstream: "http://a", allow: [payments, {identity: team/*, methods: [GET]}]}
      - {path: /v2, upstream: "http://a", allow: anyone}
"""


@pytest.mark.parametrize(
    ("was", "becomes", "expected"),
    [
        ("ttl: 1h", "ttl: 2h", Change(Kind.CHANGED, "workload payments", ("ttl 1h -> 2h",))),
        ("ttl: 1h", "ttl: 1h, must_staple: true", Change(Kind.CHANGED, "workload payments", ("must_staple false -> true",))),
        ("ttl: 1h", "ttl: 1h, owner: a", Change(Kind.CHANGED, "workload payments", ("owner nothing -> a",))),
        ("ttl: 1h, ", "", Change(Kind.CHANGED, "workload payments", ("ttl 1h -> 1d",))),
        ("[a.internal]", "[b.internal]", Change(Kind.CHANGED, "workload payments", ("dns + b.internal", "dns - a.internal"))),
        ("{payments:", "{ledger: {}, payments:", Change(Kind.ADDED, "workload ledger")),
        ("listen: 8443", "listen: 8444", Change(Kind.CHANGED, "host a.org", ("listen 0.0.0.0:8443 -> 0.0.0.0:8444",))),
        ("listen: 8443", "listen: 8443\n    session: true", Change(Kind.CHANGED, "host a.org", ("session false -> true",))),
        ("listen: 8443", "listen: 8443\n    must_staple: true", Change(Kind.CHANGED, "host a.org", ("must_staple false -> true",))),
        ("listen: 8443", "listen: 8443\n    clients: {certificate: optional}", Change(Kind.CHANGED, "host a.org", ("clients.certificate required -> optional",))),
        ("[payments, {", "[{", Change(Kind.CHANGED, "route a.org/v1", ("allow - payments",))),
        ("[GET]", "[GET, PUT]", Change(Kind.CHANGED, "route a.org/v1", ("allow + team/* GET, PUT", "allow - team/* GET"))),
        ("allow: anyone", "allow: any-certificate", Change(Kind.CHANGED, "route a.org/v2", ("allow anyone -> any-certificate",))),
        ("allow: anyone", "allow: []", Change(Kind.CHANGED, "route a.org/v2", ("allow anyone -> nobody",))),
        ("allow: anyone", "allow: anyone, deny: [x]", Change(Kind.CHANGED, "route a.org/v2", ("deny + x",))),
        ("allow: anyone", "allow: anyone, methods: [GET]", Change(Kind.CHANGED, "route a.org/v2", ("methods any -> GET",))),
        ("allow: anyone", "allow: anyone, mode: report", Change(Kind.CHANGED, "route a.org/v2", ("mode enforce -> report",))),
        ("allow: anyone", "allow: anyone, headers: {X-A: name}", Change(Kind.CHANGED, "route a.org/v2", ("headers.X-A nothing -> name",))),
        ("path: /v2", "path: /v3", Change(Kind.REMOVED, "route a.org/v2")),
        ("trust_domain: example.org", "trust_domain: example.net", Change(Kind.CHANGED, "trust domain", ("name example.org -> example.net",))),
    ],
)  # fmt: skip
def test_each_change_is_named(was: str, becomes: str, expected: Change):
    """One edit of the text is one change, named as the user wrote it, and undone it is its opposite."""
    assert was in OLD
    old, new = parse_world(OLD), parse_world(OLD.replace(was, becomes))
    assert expected in changes(old, new)
    assert {one.what for one in changes(old, new)} == {one.what for one in changes(new, old)}


def test_the_first_world_is_all_added():
    """Where there was no world, each thing in the first one is added, in order of kind and name."""
    assert [str(one.what) for one in changes(None, parse_world(OLD))] == [
        "trust domain", "workload payments", "host a.org", "route a.org/v1", "route a.org/v2",
    ]  # fmt: skip
    assert {one.kind for one in changes(None, parse_world(OLD))} == {Kind.ADDED}


@given(some.worlds(), some.worlds())
def test_only_equal_worlds_have_no_changes(old: World, new: World):
    """There is a change if and only if the worlds differ, each change of a thing has a detail, and each thing changes once."""
    found = changes(old, new)
    assert (not found) == (old == new)
    assert all(bool(one.details) == (one.kind is Kind.CHANGED) for one in found)
    assert len({one.what for one in found}) == len(found)
    assert changes(old, old) == ()
