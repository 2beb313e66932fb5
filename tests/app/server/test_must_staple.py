"""Certificates of workloads that demand a staple: by every road, and none where nobody could get one."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from cryptography.x509 import ocsp

from handfast.app.server.batch_messages import CertificateBatch, CertificateBatchAnswer
from handfast.app.server.messages import ENCODER, CertificateAnswer, CertificateRequest, RenewRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io import acme_challenges
from handfast.io.acme_challenges import LookSettings
from handfast.io.credentials import new_key
from handfast.trust.facts import pem_certificates
from handfast.trust.staple import Staple, judge_staple, must_staple
from tests.app.server.acme.client import Acme, responder
from tests.app.server.status_sites import StatusSite, leaf_of, status_site
from tests.app.server.test_est import Device, basic, certificates, enrol, enrolled, token
from tests.app.sites import DOMAIN, Site

LENIENT = f"trust_domain: {DOMAIN}\nworkloads:\n  payments: {{dns: [localhost], ttl: 1h}}\n  ledger: {{}}\n"
STRICT = LENIENT.replace("ttl: 1h", "ttl: 1h, must_staple: true")
RENEW = ("POST", "/v1/certificates/renew", CertificateAnswer)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[StatusSite]:
    """Give a site whose certificates name its responder."""
    async with status_site(tmp_path) as running:
        yield running


def demands(chain: str) -> bool:
    return must_staple(pem_certificates(chain)[0])


async def test_the_entry_decides_for_requests_renewals_and_batches(site: StatusSite):
    """One by one, renewed or in a batch, and for that entry alone; what is out already stays as it is until it is renewed."""
    await site.apply(LENIENT)
    held = await site.issue("payments")
    assert not must_staple(held.leaf_der)
    await site.apply(STRICT)
    assert must_staple((await site.issue("payments")).leaf_der)
    assert not must_staple((await site.issue("ledger")).leaf_der)
    renewed = await site.holder(held).call(*RENEW, RenewRequest(csr=new_key().csr_pem))
    assert demands(renewed.chain)
    asked = [
        msgspec.Raw(ENCODER.encode(CertificateRequest(name=name, csr=new_key().csr_pem)))
        for name in ("ledger", "payments")
    ]
    batched = await site.operator.call(
        "POST", "/v1/certificates/batches", CertificateBatchAnswer, CertificateBatch(requests=asked)
    )
    assert [demands(one.certificate.certificate) for one in batched.results if one.certificate] == [False, True]


async def test_the_entry_decides_for_est(site: StatusSite):
    """A device's first certificate and its next ones."""
    await site.apply(STRICT)
    device = Device()
    leaf = await enrolled(site, device)
    assert must_staple(leaf)
    holder = site.holder(device.credential(site, leaf))
    (again,) = certificates(await enrol(holder, device.csr(), operation="simplereenroll"))
    assert must_staple(again)
    assert again != leaf


async def test_the_entry_decides_for_acme(site: StatusSite, monkeypatch: pytest.MonkeyPatch):
    """An order's certificate demands what the entry of its account's workload does."""
    monkeypatch.setattr(acme_challenges, "PAUSES_S", ())
    async with responder() as web:
        site.server.platform.acme.lookout._settings = LookSettings(http_port=web.port)
        await site.apply(STRICT)
        client = Acme(site, site.anonymous())
        assert (await client.register()).status_code == 201
        assert demands(await client.obtain(web))


async def test_the_responder_that_it_names_gives_a_staple_for_it(site: StatusSite):
    """What a service has to staple is to be had from the first second on."""
    await site.apply(STRICT)
    held = await site.issue("payments")
    answer = await site.post(site.question(leaf_of(held)))
    assert answer.certificate_status is ocsp.OCSPCertStatus.GOOD
    response = (await site.get(site.question(leaf_of(held)))).content
    issuing = site.server.platform.authority.issuing_der
    assert isinstance(judge_staple(response, held.leaf_der, issuing, site.clock.now()), Staple)


async def test_without_a_responder_there_is_no_such_certificate(here: Site):
    """It would be refused wherever it is served: by every road it is not issued, an apply says so, and other workloads go on."""
    await here.apply(LENIENT)
    held = await here.issue("payments")
    assert (
        "payments: gets no certificate, as 'must_staple' needs a server with --status and --status-url"
        in (await here.apply(STRICT)).warnings
    )
    with pytest.raises(Refused) as caught:
        await here.issue("payments")
    assert caught.value.refusal.reason is Reason.ISSUANCE_NO_STATUS
    with pytest.raises(Refused) as caught:
        await here.holder(held).call(*RENEW, RenewRequest(csr=new_key().csr_pem))
    assert caught.value.refusal.reason is Reason.ISSUANCE_NO_STATUS
    answer = await enrol(here.anonymous(), Device().csr(), basic("payments", await token(here)))
    assert answer.json()["code"] == Reason.ISSUANCE_NO_STATUS
    assert not must_staple((await here.issue("ledger")).leaf_der)
