import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from httpx2 import Response

from handfast.access.slice import parse_slice
from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    AgentReport,
    EventList,
    Nothing,
    RevocationRequest,
    StatusAnswer,
    TrafficRow,
)
from handfast.base.events import CertificateIssued, Event, FindingRaised, HandshakeRefused, RequestDenied
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.io.encoding import decode_event, encode_event, to_plain
from tests.app.sites import AGENT, DOMAIN, WORLD, Site, problem, raw
from tests.support.clock import START

HOST = f"api.{DOMAIN}"


async def tell(api: Api, **parts: Any) -> None:
    await api.call("POST", "/v1/agents/self/report", Nothing, AgentReport(**parts))


def denied(number: int = 1, gateway: str = AGENT) -> dict[str, Any]:
    event = RequestDenied(
        id=f"request-{number}", at=START, gateway=gateway, host=HOST, route="/", method="GET", path="/", peer="192.0.2.1:1", status=403,
        reason=Reason.POLICY_NO_MATCH,
    )  # fmt: skip
    return to_plain(event)


async def recorded(site: Site, kind: str) -> list[dict[str, Any]]:
    return (await site.operator.call("GET", "/v1/events", EventList, kind=kind)).events


COUNTED = {"host": "h", "route": "/", "identity": "", "method": "GET", "code": "", "count": 1}

# The slice


async def watch(api: Api, known: str = "", wait: str = "0") -> tuple[int, str, bytes]:
    headers = {"if-none-match": f'"{known}"'} if known else {}
    response = await api.send("GET", "/v1/agents/self/world", query={"wait": wait}, headers=headers, timeout_s=20)
    return response.status_code, response.headers.get("etag", "").strip('"'), response.content


async def test_an_agent_gets_the_world_that_counts(here: Site):
    """The slice is whole, its digest is its tag, and a known one is not sent again."""
    await here.apply()
    api = await here.being(Role.AGENT)
    status, digest, body = await watch(api)
    slice_ = parse_slice(body)
    assert (status, digest) == (200, slice_.digest)
    assert (slice_.revision, set(slice_.world.hosts), slice_.denied) == (1, {HOST}, ())
    assert slice_.roots == (here.bundle,)
    assert await watch(api, digest) == (304, digest, b"")


async def test_a_blocking_query_answers_as_soon_as_something_changed(here: Site):
    """All who wait get the new slice at once, however many they are."""
    await here.apply()
    api = await here.being(Role.AGENT)
    _, known, _ = await watch(api)
    waiting = [asyncio.create_task(watch(api, known, "50")) for _ in range(20)]
    while len(here.server.platform.slices.current._waiters) < 20:
        await asyncio.sleep(0.01)
    await here.apply(WORLD.replace("methods: [GET]", "methods: [POST]"))
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*waiting)
    assert {(status, parse_slice(body).revision) for status, _, body in answers} == {(200, 2)}
    assert not here.server.platform.slices.current._waiters


async def test_a_blocking_query_ends_with_its_wait(here: Site):
    """Where nothing changed the answer is 304, and the agent has been heard of."""
    await here.apply()
    api = await here.being(Role.AGENT)
    _, known, _ = await watch(api)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert await watch(api, known, "1") == (304, known, b"")
    assert 0.9 < loop.time() - begin < 5


async def test_an_unknown_tag_is_no_reason_to_wait(here: Site):
    """An agent that has something else gets the slice at once."""
    async with asyncio.timeout(5):
        status, _, _ = await watch(await here.being(Role.AGENT), "0" * 32, "50")
    assert status == 200


@pytest.mark.parametrize("wait", ["56", "-1", "x", "1.5", "9" * 30])
async def test_a_wait_is_bounded(wait: str, here: Site):
    """Nobody holds a connection for longer than 55 seconds."""
    with pytest.raises(BadInput):
        await watch(await here.being(Role.AGENT), wait=wait)


async def test_a_revocation_is_in_the_slice_at_once(here: Site):
    """Deny list and lists of all issuers come with the answer to a waiting query."""
    await here.apply()
    held, api = await here.issue("payments"), await here.being(Role.AGENT)
    _, known, before = await watch(api)
    assert parse_slice(before).crls == ()
    waiting = asyncio.create_task(watch(api, known, "50"))
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=held.leaf.serial))
    async with asyncio.timeout(5):
        slice_ = parse_slice((await waiting)[2])
    assert slice_.denied == (held.leaf.fingerprint,)
    assert len(slice_.crls) == 2


async def test_a_revoked_agent_is_refused_everywhere(here: Site):
    """Its open connection gives no slice, no certificate and takes no report."""
    await here.apply()
    held = await here.join()
    api = here.holder(held)
    await watch(api)
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(name=f"handfast/agent/{AGENT}"))
    for method, path in (
        ("GET", "/v1/agents/self/world"),
        ("POST", "/v1/agents/self/certificates"),
        ("POST", "/v1/agents/self/report"),
    ):
        assert problem(await raw(api, method, path, b"{}")) == (403, "revocation.revoked")


# Reports


async def test_a_report_is_recorded_whole(here: Site):
    """Events, counts, findings and the acknowledged slice are there for the operator to see."""
    await here.apply()
    api = await here.being(Role.AGENT)
    _, digest, _ = await watch(api)
    row = TrafficRow(host=HOST, route="/", identity="", method="GET", code="policy.no-match", count=3)
    finding = to_plain(FindingRaised(id="f", at=START, source=AGENT, reason=Reason.ENVOY_DIED))
    await tell(api, acknowledged=digest, findings=[finding], events=[denied(), finding], traffic=[row])
    status = await here.operator.call("GET", "/v1/status", StatusAnswer)
    assert [(agent.name, agent.current, agent.findings) for agent in status.agents] == [(AGENT, True, [finding])]
    assert [event["id"] for event in await recorded(here, "request.denied")] == ["request-1"]
    assert [event["id"] for event in await recorded(here, "finding.raised")] == ["f"]
    counted = await here.server.platform.ledger.traffic(here.clock.now() - timedelta(hours=1))
    assert [(one.host, one.decision, one.count) for one in counted] == [(HOST, "policy.no-match", 3)]


async def test_an_event_that_is_told_twice_is_one_event(here: Site):
    """Agents send again what may not have arrived."""
    api = await here.being(Role.AGENT)
    for _ in range(2):
        await tell(api, events=[denied(1), denied(2)])
    assert [event["id"] for event in await recorded(here, "request.denied")] == ["request-1", "request-2"]


FOREIGN_KINDS: list[Event] = [
    CertificateIssued(
        id="c",
        at=START,
        serial="1",
        fingerprint="0",
        identity="x",
        dns=(),
        not_before=START,
        not_after=START,
        requester="x",
    ),
]


@pytest.mark.parametrize(
    "event",
    [
        denied(gateway="other"),
        denied(gateway="server"),
        to_plain(HandshakeRefused(id="h", at=START, gateway="other", listener="l", peer="p", reason=Reason.REVOKED)),
        to_plain(FindingRaised(id="f", at=START, source="other", reason=Reason.ENVOY_DIED)),
        *(
            to_plain(
                HandshakeRefused(id="h", at=START, gateway=AGENT, listener="l", peer="p", reason=Reason.REVOKED, more=n)
            )
            for n in (-1, 10**7, 10**400)
        ),
        *map(to_plain, FOREIGN_KINDS),
        {"kind": "agent.joined", "id": "j", "at": "2026-01-01T00:00:00Z", "agent": AGENT, "serial": "1"},
        {"kind": "nonsense", "id": "n", "at": "2026-01-01T00:00:00Z"},
        {},
    ],
)
async def test_an_agent_reports_of_itself_and_of_what_agents_see(event: dict[str, Any], here: Site):
    """Events of others and of foreign kinds are refused, and nothing of such a report is kept."""
    api = await here.being(Role.AGENT)
    with pytest.raises(BadInput):
        await tell(api, events=[denied(1), event], acknowledged="a" * 32)
    assert not await recorded(here, "request.denied")
    agent = await here.server.platform.ledger.agent(AGENT)
    assert agent is not None
    assert agent.acknowledged == ""


@pytest.mark.parametrize(
    "body",
    [
        {"events": [denied(n) for n in range(1001)]},
        {"acknowledged": "", "findings": [{}] * 101},
        {"acknowledged": "", "findings": [{"x": "y" * 70_000}], "events": [denied()], "traffic": [COUNTED]},
        {"acknowledged": "x" * 65},
        *(
            {"traffic": [COUNTED | {name: value}]}
            for name, value in (("count", -1), ("count", 2**63), ("count", 2**62), ("host", "h" * 1025))
        ),
    ],
    ids=["events", "findings", "a finding", "digest", "negative", "huge", "two of them are huge", "long"],
)
async def test_a_report_is_bounded(body: dict[str, Any], here: Site):
    """Too much of anything is bad input, and none of it is kept."""
    assert problem(await raw(await here.being(Role.AGENT), "POST", "/v1/agents/self/report", json.dumps(body))) == (
        400,
        "bad-input",
    )
    assert not await recorded(here, "request.denied")
    assert not await here.server.platform.ledger.traffic(here.clock.now() - timedelta(hours=1))


async def report_text(site: Site, event: str) -> tuple[Response, list[str]]:
    """Send an event as this text, and give the ledger's rows of its kind as they are."""
    text = f'{{"events": [{event}]}}'
    response = await raw(await site.being(Role.AGENT), "POST", "/v1/agents/self/report", text)
    rows = await site.server.platform.ledger._db.fetch("select body from events where kind = 'request.denied'")
    return response, [str(body) for (body,) in rows]


async def test_the_ledger_keeps_what_was_read_and_not_what_was_sent(here: Site):
    """Keys that nobody knows, and those that come twice, are not in the record: it is written anew from what was checked."""
    event = json.dumps(denied())
    spaced = event.replace('{"kind"', '{ "gateway": "other", "secret": "s", "kind"', 1)
    response, rows = await report_text(here, spaced)
    assert response.status_code == 200
    assert rows == [encode_event(decode_event(event.encode())).decode()]
    assert "other" not in rows[0]


@pytest.mark.parametrize(
    "event",
    [
        json.dumps(denied())[:-1] + ', "gateway": "other"}',
        json.dumps(denied())[:-1] + ', "kind": "agent.joined"}',
        json.dumps(denied()).replace('"path": "/"', '"path": "' + "a" * 65536 + '"'),
        json.dumps(denied()).replace('"path": "/"', '"path": "\\ud800"'),
        json.dumps(denied()).replace('"path": "/"', '"path": ' + "[" * 20_000 + "]" * 20_000),
        json.dumps(denied()).replace(START.isoformat().replace("+00:00", "Z"), "2026-01-01T00:00:00"),
        json.dumps(denied()).replace("request-1", "a b"),
    ],
    ids=["another's", "another kind", "long", "no text", "deep", "no zone", "no id"],
)
async def test_a_reported_event_is_read_strictly(event: str, here: Site):
    """What stands last counts in the check as in the record; size, text, depth, time and id are bounded as everywhere."""
    assert event != json.dumps(denied())
    response, rows = await report_text(here, event)
    assert (problem(response), rows) == ((400, "bad-input"), [])


async def test_a_report_without_a_digest_says_nothing_of_the_agents_state(here: Site):
    """Events that come on their own leave the acknowledged slice and the findings as they were."""
    api = await here.being(Role.AGENT)
    finding = to_plain(FindingRaised(id="f", at=START, source=AGENT, reason=Reason.ENVOY_DIED))
    await tell(api, acknowledged="a" * 32, findings=[finding])
    await tell(api, events=[denied()])
    agent = await here.server.platform.ledger.agent(AGENT)
    assert agent is not None
    assert (agent.acknowledged, agent.findings) == ("a" * 32, (finding,))
    await tell(api, acknowledged="", findings=[])
    agent = await here.server.platform.ledger.agent(AGENT)
    assert agent is not None
    assert (agent.acknowledged, agent.findings) == ("", ())


async def test_requests_are_counted_once_for_metrics_and_once_for_the_ledger(here: Site):
    """What an agent reports is in ``/metrics``, by decision."""
    await here.apply()
    api = await here.being(Role.AGENT)
    rows = [
        TrafficRow(host=HOST, route="/", identity="", method="GET", code=code, count=n)
        for code, n in (("", 5), ("policy.no-match", 2))
    ]
    await tell(api, traffic=rows)
    text = here.server.platform.metrics.text().decode()
    assert f'handfast_requests_total{{decision="allowed",gateway="{AGENT}",host="{HOST}"}} 5.0' in text
    assert f'handfast_requests_total{{decision="policy.no-match",gateway="{AGENT}",host="{HOST}"}} 2.0' in text
