"""What a gateway that somebody else controls can make of the counts."""

import string
from datetime import timedelta

import pytest

from handfast.access.world_file import parse_world
from handfast.app.server.callers import Role
from handfast.app.server.counting import OTHER, counted
from handfast.app.server.messages import AgentReport, Nothing, TrafficRow
from handfast.io.ledger import TrafficCount
from tests.app.sites import AGENT, DOMAIN, WORLD, Site

HOST = f"api.{DOMAIN}"
HOSTS = parse_world(WORLD).hosts


def row(**more: object) -> TrafficRow:
    plain = {
        "host": HOST,
        "route": "/",
        "identity": f"spiffe://{DOMAIN}/payments",
        "method": "GET",
        "code": "",
        "count": 3,
    }
    return TrafficRow(**(plain | more))  # type: ignore[arg-type]


def test_what_the_world_knows_is_counted_as_it_is():
    """Host, route, method and code; an allowed request has no code."""
    found = counted(row(), HOSTS)
    assert found == TrafficCount(
        host=HOST, route="/", identity=f"spiffe://{DOMAIN}/payments", method="GET", decision="allowed", count=3
    )
    assert counted(row(code="policy.no-match"), HOSTS).decision == "policy.no-match"
    assert counted(row(method="other"), HOSTS).method == "other"


@pytest.mark.parametrize(("name", "field"), [("route", "route"), ("method", "method"), ("code", "decision")])
def test_what_it_does_not_know_is_one(name: str, field: str):
    """Of a host that is there, the rest of the row counts."""
    found = counted(row(**{name: "made-up"}), HOSTS)
    assert getattr(found, field) == OTHER
    assert (found.host, found.count) == (HOST, 3)


def test_all_of_an_unknown_host_is_one():
    """Two rows of hosts that are not there differ in nothing."""
    made_up = [row(host=f"{letter}.test", route=f"/{letter}", identity=letter, method=letter) for letter in "ab"]
    assert counted(made_up[0], HOSTS) == counted(made_up[1], HOSTS)
    assert counted(made_up[0], {}).host == OTHER


async def test_a_compromised_gateway_grows_neither_metrics_nor_memory(here: Site):
    """Whatever names it makes up, `/metrics` has one line for them, and the ledger one row."""
    await here.apply()
    api = await here.being(Role.AGENT)

    async def report(*rows: TrafficRow) -> int:
        await api.call("POST", "/v1/agents/self/report", Nothing, AgentReport(traffic=list(rows)))
        return len(here.server.platform.metrics.text())

    before = await report(row(), row(host="a", code="b"))
    for letter in string.ascii_letters:
        await report(*(row(host=f"{letter}{number}", route=letter, code=letter) for number in range(20)))
    assert await report() < before + 100
    text = here.server.platform.metrics.text().decode()
    assert f'handfast_requests_total{{decision="other",gateway="{AGENT}",host="other"}} {3 + 52 * 20 * 3}.0' in text
    kept = await here.server.platform.ledger.traffic(here.clock.now() - timedelta(hours=1))
    assert {(one.host, one.decision) for one in kept} == {(HOST, "allowed"), (OTHER, OTHER)}
