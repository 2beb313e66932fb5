from __future__ import annotations

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    HostCertificateAnswer,
    HostCertificateRequest,
    RevocationRequest,
    StapleAnswer,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal, Refused, Unavailable
from handfast.io.answers import ANEW
from handfast.io.credentials import new_key
from handfast.io.responder import Responder
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.staple import Staple, judge_staple, must_staple
from tests.app.server.status_sites import status_site
from tests.app.sites import AGENT, DOMAIN, WORLD, Site, problem, raw

HOST = f"api.{DOMAIN}"
STRICT = WORLD.replace("    listen:", "    must_staple: true\n    listen:")


async def host_certificate(api: Api, host: str = HOST) -> HostCertificateAnswer:
    request = HostCertificateRequest(host=host, csr=new_key().csr_pem)
    return await api.call("POST", "/v1/agents/self/certificates", HostCertificateAnswer, request)


async def staple(api: Api, serial: str) -> bytes:
    return (await api.call("GET", f"/v1/agents/self/staples/{serial}", StapleAnswer)).response


def judged(here: Site, chain: str, response: bytes) -> Staple | Refusal:
    leaf, issuer = pem_certificates(chain)
    return judge_staple(response, leaf, issuer, here.clock.now())


async def test_a_gateway_gets_certificates_for_hosts_of_the_world(here: Site):
    """The certificate names the host alone, under the gateway's identity, and demands no staple unless the world says so."""
    await here.apply()
    answer = await host_certificate(await here.being(Role.AGENT))
    der = pem_certificates(answer.chain)[0]
    assert facts(der).dns_sans == (HOST,)
    assert facts(der).uri_sans == (f"spiffe://{DOMAIN}/handfast/gateway/{AGENT}",)
    assert not must_staple(der)


@pytest.mark.parametrize("host", ["other.example.org", "payments.internal", "localhost", f"API.{DOMAIN}", "*"])
async def test_a_gateway_gets_no_certificate_for_another_name(host: str, here: Site):
    """What the world does not serve has no certificate."""
    await here.apply()
    with pytest.raises(Refused) as caught:
        await host_certificate(await here.being(Role.AGENT), host)
    assert caught.value.refusal.reason is Reason.ISSUANCE_NAME_NOT_ALLOWED


async def test_a_certificate_comes_with_its_first_staple(here: Site):
    """No status listener is needed for it, nor an address in the certificate."""
    await here.apply()
    answer = await host_certificate(await here.being(Role.AGENT))
    read = judged(here, answer.chain, answer.staple)
    assert isinstance(read, Staple)
    assert read.window.not_after > here.clock.now() + timedelta(minutes=59)
    leaf = x509.load_der_x509_certificate(pem_certificates(answer.chain)[0])
    assert not any(isinstance(one.value, x509.AuthorityInformationAccess) for one in leaf.extensions)


async def test_openssl_verifies_a_staple(here: Site, tmp_path: Path):
    """By the root alone: who signed it was certified for that by the issuer."""
    await here.apply()
    answer = await host_certificate(await here.being(Role.AGENT))
    files = {name: tmp_path / name for name in ("root", "issuer", "leaf", "staple")}
    leaf, issuer = pem_certificates(answer.chain)
    files["root"].write_text(here.bundle)
    for name, der in (("leaf", leaf), ("issuer", issuer)):
        files[name].write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    files["staple"].write_bytes(answer.staple)
    words = ("-respin", files["staple"], "-CAfile", files["root"], "-issuer", files["issuer"], "-cert", files["leaf"])
    done = subprocess.run(["openssl", "ocsp", *words], check=False, capture_output=True, text=True, timeout=20)
    assert "Response verify OK" in done.stderr
    assert f"{files['leaf']}: good" in done.stdout


async def test_the_next_staple_counts_for_longer(here: Site):
    """It is made anew when it is half an hour old, so that who asks after two thirds of its life gets another one."""
    await here.apply()
    api = await here.being(Role.AGENT)
    answer = await host_certificate(api)
    assert await staple(api, answer.serial) == answer.staple
    here.clock.set(here.clock.now() + ANEW)
    first, second = (
        judged(here, answer.chain, answer.staple),
        judged(here, answer.chain, await staple(api, answer.serial)),
    )
    assert isinstance(first, Staple)
    assert isinstance(second, Staple)
    assert second.window.not_after == first.window.not_after + ANEW


async def test_of_a_revoked_certificate_nothing_good_is_said(here: Site):
    """At once, also where a good answer was given a moment before."""
    await here.apply()
    api = await here.being(Role.AGENT)
    answer = await host_certificate(api)
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=answer.serial))
    refusal = judged(here, answer.chain, await staple(api, answer.serial))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.REVOKED


async def test_an_agent_is_told_of_its_own_gateways_certificates_alone(here: Site):
    """Neither of another agent's, nor of a workload's, nor of what is no serial."""
    await here.apply()
    ours, theirs = await here.being(Role.AGENT), here.holder(await here.join("other"))
    answer, workload = await host_certificate(ours), await here.issue("payments")
    assert await staple(ours, answer.serial)
    for api, serial in (
        (theirs, answer.serial),
        (ours, workload.leaf.serial),
        (ours, "00"),
        (ours, answer.serial.upper()),
        (ours, f"{answer.serial}%0A"),
        (ours, "f" * 500),
    ):
        assert problem(await raw(api, "GET", f"/v1/agents/self/staples/{serial}")) == (404, "not-found")


async def test_where_the_world_says_so_a_certificate_demands_its_staple(here: Site):
    """It carries the TLS feature extension, and the staple is there."""
    await here.apply(STRICT)
    answer = await host_certificate(await here.being(Role.AGENT))
    assert must_staple(pem_certificates(answer.chain)[0])
    assert isinstance(judged(here, answer.chain, answer.staple), Staple)


async def broken(_: object) -> None:
    raise Unavailable("the key cannot be used now")


async def test_none_that_demands_a_staple_is_issued_where_none_can_be_made(here: Site, monkeypatch: pytest.MonkeyPatch):
    """It could not be put in service. One that demands nothing is issued, and goes without for now."""
    api = await here.being(Role.AGENT)
    monkeypatch.setattr(Responder, "ensure", broken)
    await here.apply(STRICT)
    with pytest.raises(Unavailable):
        await host_certificate(api)
    assert not await here.server.platform.ledger.live_by_name(f"handfast/gateway/{AGENT}", here.clock.now())
    await here.apply()
    assert (await host_certificate(api)).staple == b""


async def test_strangers_and_gateways_get_their_answers_from_one_responder(tmp_path: Path):
    """A server that publishes status has one key and one certificate for both."""
    async with status_site(tmp_path) as here:
        await here.apply()
        answer = await host_certificate(await here.being(Role.AGENT))
        leaf = x509.load_der_x509_certificate(pem_certificates(answer.chain)[0])
        asked = await here.post(here.question(leaf))
        stapled = ocsp.load_der_ocsp_response(answer.staple)
        assert asked.certificates == stapled.certificates
        assert len(await here.server.platform.ledger.live_by_name("handfast/ocsp", here.clock.now())) == 1
