import asyncio
from dataclasses import replace

import pytest

from handfast.app.server.messages import EventList, ExplanationAnswer
from handfast.base.events import Event, HandshakeRefused, OfferedCertificate, RequestDenied, RequestReported
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from tests.app.sites import DOMAIN, WORLD, Site
from tests.support.clock import START

DENIED = RequestDenied(
    id="7c1c0f0e", at=START, gateway="edge", host=f"api.{DOMAIN}", route="/", method="PUT", path="/v1/ledger", peer="192.0.2.1:40000",
    status=403, reason=Reason.POLICY_NO_MATCH, identity=f"spiffe://{DOMAIN}/payments", revision="1",
)  # fmt: skip
REFUSED = HandshakeRefused(
    id="h1", at=START, gateway="edge", listener="127.0.0.1:8443", peer="192.0.2.1:40000", server_name=f"api.{DOMAIN}",
    reason=Reason.CHAIN_MISSING_INTERMEDIATE, certificate=OfferedCertificate(subject="CN=payments", chain_length=1),
)  # fmt: skip


async def events(site: Site, **query: str) -> EventList:
    return await site.operator.call("GET", "/v1/events", EventList, **query)


async def add(site: Site, *several: Event) -> None:
    await site.server.platform.ledger.append(several)


async def test_events_come_in_order_and_go_on_where_one_stopped(here: Site):
    """Following ``next`` gives each event once."""
    await add(here, *(replace(REFUSED, id=f"h{number}") for number in range(5)))
    seen, after = [], "0"
    while (page := await events(here, after=after, limit="2")).events:
        seen += [event["id"] for event in page.events]
        after = str(page.next)
    assert seen[-5:] == [f"h{number}" for number in range(5)]
    assert [event["seq"] for event in (await events(here)).events] == list(range(1, len(seen) + 1))


async def test_an_event_comes_with_what_its_reason_means(here: Site):
    """The code, and beside it summary, side and hint."""
    await add(here, REFUSED)
    event = (await events(here, kind="handshake.refused")).events[0]
    reason = Reason.CHAIN_MISSING_INTERMEDIATE
    assert (event["reason"], event["summary"], event["side"], event["hint"]) == (
        reason,
        reason.summary,
        reason.side,
        reason.hint,
    )


async def test_kinds_select(here: Site):
    """Only the kinds that were named, and an unknown one is bad input."""
    await add(here, REFUSED, DENIED)
    assert [event["id"] for event in (await events(here, kind="request.denied")).events] == [DENIED.id]
    with pytest.raises(BadInput):
        await events(here, kind="nonsense")


async def test_the_last_few_come_oldest_first(here: Site):
    """``last`` counts from the newest, and ``next`` goes on from there."""
    await add(here, *(replace(REFUSED, id=f"h{number}") for number in range(5)))
    page = await events(here, last="2")
    assert [event["id"] for event in page.events] == ["h3", "h4"]
    assert (await events(here, after=str(page.next))).events == []


async def test_who_waits_for_events_gets_the_next_at_once(here: Site):
    """A long poll answers when something happens, to all who wait."""
    after = str((await events(here, last="1")).next)
    waiting = [asyncio.create_task(events(here, after=after, wait="10")) for _ in range(5)]
    while len(here.server.platform.ledger.event_head._waiters) < 6:
        await asyncio.sleep(0.01)
    await add(here, REFUSED)
    async with asyncio.timeout(5):
        pages = await asyncio.gather(*waiting)
    assert [[event["id"] for event in page.events] for page in pages] == [["h1"]] * 5


async def test_who_waits_in_vain_gets_an_empty_page(here: Site):
    """The wait ends, and ``next`` is where it began."""
    after = (await events(here, last="1")).next
    page = await events(here, after=str(after), wait="1")
    assert (page.events, page.next) == ([], after)


@pytest.mark.parametrize(
    "query", [{"wait": "56"}, {"limit": "501"}, {"last": "501"}, {"after": "-1"}, {"after": "x"}, {"after": "9" * 5000}]
)
async def test_a_query_out_of_bounds_is_bad_input(query: dict[str, str], here: Site):
    """Numbers are bounded, each by its own limit."""
    with pytest.raises(BadInput):
        await events(here, **query)


async def explain(site: Site, name: str) -> ExplanationAnswer:
    return await site.operator.call("GET", f"/v1/explanations/{name}", ExplanationAnswer)


async def test_a_denied_request_is_decided_again_by_the_rules_that_counted(here: Site):
    """The revision that denied explains, not the one that counts by now."""
    await here.apply()
    await add(here, DENIED)
    await here.apply(WORLD.replace("methods: [GET]", "methods: [PUT]"))
    answer = await explain(here, DENIED.id)
    assert answer.event["id"] == DENIED.id
    assert answer.decision is not None
    assert "GET" in str(answer.decision)
    assert "GET: identity matches; method PUT is not among GET" in answer.text
    assert "handfast explain" not in answer.text  # whoever reads this has asked already


@pytest.mark.parametrize(
    "event",
    [
        REFUSED,
        *(replace(DENIED, revision=text) for text in ("", "99", "²", "9" * 5000)),
        replace(DENIED, identity="payments"),
        replace(DENIED, host="gone"),
        replace(DENIED, reason=Reason.REVOKED),
    ],
    ids=[
        "a handshake",
        "no revision",
        "unknown",
        "no number",
        "long",
        "no identity",
        "unknown host",
        "not a matter of policy",
    ],
)
async def test_what_cannot_be_decided_again_is_told_all_the_same(event: Event, here: Site):
    """A story needs no replay."""
    await here.apply()
    await add(here, event)
    answer = await explain(here, event.id)
    assert answer.decision is None
    assert event.id in answer.text


async def test_a_reported_request_was_let_pass(here: Site):
    """In report mode the story says so."""
    fields = {name: getattr(DENIED, name) for name in DENIED.__dataclass_fields__}
    await here.apply()
    await add(here, RequestReported(**fields | {"status": 200}))
    answer = await explain(here, DENIED.id)
    assert "let pass" in answer.text
    assert answer.decision is not None


@pytest.mark.parametrize("name", ["unknown", "x" * 4000, "%00"])
async def test_an_unknown_id_is_not_found(name: str, here: Site):
    """Whatever the id looks like."""
    with pytest.raises(Refused) as caught:
        await explain(here, name)
    assert caught.value.refusal.reason is Reason.NOT_FOUND
