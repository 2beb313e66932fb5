"""Who is waited for after a renewal, at the API: a lost answer, a copy, a long wait, a gateway, and a word that proves nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from handfast.access.slice import parse_slice
from handfast.app.client import Api
from handfast.app.server.messages import (
    AgentReport,
    AuthorityAnswer,
    CertificateAnswer,
    HostCertificateAnswer,
    HostCertificateRequest,
    Nothing,
    RenewRequest,
)
from handfast.base.events import ConnectionEnded, OfferedCertificate
from handfast.base.refusal import BadInput
from handfast.io.credentials import Credential, new_key
from handfast.io.encoding import encode_event
from handfast.io.ids import new_event_id
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import SETTLE
from tests.app.server.rotations import seen
from tests.app.server.test_est import Device, certificates, enrol, enrolled
from tests.app.sites import AGENT, DOMAIN, WORLD, Site

HOST = f"api.{DOMAIN}"
MILLISECOND = timedelta(milliseconds=1)


async def waited_for(here: Site, credential: Credential) -> dict[str, tuple[int, int]]:
    """Give who holds leaves of a credential's issuer: how many, and how many of them have a successor, used or not."""
    rotation = here.server.platform.rotation
    await rotation.outlook()
    leaves = await rotation._rotations.leaves_of(credential.leaf.aki, here.clock.now(), {})
    return {
        one.name: (one.count, one.renewed + one.copies)
        for one in leaves.holders
        if one.name not in {"handfast/server", "handfast/ocsp"}
    }


async def renewed(holder: Api) -> Credential:
    key = new_key()
    answer = await holder.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=key.csr_pem))
    return Credential(key.key_pem, answer.chain, answer.bundle)


async def use(here: Site, credential: Credential) -> None:
    """Call what anybody may call, with this certificate."""
    await here.holder(credential).call("GET", "/v1/authority", AuthorityAnswer)


async def test_a_renewal_replaces_once_the_new_certificate_is_used(here: Site):
    """Its holder may lose the answer, and renew with the old one again."""
    old = await here.issue("payments")
    await renewed(here.holder(old))
    assert await waited_for(here, old) == {"payments": (2, 1)}
    second = await renewed(here.holder(old))
    assert await waited_for(here, old) == {"payments": (3, 1)}
    await use(here, second)
    assert await waited_for(here, old) == {"payments": (2, 0)}  # the second one, and the one that nobody may have


async def test_a_copy_of_the_old_one_is_waited_for(here: Site):
    """As soon as it is seen, however long the first holder has used a new one."""
    old = await here.issue("payments")
    await use(here, await renewed(here.holder(old)))
    assert await waited_for(here, old) == {"payments": (1, 0)}
    here.clock.set(here.clock.now() + 2 * SETTLE)
    await use(here, old)
    assert await waited_for(here, old) == {"payments": (2, 1)}


async def connected(here: Site, gateway: Api, credential: Credential, *, ended: timedelta, lasted_ms: int = 0) -> None:
    """Have a gateway tell of a connection that is over."""
    event = ConnectionEnded(
        id=new_event_id(), at=here.clock.now() + ended, gateway=AGENT, listener="127.0.0.1:8443", host=HOST, peer="192.0.2.1:40000",
        server_name=HOST, tls_version="TLSv1.3", identity=credential.leaf.uri_sans[0],
        certificate=OfferedCertificate(fingerprint=credential.leaf.fingerprint), duration_ms=lasted_ms,
    )  # fmt: skip
    await gateway.call(
        "POST", "/v1/agents/self/report", Nothing, AgentReport(events=[msgspec.Raw(encode_event(event))])
    )


async def test_a_copy_that_a_gateway_lets_in_is_waited_for(here: Site):
    """By the moment at which its connection began: one from before the renewal was open all the time. Operators are told how many."""
    await here.apply()
    gateway, old = here.holder(await here.join()), await here.issue("payments")
    new = await renewed(here.holder(old))
    await use(here, new)
    here.clock.set(here.clock.now() + 2 * SETTLE)
    now, days = timedelta(0), timedelta(days=9)
    await connected(here, gateway, old, ended=now, lasted_ms=3 * round(SETTLE / MILLISECOND))
    for ended in (days, -days, datetime.min.replace(tzinfo=UTC) - here.clock.now()):
        await connected(here, gateway, old, ended=ended, lasted_ms=2**62)
    await connected(here, gateway, new, ended=now)
    assert (await waited_for(here, old))["payments"] == (1, 0)
    assert [row.copies for row in (await seen(here)).generations] == [0]
    await connected(here, gateway, old, ended=days, lasted_ms=-1)
    assert (await waited_for(here, old))["payments"] == (2, 1)
    assert [row.copies for row in (await seen(here)).generations] == [1]


async def test_an_agent_that_waited_with_the_old_one_is_no_copy(here: Site):
    """Its question was asked before it had the new one; that the answer came later says nothing."""
    await here.apply()
    old = await here.join()
    slow = here.holder(old)
    newest = parse_slice((await slow.send("GET", "/v1/agents/self/world")).content).digest
    watching = asyncio.create_task(
        slow.send("GET", "/v1/agents/self/world", query={"wait": "30"}, headers={"if-none-match": f'"{newest}"'})
    )
    await asyncio.sleep(0.2)
    await use(here, await renewed(here.holder(old)))
    name = "handfast/agent/edge"
    assert await waited_for(here, old) == {name: (1, 0)}
    here.clock.set(here.clock.now() + 2 * SETTLE)
    await here.apply(WORLD.replace("9000", "9001"))
    assert (await asyncio.wait_for(watching, 10)).status_code == 200
    assert await waited_for(here, old) == {name: (1, 0)}


async def test_a_device_that_enrols_again_replaces_its_certificate(here: Site):
    """Over EST as over the API."""
    await here.apply()
    device, next_ = Device(), Device()
    old = device.credential(here, await enrolled(here, device))
    answer = await enrol(here.holder(old), next_.csr(), operation="simplereenroll")
    new = next_.credential(here, certificates(answer)[0])
    assert await waited_for(here, old) == {"payments": (2, 1)}
    await use(here, new)
    assert await waited_for(here, old) == {"payments": (1, 0)}


async def host_certificate(agent: Api) -> str:
    """Get a certificate for the host; give its serial."""
    asked = HostCertificateRequest(host=HOST, csr=new_key().csr_pem)
    answer = await agent.call("POST", "/v1/agents/self/certificates", HostCertificateAnswer, asked)
    return facts(pem_certificates(answer.chain)[0]).serial


async def test_a_gateway_replaces_once_it_serves_the_new_one(here: Site):
    """It says so for itself alone: what another agent says of the same certificates changes nothing."""
    await here.apply()
    identity = await here.join()
    agent, other = here.holder(identity), here.holder(await here.join("west"))
    serials = [await host_certificate(agent) for _ in range(3)]
    theirs = await host_certificate(other)
    await other.call("POST", "/v1/agents/self/report", Nothing, AgentReport(serving=serials))
    gateways = {"handfast/gateway/edge": (3, 0), "handfast/gateway/west": (1, 0)}
    agents = {"handfast/agent/edge": (1, 0), "handfast/agent/west": (1, 0)}
    assert await waited_for(here, identity) == gateways | agents
    await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(serving=[serials[1], theirs]))
    assert await waited_for(here, identity) == gateways | agents | {"handfast/gateway/edge": (2, 0)}


@pytest.mark.parametrize("serving", [["x"], ["AB"], ["a" * 41], ["ab\n"], [""], ["ab"] * 101])
async def test_what_a_gateway_serves_is_bounded(here: Site, serving: list[str]):
    """Serials, and not many at a time."""
    agent = here.holder(await here.join())
    with pytest.raises(BadInput):
        await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(serving=serving))


async def test_a_leaf_that_came_with_the_new_root_is_not_waited_for(here: Site):
    """Though it was issued in the moments in which other servers may not know of it yet; one from before is."""
    platform = here.server.platform
    await here.issue("early")
    await platform.rotation.begin(root=True, compromised=False, requester="uid:0")
    credential = await here.issue("payments")
    assert len(pem_certificates(credential.bundle_pem)) == 2
    here.clock.set(here.clock.now() + SETTLE + timedelta(seconds=1))
    (held,) = (await platform.rotation.outlook()).waiting
    assert {"early"} <= set(held.leaves.names)
    assert "payments" not in held.leaves.names
