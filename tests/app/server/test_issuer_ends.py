"""The last days of an issuing CA that nobody replaces: what is issued ends with it, people are told, and afterwards all is as before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handfast.app.client import Api
from handfast.app.server.batch_messages import CertificateBatch, CertificateBatchAnswer
from handfast.app.server.messages import CertificateAnswer, CertificateRequest, EventList, RenewRequest
from handfast.app.server.rotation_messages import GenerationRow
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io.credentials import Credential, new_key
from handfast.io.responder import RESPONDER_NAME
from handfast.trust.facts import facts
from tests.app.server.rotations import rotate, seen, settled, stages
from tests.app.server.test_est import Device, certificates, enrol, enrolled
from tests.app.sites import AGENT, WORLD, Site, site

pytestmark = pytest.mark.usefixtures("timeless_tls")

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
LONG = WORLD.replace("ttl: 1h", "ttl: 30d")


async def without_root(here: Site, left: timedelta) -> Path:
    """Take the root's key away, let the issuing CA have so much left, and give where the key is now."""
    key = here.server.config.directory / "authority" / "root-key.pem"
    away = key.rename(here.server.config.directory / "away.pem")
    here.clock.set(here.server.platform.authority.issuer_facts.window.not_after - left)
    await here.server._renew()
    return away


async def ask(api: Api, name: str, **more: Any) -> CertificateAnswer:
    asked = CertificateRequest(name=name, csr=new_key().csr_pem, **more)
    return await api.call("POST", "/v1/certificates", CertificateAnswer, asked)


async def renewed(here: Site, held: Credential) -> CertificateAnswer:
    asked = RenewRequest(csr=new_key().csr_pem)
    return await here.holder(held).call("POST", "/v1/certificates/renew", CertificateAnswer, asked)


async def cut_short(here: Site) -> list[dict[str, Any]]:
    """Give the findings that say so."""
    raised = (await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised", last="100")).events
    return [event for event in raised if event["reason"] == Reason.ISSUANCE_CUT_SHORT]


async def issuing(here: Site) -> GenerationRow:
    (row,) = (row for row in (await seen(here)).generations if row.stage == "issuing")
    return row


async def test_what_would_outlive_its_issuer_ends_with_it(here: Site):
    """The server's own, an operator's and a workload's; each answer has the true end, and says that it was cut short."""
    await here.apply(LONG)
    assert (await issuing(here)).cut_short == 0
    await without_root(here, 3 * DAY)
    end = (await issuing(here)).ends
    assert here.server._kept.current.value
    assert here.server._kept.current.value.window.not_after == end
    for name, more in (("payments", {}), ("bob", {"operator": True, "ttl_seconds": 4 * 86400})):
        answer = await ask(here.operator, name, **more)
        assert (answer.not_after, answer.cut_short) == (end, True)
    whole = await ask(here.operator, "payments", ttl_seconds=3600)
    assert not whole.cut_short
    assert (await issuing(here)).cut_short == 3


async def test_a_device_gets_what_is_left(here: Site):
    """Over EST as over the API, for its first certificate and the next one."""
    await here.apply(LONG)
    await without_root(here, 3 * DAY)
    device, end = Device(), (await issuing(here)).ends
    first = await enrolled(here, device)
    (second,) = certificates(
        await enrol(here.holder(device.credential(here, first)), device.csr(), operation="simplereenroll")
    )
    assert [facts(der).window.not_after for der in (first, second)] == [end, end]


async def test_each_of_a_batch_says_it(here: Site):
    """The one that was cut short, and not the one beside it."""
    await without_root(here, 3 * DAY)
    asked = [
        msgspec.Raw(msgspec.json.encode(CertificateRequest(name=name, csr=new_key().csr_pem, ttl_seconds=life)))
        for name, life in (("ledger", 4 * 86400), ("payments", 3600))
    ]
    body = CertificateBatch(requests=asked)
    answer = await here.operator.call("POST", "/v1/certificates/batches", CertificateBatchAnswer, body)
    assert [one.certificate and one.certificate.cut_short for one in answer.results] == [True, False]


async def test_of_an_issuer_that_cuts_short_there_is_one_finding(here: Site):
    """However many leaves it cuts, and however often the server starts."""
    await without_root(here, 3 * DAY)
    await ask(here.operator, "bob", operator=True, ttl_seconds=4 * 86400)
    (raised,) = await cut_short(here)
    row = await issuing(here)
    assert row.ends
    assert raised["evidence"] == {"issuer": row.issuer, "issuer_ends": row.ends.isoformat()}
    await here.stack.aclose()
    async with site(here.server.config.directory, here.clock) as again:
        await ask(again.operator, "eve", operator=True, ttl_seconds=4 * 86400)
        assert len(await cut_short(again)) == 1


async def test_a_long_life_of_a_fresh_issuer_is_cut_and_nobodys_fault(here: Site):
    """The answer says so, and no finding does: the issuing CA lives for a year, and its successor comes by itself."""
    answer = await ask(here.operator, "ledger", ttl_seconds=396 * 86400)
    assert (answer.not_after, answer.cut_short) == ((await issuing(here)).ends, True)
    assert await cut_short(here) == []


async def test_in_its_last_minutes_it_says_what_to_do(here: Site):
    """A certificate of minutes is refused with the way out, and recorded; one that fits is not."""
    await without_root(here, 4 * MINUTE + timedelta(hours=1))
    here.clock.set(here.clock.now() + timedelta(hours=1))
    with pytest.raises(Refused) as caught:
        await ask(here.operator, "ledger")
    assert caught.value.refusal.reason is Reason.ISSUANCE_ISSUER_ENDS
    assert "handfast ca rotate" in caught.value.refusal.reason.hint
    refused = (await here.operator.call("GET", "/v1/events", EventList, kind="certificate.refused")).events
    assert [event["reason"] for event in refused if event["name"] == "ledger"] == [Reason.ISSUANCE_ISSUER_ENDS]
    assert not (await ask(here.operator, "ledger", ttl_seconds=120)).cut_short


async def test_once_the_issuer_is_replaced_lives_are_as_before(here: Site):
    """A renewal asks for the life of the certificate before: not for that of one which was cut short."""
    await here.apply(LONG)
    away = await without_root(here, 2 * timedelta(hours=1))
    end = (await issuing(here)).ends
    agent, *short = await here.join(), await here.issue("payments"), await here.issue("bob", operator=True)
    assert {one.window.not_after for one in (agent, *short)} == {end}
    here.clock.set(here.clock.now() + 40 * MINUTE)
    again = [await renewed(here, one) for one in (agent, *short)]
    assert [(one.not_after, one.cut_short) for one in again] == [(end, True)] * 3
    away.rename(here.server.config.directory / "authority" / "root-key.pem")
    await rotate(here)
    await here.operator.send("DELETE", f"/v1/agents/{AGENT}")  # nobody is there to take the new slice
    assert stages(await settled(here))[-1] == "issuing"
    after = [await renewed(here, one) for one in short]
    assert [round((one.not_after - here.clock.now()) / DAY) for one in after] == [30, 1]
    assert not any(one.cut_short for one in after)
    assert (await issuing(here)).cut_short == 0


async def test_a_responder_of_an_ended_issuer_is_refused_not_broken(here: Site):
    """The one that answers for the issuing CA ends with it, too, and asks for no negative life afterwards."""
    await without_root(here, DAY)
    responder = here.server.platform.responders.current()
    await responder.ensure()
    (held,) = await here.server.platform.ledger.live_by_name(RESPONDER_NAME, here.clock.now())
    assert held.not_after == (await issuing(here)).ends
    here.clock.set(here.clock.now() + DAY)
    with pytest.raises(Refused) as caught:
        await responder.ensure()
    assert caught.value.refusal.reason is Reason.ISSUANCE_ISSUER_ENDS
