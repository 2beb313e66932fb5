"""The rotation of a running control plane: its steps, who holds them up, and a server that dies between any two of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from handfast.access.slice import parse_slice
from handfast.app import rotating
from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    AgentReport,
    AuthorityAnswer,
    EventList,
    Nothing,
    RevocationRequest,
)
from handfast.app.server.rotation import Rotation
from handfast.app.server.rotation_messages import AuthoritiesAnswer, RotationForce, RotationRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused, Unavailable
from handfast.io.credentials import Credential, new_key
from handfast.io.generations import Generations
from handfast.io.issuance import Issuance, IssuedCertificate
from handfast.sdk.contexts import client_context
from handfast.trust.csr import CsrFacts, read_csr
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.plan import LeafRequest
from handfast.trust.rotation import PACE, SETTLE
from tests.app.issuers import timeless
from tests.app.server.rotations import ROTATION, renew, rotate, seen, settled, stages
from tests.app.sites import Site, site
from tests.support.clock import FakeClock
from tests.support.ledger import FakeLedger

pytestmark = pytest.mark.usefixtures("timeless_tls")


async def acknowledge(here: Site, agent: Api) -> None:
    """Be an agent that takes the newest slice."""
    response = await agent.send("GET", "/v1/agents/self/world")
    report = AgentReport(acknowledged=parse_slice(response.content).digest)
    await agent.call("POST", "/v1/agents/self/report", Nothing, report)


async def steps(here: Site) -> list[str]:
    page = await here.operator.call("GET", "/v1/events", EventList, kind="rotation.stepped", last="100")
    return [f"{event['step']} {event['generation']}" for event in page.events]


async def test_with_nobody_there_a_rotation_goes_through(here: Site):
    """Chain and bundle, slices and the API's own certificate follow; each step is an event."""
    before = here.server.platform.authority
    assert stages(await rotate(here)) == ["issuing", "published"]
    assert stages(await settled(here)) == ["retired", "issuing"]
    after = here.server.platform.authority
    assert (after.root_der, after.bundle_pem) == (before.root_der, before.bundle_pem)
    assert after.issuing_der != before.issuing_der
    held = await here.issue("payments")
    assert held.leaf.aki == facts(after.issuing_der).ski
    assert pem_certificates(held.chain_pem)[1] == after.issuing_der
    assert here.server._kept.current.value
    assert here.server._kept.current.value.leaf.aki == held.leaf.aki
    assert await steps(here) == ["begin 2", "make 2", "publish 2", "switch 2", "retire 1"]


async def test_a_new_root_is_in_the_bundle_before_anything_is_issued_by_it(here: Site):
    """And the old one until nothing is left of it."""
    old = here.bundle
    answer = await rotate(here, root=True)
    assert len(pem_certificates(answer.bundle)) == 2
    public = await here.anonymous().call("GET", "/v1/authority", AuthorityAnswer)
    assert public.bundle == answer.bundle
    here.clock.set(here.clock.now() + 2 * SETTLE)
    held = await here.issue("payments")
    assert held.bundle_pem == answer.bundle
    assert held.leaf.aki == facts(pem_certificates(public.issuers)[0]).ski
    for _ in range(6):
        answer = await settled(here)
    assert stages(answer) == ["retiring", "issuing"]
    assert answer.waiting[0].names == ["payments"]
    here.clock.set(here.clock.now() + timedelta(days=1))
    answer = await settled(here)
    assert stages(answer) == ["retired", "issuing"]
    assert old not in answer.bundle
    assert len(pem_certificates(answer.bundle)) == 1


async def test_an_agent_holds_up_the_switch_until_it_has_the_slice(here: Site):
    """Named, with when it was heard of; its acknowledgement of an older slice does not count."""
    agent = await here.being(Role.AGENT)
    await acknowledge(here, agent)
    await rotate(here)
    (held,) = (await settled(here)).waiting
    assert (held.step, held.strands, [one.agent for one in held.agents]) == ("switch", 1, ["edge"])
    await acknowledge(here, agent)
    assert stages(await settled(here))[1] == "issuing"


async def test_an_agents_slice_has_all_that_count_and_the_issuing_one_first(here: Site):
    """Roots, issuers, and a list for each of them as soon as there is one for any."""
    await rotate(here, root=True)
    await here.issue("ledger")
    agent = await here.being(Role.AGENT)
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(name="ledger"))
    slice_ = parse_slice((await agent.send("GET", "/v1/agents/self/world")).content)
    assert len(slice_.roots) == 2
    assert pem_certificates(slice_.issuers[0])[0] == here.server.platform.authority.issuing_der
    assert {der for text in slice_.issuers for der in pem_certificates(text)} == set(
        here.server.platform.authorities.known_cas
    )
    assert len(slice_.crls) == 4


async def test_a_lost_agent_is_forced_past_by_its_number_or_forgotten(here: Site):
    """The wrong number is refused with the right one; afterwards nobody holds anything up."""
    await here.join("lost")
    await rotate(here, root=True)
    (held,) = (await settled(here)).waiting
    assert [one.agent for one in held.agents] == ["lost"]
    with pytest.raises(Refused) as caught:
        await here.operator.call(
            "POST", f"{ROTATION}/force", AuthoritiesAnswer, RotationForce(strands=held.strands + 1)
        )
    assert caught.value.refusal.reason is Reason.ROTATION_STRANDS
    assert "lost" in str(caught.value)
    answer = await here.operator.call("DELETE", "/v1/agents/lost", AuthoritiesAnswer)
    assert all(not one.agents for one in answer.waiting)
    with pytest.raises(Refused):
        await here.operator.call("DELETE", "/v1/agents/lost", AuthoritiesAnswer)
    (held,) = answer.waiting
    answer = await here.operator.call(
        "POST", f"{ROTATION}/force", AuthoritiesAnswer, RotationForce(strands=held.strands)
    )
    assert stages(answer) == ["retiring", "issuing"]
    events = (await here.operator.call("GET", "/v1/events", EventList, kind="rotation.stepped", last="1")).events
    assert (events[0]["step"], events[0]["stranded"]) == ("switch", held.strands)


async def test_there_is_a_way_back_before_and_after_the_switch(here: Site):
    """What was issued meanwhile stays good for as long as it lives."""
    first = here.server.platform.authority
    await rotate(here)
    assert stages(await here.operator.call("DELETE", ROTATION, AuthoritiesAnswer)) == ["issuing", "retiring"]
    assert stages(await settled(here)) == ["issuing", "retired"]
    held = await here.issue("ledger")
    await rotate(here)
    for _ in range(2):
        await settled(here)
    assert stages(await seen(here)) == ["retiring", "retired", "issuing"]
    between = await here.issue("payments")
    await here.operator.call("DELETE", ROTATION, AuthoritiesAnswer)
    assert here.server.platform.authority.issuing_der == first.issuing_der
    assert stages(await settled(here)) == ["issuing", "retired", "retiring"]
    for credential in (held, between):
        await renew(here.holder(credential))
    with pytest.raises(Refused):
        await here.operator.call("DELETE", ROTATION, AuthoritiesAnswer)


async def test_a_compromised_authority_is_refused_once_all_that_renewed_have_renewed(here: Site):
    """What is left of it is revoked, its own certificate is on the root's list, and the API takes no leaf of it."""
    left, renewing = await here.issue("ledger", ttl_seconds=86400), await here.issue("payments")
    old = here.server.platform.authority
    await rotate(here, compromised=True)
    answer = await settled(here)
    assert {name for one in answer.waiting for name in one.names} == {"ledger", "payments"}
    renewed = await here.issue("payments")
    here.clock.set(here.clock.now() + timedelta(minutes=2))
    (held,) = (await settled(here)).waiting
    assert (held.step, held.names, held.strands) == ("retire", ["ledger"], 1)
    await here.operator.call("POST", f"{ROTATION}/force", AuthoritiesAnswer, RotationForce(strands=1))
    await here.server._renew()
    denied = here.server.platform.slices.denied
    assert {left.leaf.fingerprint, renewing.leaf.fingerprint} <= denied
    assert renewed.leaf.fingerprint not in denied
    await renew(here.holder(renewed))
    for credential in (left, renewing):
        with pytest.raises(Refused):
            await renew(here.holder(credential))
    current = here.server.platform.slices.current.value
    assert current
    slice_ = parse_slice(current.body)
    assert len(slice_.crls) == 2
    assert not here.server.platform.authorities.accepts(old.issuer_facts.key_id.hex())


async def test_the_api_takes_no_leaf_that_a_retired_authority_signs(here: Site):
    """A thief with the old key can still make leaves below a root that counts, in any name, an operator's too."""
    platform, thief = here.server.platform, here.server.platform.issuance._authority.current
    await rotate(here)
    await settled(here)

    forging = Issuance(thief, FakeLedger(), here.clock)

    key = new_key()
    asked = read_csr(key.csr_pem.encode())
    assert isinstance(asked, CsrFacts)
    request = LeafRequest(identity=platform.trust_domain.id("handfast/operator/eve"), csr=asked, reserved=True)
    forged = await forging.issue(request, workload=None, requester="eve")
    assert isinstance(forged, IssuedCertificate)
    credential = Credential(key.key_pem, forged.chain_pem, forged.bundle_pem)
    with pytest.raises(Refused) as caught:
        await here.holder(credential).call("GET", "/v1/authorities", AuthoritiesAnswer)
    assert caught.value.refusal.reason is Reason.REVOKED_ISSUER


async def test_without_the_roots_key_nothing_begins(here: Site):
    """The operator is told which file; where the server would begin by itself, a finding tells, once."""
    (here.server.config.directory / "authority" / "root-key.pem").unlink()
    with pytest.raises(BadInput, match=r"root-key\.pem"):
        await rotate(here)
    assert stages(await seen(here)) == ["issuing"]
    here.clock.set(here.clock.now() + timedelta(days=260))
    for _ in range(3):
        await here.server.platform.rotation.go_on()
    assert "root-key.pem" in (await seen(here)).fault
    findings = (await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised")).events
    assert [event["reason"] for event in findings] == [Reason.ROTATION_STUCK]


async def test_one_begins_by_itself_when_a_third_of_the_life_is_left(here: Site):
    """And goes through; the next one begins a life later."""
    here.clock.set(here.clock.now() + timedelta(days=243))
    assert stages(await settled(here)) == ["issuing"]
    here.clock.set(here.clock.now() + timedelta(days=1))
    assert stages(await settled(here)) == ["retired", "issuing"]
    events = (await here.operator.call("GET", "/v1/events", EventList, kind="rotation.stepped", last="100")).events
    assert events[0]["requester"].startswith("server: a third")


async def test_a_root_that_has_expired_can_be_rotated(tmp_path: Path):
    """Nobody can say that they have the new one: nobody gets through. It goes on without them, and joins are possible again."""
    clock = FakeClock()
    async with site(tmp_path, clock) as here:
        await here.join("edge")
    clock.set(clock.now() + timedelta(days=3653))
    with pytest.raises(Refused) as caught:  # it has no certificate to serve with
        await site(tmp_path, clock).__aenter__()
    assert caught.value.refusal.reason is Reason.ISSUANCE_ISSUER_ENDS
    with pytest.raises(Refused) as caught:
        await rotating.begin(tmp_path, clock, "offline", root=False)
    assert caught.value.refusal.reason is Reason.ROTATION_ROOT_ENDS
    assert await rotating.begin(tmp_path, clock, "offline", root=True) == 2
    async with site(tmp_path, clock) as here:
        assert stages(await settled(here)) == ["retired", "issuing"]
        assert (await here.join("edge")).window.contains(clock.now())


async def test_an_issuing_authority_that_expired_while_the_server_was_off_is_replaced_at_its_start(tmp_path: Path):
    """The root still counts, so nobody has to do anything."""
    clock = FakeClock()
    async with site(tmp_path, clock) as here:
        bundle = here.bundle
    clock.set(clock.now() + timedelta(days=400))
    async with site(tmp_path, clock) as here:
        assert here.bundle == bundle
        assert stages(await seen(here))[1] == "issuing"


async def test_what_another_server_did_is_seen(here: Site):
    """Two over one ledger and one directory: the one that did nothing follows within seconds, and only one takes a step."""
    platform = here.server.platform
    directory = here.server.config.directory / "authority"
    other = Generations(directory, platform.trust_domain, None)
    second = Rotation(other, platform.rotation._rotations, platform.slices, platform.ledger, here.clock)
    await second.recall()
    await second.begin(root=True, compromised=False, requester="other")
    assert len(platform.rotation.rows) == 1
    await here.clock.advance(PACE.every_s)
    await platform.rotation.go_on()
    assert platform.rotation.rows == second.rows
    with pytest.raises(Refused):
        await second.begin(root=True, compromised=False, requester="other")


async def test_a_step_that_another_server_took_first_is_not_taken_twice(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Whoever was too late is told, and sees what is now."""
    rotation = here.server.platform.rotation

    async def late(*_: object) -> bool:
        return False

    monkeypatch.setattr(rotation._rotations, "save", late)
    with pytest.raises(Unavailable):
        await rotation.begin(root=False, compromised=False, requester="uid:0")


async def test_metrics_tell_stages_and_who_holds_up(here: Site):
    """In Prometheus' text format."""
    await here.join("lost")
    await rotate(here)
    await settled(here)
    text = (await here.server._measure()).decode()
    assert 'handfast_authority_stage{generation="2",stage="published"} 1.0' in text
    assert 'handfast_rotation_held_up_by{step="switch"} 1.0' in text
    assert "handfast_rotation_stuck 0.0" in text


async def test_only_operators_may(here: Site):
    """Nobody else sees who holds up what, and nobody else rotates."""
    for role in (Role.AGENT, Role.WORKLOAD, Role.NOBODY):
        api = await here.being(role)
        for method, path, body in (
            ("GET", "/v1/authorities", None), ("POST", ROTATION, RotationRequest()), ("DELETE", ROTATION, None),
            ("POST", f"{ROTATION}/force", RotationForce(strands=1)), ("DELETE", "/v1/agents/edge", None),
        ):  # fmt: skip
            with pytest.raises(Refused) as caught:
                await api.call(method, path, AuthoritiesAnswer, body)
            assert caught.value.refusal.reason in {Reason.CALLER_NOT_ALLOWED, Reason.CALLER_UNKNOWN}


async def test_clients_of_the_new_root_are_taken_as_soon_as_it_is_published(here: Site):
    """The front's own trust does not wait for its certificate."""
    await rotate(here, root=True)
    for _ in range(3):
        await settled(here)
    held = await here.issue("payments")
    context = timeless(client_context(held.chain_pem.encode(), held.key_pem.encode(), held.bundle_pem.encode()))
    await renew(here._closed_later(Api.remote(here.server.url, context)))
