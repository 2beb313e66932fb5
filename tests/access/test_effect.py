from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from handfast.access.decide import Request, decide
from handfast.access.effect import MOST_LINES, Shift, Traffic, Verdict, as_json, as_text, effect
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from tests.access import strategies as some
from tests.access.strategies import METHODS, NAMES, OWN, PATHS

OLD = """
trust_domain: example.org
hosts:
  api.example.org:
    listen: 8443
    clients: {certificate: optional}
    routes:
      - {path: /v1/ledger, upstream: "http://a", allow: [{identity: payments, methods: [GET, POST]}, reporting]}
      - {path: /health, upstream: "http://a", allow: anyone}
"""
OLD_WORLD = parse_world(OLD)
LEDGER = ("api.example.org", "/v1/ledger")
traffic = st.builds(
    Traffic,
    st.sampled_from(("api.example.org", "localhost", "gone.example.org")),
    st.sampled_from(PATHS),
    st.sampled_from(("", *NAMES, "spiffe://partner.org/x", "not an identity", "http://x")),
    st.sampled_from(METHODS),
    st.integers(1, 1000),
)


def shifts(becomes: tuple[str, str], *seen: Traffic) -> tuple[Shift, ...]:
    return effect(OLD_WORLD, parse_world(OLD.replace(*becomes)), seen).shifts


def test_a_loss_is_said_as_the_design_says_it():
    """An apply that takes POST from payments says so, with the requests that it would have refused."""
    new = parse_world(OLD.replace("[GET, POST]", "[GET]"))
    told = effect(
        OLD_WORLD, new, [Traffic(*LEDGER, "payments", "POST", 214), Traffic(*LEDGER, "payments", "GET", 9000)]
    )
    assert as_text(told).splitlines() == [
        "payments loses POST /v1/ledger on api.example.org; 214 such requests in the last 7 days (policy.no-match)",
        "~ route api.example.org/v1/ledger: allow + payments GET; allow - payments GET, POST",
    ]


def test_a_gain_names_what_it_was_refused_for():
    """Traffic that was refused and passes from now on gains, and the reason is the one it was refused for."""
    seen = Traffic(*LEDGER, "", "GET", 1)
    changed = effect(
        OLD_WORLD,
        parse_world(OLD.replace("[{identity: payments, methods: [GET, POST]}, reporting]", "anyone")),
        [seen],
        days=1,
    )
    assert changed.shifts == (Shift(Verdict.GAINS, "", "GET", *LEDGER, 1, Reason.CLIENT_NO_CERTIFICATE),)
    assert as_text(changed).startswith(
        "a client without a certificate gains GET /v1/ledger on api.example.org; 1 such request in the last day (client.no-certificate)"
    )


def test_report_mode_tells_what_would_be_lost():
    """A route that only reports takes nothing, and what it would take is counted; nor is it a gain to be reported."""
    new = ("reporting]}", "reporting], deny: [payments], mode: report}")
    found = shifts(new, Traffic(*LEDGER, "payments", "GET", 5), Traffic(*LEDGER, "reporting", "GET", 7))
    assert found == (Shift(Verdict.WOULD_LOSE, "payments", "GET", *LEDGER, 5, Reason.POLICY_DENIED),)


def test_hosts_routes_and_handshakes_count_too():
    """What a removed host, a removed route and a required certificate take is a loss like any other."""
    health = Traffic("api.example.org", "/health", "", "GET", 3)
    assert shifts(("optional", "required"), health)[0].reason is Reason.CLIENT_NO_CERTIFICATE
    assert shifts(("path: /health", "path: /healthz"), health)[0].reason is Reason.REQUEST_NO_ROUTE
    assert shifts(("  api.example.org:", "  b.example.org:"), health)[0].reason is Reason.TLS_UNKNOWN_NAME


def test_a_stricter_route_below_is_found_by_the_path():
    """Where the path is known it decides, and the loss is told under the route that was asked for."""
    new = ("- {path: /health,", "- {path: /v1/ledger/secret, upstream: 'http://a', allow: []}\n      - {path: /health,")
    seen = [
        Traffic(*LEDGER, "payments", "GET", 2, "/v1/ledger/secret/x"),
        Traffic(*LEDGER, "payments", "GET", 4, "/v1/ledger/x"),
    ]
    assert shifts(new, *seen) == (Shift(Verdict.LOSES, "payments", "GET", *LEDGER, 2, Reason.POLICY_NO_MATCH),)


def test_the_same_traffic_is_counted_together():
    """However an identity and a route are written, the same requests make one line with their sum."""
    seen = [
        Traffic(*LEDGER, "payments", "POST", 1),
        Traffic(*LEDGER, "spiffe://example.org/payments", "POST", 2),
        Traffic("api.example.org", "api.example.org/v1/ledger", "payments", "POST", 4),
    ]
    assert [shift.count for shift in shifts(("[GET, POST]", "[GET]"), *seen)] == [7]


def test_losses_come_first_and_the_largest_of_them():
    """An apply must not bring a loss unseen: losses stand before all else, the most frequent first, gains last."""
    new = ("[{identity: payments, methods: [GET, POST]}, reporting]", "[ledger]")
    found = shifts(
        new,
        *(Traffic(*LEDGER, who, "GET", count) for who, count in [("ledger", 99), ("reporting", 1), ("payments", 50)]),
    )
    assert [(shift.verdict, shift.identity) for shift in found] == [
        ("loses", "payments"),
        ("loses", "reporting"),
        ("gains", "ledger"),
    ]


def test_nothing_and_very_much():
    """An apply that changes nothing says so, and one that changes very much is cut with a count."""
    assert as_text(effect(OLD_WORLD, OLD_WORLD, [Traffic(*LEDGER, "payments", "GET", 1)])) == "nothing changes"
    many = parse_world(
        f"trust_domain: example.org\nworkloads: {{{', '.join(f'w{at}: {{}}' for at in range(MOST_LINES + 50))}}}"
    )
    lines = as_text(effect(None, many, [])).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (MOST_LINES + 1, "+ trust domain", "and 51 more")


def test_the_json_face_has_all_of_it():
    """The JSON face carries changes and shifts as values."""
    new = parse_world(OLD.replace("[GET, POST]", "[GET]"))
    plain = json.loads(json.dumps(as_json(effect(OLD_WORLD, new, [Traffic(*LEDGER, "payments", "POST", 3)]))))
    assert plain["shifts"] == [
        {"verdict": "loses", "identity": "payments", "method": "POST", "host": LEDGER[0], "path": LEDGER[1], "count": 3, "reason": "policy.no-match"}
    ]  # fmt: skip
    assert (plain["days"], plain["changes"][0]["kind"], plain["changes"][0]["what"]) == (
        7,
        "changed",
        "route api.example.org/v1/ledger",
    )


@given(some.worlds(), some.worlds(), st.lists(traffic, max_size=8))
def test_a_shift_is_a_decision_that_differs(old: World, new: World, seen: list[Traffic]):
    """Gains and losses are exactly the traffic whose passing differs between the worlds, and swapping them swaps the two."""

    def passes(world: World, one: Traffic) -> bool:
        if one.host not in world.hosts:
            return False
        if "://" in one.identity or " " in one.identity:
            return False
        return decide(
            world.hosts[one.host], OWN.id(one.identity) if one.identity else None, Request(one.method, one.route)
        ).passes

    clean = [one for one in seen if "://" not in one.identity and " " not in one.identity]
    forth, back = effect(old, new, clean).shifts, effect(new, old, clean).shifts
    expected = {True: 0, False: 0}
    for one in clean:
        if passes(old, one) != passes(new, one):
            expected[passes(new, one)] += one.count
    for found, gained in ((forth, True), (back, False)):
        assert sum(shift.count for shift in found if shift.verdict == Verdict.GAINS) == expected[gained]
        assert sum(shift.count for shift in found if shift.verdict == Verdict.LOSES) == expected[not gained]
    effect(old, new, seen)
    assert effect(new, new, seen).shifts == ()
