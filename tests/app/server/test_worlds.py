import asyncio

import pytest

from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    AuthorityAnswer,
    EventList,
    RevisionList,
    RevocationAnswer,
    RevocationRequest,
    StatusAnswer,
    TrafficRow,
    WorldAnswer,
)
from handfast.base.events import AgentJoined
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.ids import new_event_id
from handfast.trust.facts import facts, pem_certificates
from tests.app.server.test_agents import tell
from tests.app.sites import DOMAIN, WORLD, Site, problem, raw

WIDER = WORLD.replace("methods: [GET]", "methods: [GET, POST]")


async def diff(site: Site, text: str) -> WorldAnswer:
    return await site.operator.call("POST", "/v1/world/diff", WorldAnswer, text)


async def exported(api: Api, **query: str) -> tuple[str, str]:
    response = await api.send("GET", "/v1/world", query=query)
    return response.headers["handfast-revision"], response.text


async def test_an_apply_makes_a_revision_and_keeps_each(here: Site):
    """Revisions count up, each is kept as it was written, and the newest counts."""
    first, second = await here.apply(), await here.apply(f"# wider\n{WIDER}")
    assert [(one.revision, one.changed) for one in (first, second)] == [(1, True), (2, True)]
    assert first.digest != second.digest
    assert await exported(here.operator) == ("2", f"# wider\n{WIDER}")
    assert await exported(here.operator, revision="1") == ("1", WORLD)


async def test_what_was_applied_is_listed_in_pages(here: Site):
    """Newest first, with digest, time and requester, and where to go on; a list that is complete says so."""
    applied = [await here.apply(text) for text in (WORLD, WIDER, WORLD)]
    first = await here.operator.call("GET", "/v1/world/revisions", RevisionList, limit=2)
    second = await here.operator.call("GET", "/v1/world/revisions", RevisionList, limit=2, before=first.next)
    rows = [*first.revisions, *second.revisions]
    assert [(one.number, one.digest) for one in rows] == [(one.revision, one.digest) for one in reversed(applied)]
    assert {one.applied_at for one in rows} == {here.clock.now()}
    assert all(one.requester.startswith("operator/") or one.requester.startswith("uid:") for one in rows)
    assert (first.next, second.next) == (2, 0)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"before": "x"}, {"before": -1}])
async def test_a_page_of_revisions_is_bounded(here: Site, query: dict[str, int | str]):
    """A page holds from one to a thousand."""
    with pytest.raises(BadInput):
        await here.operator.call("GET", "/v1/world/revisions", RevisionList, **query)


async def test_to_apply_again_changes_nothing(here: Site):
    """The same world, also with other comments and spaces, is the same revision and no event."""
    await here.apply()
    slice_ = here.server.platform.slices.current.value
    for text in (WORLD, f"# a comment\n{WORLD}\n"):
        answer = await here.apply(text)
        assert (answer.revision, answer.changed) == (1, False)
    events = await here.operator.call("GET", "/v1/events", EventList, kind="world.applied")
    assert [event["revision"] for event in events.events] == [1]
    assert here.server.platform.slices.current.value is slice_


async def test_a_diff_changes_nothing(here: Site):
    """What a diff says it would do, it does not do."""
    await here.apply()
    before = (here.server.platform.slices.current.value, here.server.platform.ledger.event_head.value)
    answer = await diff(here, WIDER)
    assert (answer.revision, answer.changed) == (1, True)
    assert any("POST" in line for line in answer.effect)
    assert (here.server.platform.slices.current.value, here.server.platform.ledger.event_head.value) == before
    assert await exported(here.operator) == ("1", WORLD)
    assert not (await diff(here, WORLD)).changed


async def test_a_diff_tells_what_apply_tells(here: Site):
    """The effect that was shown is the effect that comes."""
    await here.apply()
    assert (await diff(here, WIDER)).effect == (await here.apply(WIDER)).effect


async def test_the_effect_counts_in_who_came(here: Site):
    """Who would be cut off, and how often they came in the last week, is said before it happens."""
    await here.apply()
    row = TrafficRow(
        host=f"api.{DOMAIN}", route="/", identity=f"spiffe://{DOMAIN}/payments", method="GET", code="", count=214
    )
    await tell(await here.being(Role.AGENT), traffic=[row])
    answer = await diff(here, WORLD.replace("methods: [GET]", "methods: [PUT]"))
    assert any("payments" in line and "214" in line for line in answer.effect), answer.effect


async def test_a_world_of_another_trust_domain_is_refused(here: Site):
    """A trust domain is chosen once; neither apply nor diff takes another one."""
    foreign = WORLD.replace(DOMAIN, "example.com")
    for method, path in (("PUT", "/v1/world"), ("POST", "/v1/world/diff")):
        response = await raw(here.operator, method, path, foreign)
        assert problem(response) == (400, "bad-input")
        assert "trust_domain" in response.json()["detail"]
    assert here.server.platform.slices.revision == 0


@pytest.mark.parametrize("text", ["", "[]", "{", "trust_domain: example.org\nhots: {}\n", "a: &a [*a]", "\x00"])
async def test_what_is_no_world_is_refused(text: str, here: Site):
    """A fault in the file changes nothing."""
    await here.apply()
    with pytest.raises(BadInput):
        await here.apply(text)
    assert await exported(here.operator) == ("1", WORLD)


async def test_a_world_that_is_not_unicode_is_refused(here: Site):
    """Bytes that are no UTF-8 are bad input."""
    assert problem(await raw(here.operator, "PUT", "/v1/world", b"trust_domain: \xff")) == (400, "bad-input")


@pytest.mark.parametrize(
    ("revision", "error"),
    [("2", Refused), ("0", Refused), *((text, BadInput) for text in ("", "x", "-1", "²", "9" * 30))],
)
async def test_only_what_was_applied_can_be_exported(revision: str, error: type[Exception], here: Site):
    """An unknown number is not found, and what is no number is bad input."""
    await here.apply()
    with pytest.raises(error):
        await exported(here.operator, revision=revision)


async def test_nothing_is_exported_before_the_first_apply(here: Site):
    """There is no empty world that nobody wrote."""
    with pytest.raises(BadInput):
        await exported(here.operator)


async def test_the_roots_are_everybodys(here: Site):
    """Anybody may have the public halves, and they chain."""
    answer = await here.anonymous().call("GET", "/v1/authority", AuthorityAnswer)
    root, issuing = facts(pem_certificates(answer.bundle)[0]), facts(pem_certificates(answer.issuers)[0])
    assert (answer.trust_domain, answer.bundle) == (DOMAIN, here.bundle)
    assert issuing.issuer == root.subject
    assert "PRIVATE" not in answer.bundle + answer.issuers


async def test_the_status_is_the_platform_at_a_glance(here: Site):
    """Authorities, certificates, hosts and agents are there."""
    await here.apply()
    await here.issue("payments")
    await here.being(Role.AGENT)
    status = await here.operator.call("GET", "/v1/status", StatusAnswer)
    assert (status.trust_domain, status.revision) == (DOMAIN, 1)
    assert [one["name"] for one in status.authority] == ["root", "issuing"]
    assert status.certificates["issued"] == 3
    assert status.next_name == "payments"
    assert [host["name"] for host in status.hosts] == [f"api.{DOMAIN}"]
    assert [(agent.name, agent.current) for agent in status.agents] == [("edge", False)]


async def test_the_status_says_which_agents_cannot_come_any_more(here: Site):
    """A revoked certificate and an expired one are told of, each with its reason; who can come is without a fault."""
    await here.being(Role.AGENT)

    async def fault() -> str:
        (agent,) = (await here.operator.call("GET", "/v1/status", StatusAnswer)).agents
        return agent.fault

    assert await fault() == ""
    (record,) = await here.server.platform.ledger.agents()
    request = RevocationRequest(serial=record.serial)
    assert record.ends
    here.clock.set(record.ends)
    assert await fault() == Reason.AGENT_EXPIRED.value
    here.clock.set(record.joined_at)
    await here.operator.call("POST", "/v1/revocations", RevocationAnswer, request)
    assert await fault() == Reason.AGENT_REVOKED.value


async def test_the_status_has_all_agents(here: Site):
    """Also of a fleet that is larger than a page of the ledger."""
    names = [f"edge-{number:04}" for number in range(1001)]
    at = here.clock.now()
    joined = [AgentJoined(id=new_event_id(), at=at, agent=name, serial="00") for name in names]
    await asyncio.gather(*map(here.server.platform.ledger.add_agent, joined))
    status = await here.operator.call("GET", "/v1/status", StatusAnswer)
    assert [agent.name for agent in status.agents] == names
