from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request

from handfast.app.client import Api
from handfast.app.server.callers import Caller, Role
from handfast.app.server.inventory_messages import BatchAnswer, BatchRequest, Selected, SelectorRequest
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    RenewRequest,
    RevocationAnswer,
    RevocationRequest,
)
from handfast.app.server.revocations import Revocations
from handfast.app.server.slices import Slices
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused
from handfast.io.credentials import Credential, new_key
from tests.app.sites import DOMAIN, Site


async def select(site: Site, **selector: str) -> Selected:
    request = SelectorRequest(**selector)
    return await site.operator.call("POST", "/v1/revocations/selected", Selected, request)


async def batch(api: Api, **more: Any) -> BatchAnswer:
    return await api.call("POST", "/v1/revocations/batches", BatchAnswer, BatchRequest(**more))


async def revoked_events(site: Site) -> list[str]:
    page = (await site.operator.send("GET", "/v1/events", query={"kind": "certificate.revoked"})).json()["events"]
    return [event["serial"] for event in page]


async def test_what_will_be_hit_is_told_and_nothing_is_changed(here: Site):
    """Count and certificates, before anything is revoked."""
    held = {(await here.issue(f"team/{name}")).leaf.serial for name in "abc"}
    await here.issue("teamwork")
    seen = await select(here, identity="team/*")
    assert (seen.count, {row.serial for row in seen.certificates}) == (3, held)
    assert await revoked_events(here) == []


async def test_whoever_is_answered_can_rely_on_it(here: Site):
    """What is asked of this server from then on is refused: it has not only noted that, and follows later."""
    platform = here.server.platform
    idle = Slices(platform.authorities, platform.ledger, platform.rotation._rotations, platform.clock)
    await idle.refresh()
    held, revocations = await here.issue("payments"), Revocations(replace(platform, slices=idle))
    request = Request({"type": "http"})
    answer = await revocations.revoke(Caller(Role.OPERATOR, "ann"), request, RevocationRequest(serial=held.leaf.serial))
    assert [row.serial for row in answer.revoked] == [held.leaf.serial]
    assert held.leaf.fingerprint in idle.denied


async def test_what_a_name_gets_meanwhile_is_revoked_too(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Who revokes a name means what it has when the answer comes, not what it had when the call began."""
    ledger, held = here.server.platform.ledger, [(await here.issue("payments")).leaf.serial]
    inner = ledger.revoke

    async def slowly(*args: Any) -> list[str]:
        if len(held) == 1:
            held.append((await here.issue("payments")).leaf.serial)
        return await inner(*args)

    monkeypatch.setattr(type(ledger), "revoke", lambda _, *args: slowly(*args))
    answer = await here.operator.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(name="payments"))
    assert [row.serial for row in answer.revoked] == held
    assert sorted(await revoked_events(here)) == sorted(held)


async def test_a_reason_that_cannot_be_given_is_said_before_anybody_is_asked(here: Site):
    """An operator who confirmed how many will be hit must not be refused after that."""
    await here.issue("a")
    with pytest.raises(BadInput):
        await select(here, identity="a", reason="certificateHold")


async def test_batches_hit_all_with_one_event_each(here: Site):
    """Whoever asks until nothing is left has revoked all, each told once, and gateways refuse them."""
    held = [await here.issue(f"team/{name}") for name in "abcde"]
    await here.issue("other")
    lefts = []
    while True:
        answer = await batch(here.operator, identity="team/*", limit=2, reason="superseded")
        lefts.append(answer.left)
        if not answer.left:
            break
    assert lefts == [3, 1, 0]
    assert sorted(await revoked_events(here)) == sorted(one.leaf.serial for one in held)
    assert here.server.platform.slices.denied == {one.leaf.fingerprint for one in held}
    assert (await batch(here.operator, identity="team/*")).revoked == []


async def test_a_pattern_for_all_spares_the_platform(here: Site):
    """`*` is every workload; the server, agents and operators are hit by name alone."""
    await here.issue("payments")
    await here.join()
    assert [row.name for row in (await select(here, identity="*")).certificates] == ["payments"]
    assert [row.name for row in (await select(here, identity="handfast/agent/*")).certificates] == [
        "handfast/agent/edge"
    ]


async def test_all_that_an_agent_asked_for_is_hit(here: Site):
    """Its own certificates, by join and by renewal, and those of the hosts that it served; not another agent's."""
    await here.apply()
    first = await here.join()
    agent, key = here.holder(first), new_key().csr_pem
    await agent.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=key))
    body = f'{{"host": "api.{DOMAIN}", "csr": "{new_key().csr_pem}"}}'.replace("\n", "\\n")
    await agent.send("POST", "/v1/agents/self/certificates", body)
    await here.join("other")
    await here.issue("payments")
    seen = await select(here, agent="edge")
    assert sorted(row.name for row in seen.certificates) == ["handfast/agent/edge"] * 2 + ["handfast/gateway/edge"]


async def test_one_certificate_by_what_it_is(here: Site):
    """By serial, by fingerprint; by its issuer among all that it issued."""
    held = await here.issue("a")
    key_id = here.server.platform.authority.issuer_facts.key_id.hex()
    for selector in ({"serial": held.leaf.serial}, {"fingerprint": held.leaf.fingerprint}):
        assert [row.serial for row in (await select(here, **selector)).certificates] == [held.leaf.serial]
    assert {row.name for row in (await select(here, issuer=key_id)).certificates} == {"a", "handfast/server"}


async def test_why_nothing_is_hit(here: Site):
    """Unknown, revoked and expired are told apart."""
    gone, old = await here.issue("a"), await here.issue("b", ttl_seconds=60)
    await batch(here.operator, serial=gone.leaf.serial)
    here.clock.set(here.clock.now() + timedelta(seconds=120))
    for selector, reason in (
        ({"identity": "nobody"}, Reason.NOT_FOUND),
        ({"serial": "0" * 40}, Reason.NOT_FOUND),
        ({"issuer": "00"}, Reason.NOT_FOUND),
        ({"agent": "nobody"}, Reason.NOT_FOUND),
        ({"serial": gone.leaf.serial}, Reason.ALREADY_REVOKED),
        ({"fingerprint": gone.leaf.fingerprint}, Reason.ALREADY_REVOKED),
        ({"serial": old.leaf.serial}, Reason.CERT_EXPIRED),
    ):
        with pytest.raises(Refused) as caught:
            await select(here, **selector)
        assert caught.value.refusal.reason is reason


@pytest.mark.parametrize(
    "selector",
    [
        {},
        {"identity": "a", "serial": "0" * 40},
        {"identity": "te*"},
        {"identity": "*/a"},
        {"identity": "anyone"},
        {"identity": "spiffe://other.org/a"},
        {"identity": "' or 1=1 --"},
        {"agent": "../x"},
        {"issuer": "zz"},
        {"fingerprint": "00"},
        {"serial": "0" * 41},
        {"identity": "a", "reason": "certificateHold"},
        {"identity": "a", "reason": "because"},
        {"identity": "a", "limit": 0},
        {"identity": "a", "limit": 501},
    ],
)
async def test_a_selector_that_makes_no_sense_hits_nothing(here: Site, selector: dict[str, Any]):
    """Exactly one kind, patterns as rules have them, of our trust domain, with a reason that can be given."""
    await here.issue("a")
    with pytest.raises(BadInput):
        await batch(here.operator, **selector)
    assert await revoked_events(here) == []


async def test_why_there_is_no_hold(here: Site):
    """The hint says it."""
    with pytest.raises(BadInput) as caught:
        await batch(here.operator, identity="a", reason="certificateHold")
    assert "stays revoked" in caught.value.hint


async def test_an_operator_who_revokes_himself_does_so_last(here: Site):
    """Else his second batch would be refused, and what is left stay good."""
    ann = here.holder(await here.issue("ann", operator=True))
    others = [await here.issue(f"op{n}", operator=True) for n in range(3)]
    lefts = [(await batch(ann, identity="handfast/operator/*", limit=2)).left for _ in range(2)]
    assert lefts == [2, 0]
    assert {one.leaf.serial for one in others} < set(await revoked_events(here))
    with pytest.raises(Refused):
        await batch(ann, identity="x")


@pytest.mark.parametrize("role", [Role.AGENT, Role.WORKLOAD, Role.NOBODY])
async def test_only_operators_revoke(here: Site, role: Role):
    """Nobody else, not even what is his own; and nobody else learns what there is."""
    api = await here.being(role)
    for path in ("/v1/revocations/selected", "/v1/revocations/batches"):
        with pytest.raises(Refused) as caught:
            await api.send("POST", path, '{"identity": "payments"}')
        assert caught.value.refusal.reason in {Reason.CALLER_UNKNOWN, Reason.CALLER_NOT_ALLOWED}


async def test_a_compromised_key_is_refused_in_every_request(here: Site):
    """Who stole a key asks in vain, under any name and on every way; the refusal is recorded."""
    key = new_key()
    request = CertificateRequest(name="a", csr=key.csr_pem)
    first = await here.operator.call("POST", "/v1/certificates", CertificateAnswer, request)
    await batch(here.operator, serial=first.serial, reason="keyCompromise")
    holder = here.holder(await _held(here))
    for api, path, body in (
        (here.operator, "/v1/certificates", CertificateRequest(name="b", csr=key.csr_pem)),
        (here.operator, "/v1/certificates", CertificateRequest(name="ann", csr=key.csr_pem, operator=True)),
        (holder, "/v1/certificates/renew", RenewRequest(csr=key.csr_pem)),
    ):
        with pytest.raises(Refused) as caught:
            await api.call("POST", path, CertificateAnswer, body)
        assert caught.value.refusal.reason is Reason.ISSUANCE_KEY_COMPROMISED
    page = (await here.operator.send("GET", "/v1/events", query={"kind": "certificate.refused"})).json()["events"]
    assert [event["reason"] for event in page] == [Reason.ISSUANCE_KEY_COMPROMISED.value] * 3


async def _held(here: Site) -> Credential:
    return await here.issue("c")
