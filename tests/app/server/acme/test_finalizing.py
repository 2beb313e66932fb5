import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from handfast.app.server.messages import CertificateList
from handfast.base.events import AcmeOrderFinalized, CertificateRefused, CertificateRevoked
from handfast.base.refusal import Unavailable
from handfast.io.credentials import Credential
from handfast.trust.acme.keys import to_base64url
from handfast.trust.acme.renewal import CertificateId
from handfast.trust.facts import facts, pem_certificates
from tests.app.server.acme.client import Acme, Responder, problem
from tests.app.server.acme.conftest import ACME_WORLD
from tests.app.sites import DOMAIN, Site
from tests.support.acme import Csr, Signing, make_key


def ari(chain: str) -> str:
    leaf = facts(pem_certificates(chain)[0])
    return str(CertificateId(leaf.aki, leaf.serial))


async def ready(client: Acme, web: Responder, *names: str, **more: object) -> dict[str, object]:
    order = (await client.order(*names, **more)).json()
    await client.meet(order, web)
    return (await client.post(f"/order/{order['finalize'].split('/')[-2]}")).json()


async def certificate_of(client: Acme, web: Responder, *names: str) -> bytes:
    return pem_certificates(await client.obtain(web, *names))[0]


async def revoke(client: Acme, der: bytes, **more: object):
    return await client.post("/revoke-cert", {"certificate": to_base64url(der), **more})


async def test_a_certificate_is_the_workloads(client: Acme, web: Responder, here: Site):
    """It has the SPIFFE id of the workload that the key was made for, the order's names, and the life of its entry."""
    chain = await client.obtain(web)
    leaf, issuing = map(facts, pem_certificates(chain))
    assert leaf.uri_sans == (f"spiffe://{DOMAIN}/payments",)
    assert leaf.dns_sans == ("localhost",)
    assert leaf.subject == "CN=localhost"
    assert leaf.window.not_after == here.clock.now().replace(microsecond=0) + timedelta(hours=48)
    assert issuing.is_ca
    listed = await here.operator.call("GET", "/v1/certificates", CertificateList, name="payments")
    assert [row.requester for row in listed.certificates] == [f"acme account {client.kid.rpartition('/')[2]}"]
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["acme.order.finalized"])
    assert isinstance(event, AcmeOrderFinalized)
    assert (event.name, event.dns, event.serial) == ("payments", ("localhost",), leaf.serial)


async def test_a_certificate_opens_the_api_as_the_workload(client: Acme, web: Responder, here: Site):
    """What was obtained by ACME is a client certificate like any other."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = await client.obtain(web, csr=Csr(["localhost"], key=key))
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    holder = here.holder(Credential(key_pem, chain, here.bundle))
    caller = (await holder._client.get("/v1/status")).json()
    assert caller["code"] == "caller.not-allowed"
    assert f"spiffe://{DOMAIN}/payments" in caller["detail"]
    assert (await here.anonymous()._client.get("/v1/status")).json()["code"] == "caller.unknown"


@pytest.mark.parametrize(("profile", "hours"), [("workload", 48), ("server", 24), ("short", 1)])
async def test_a_profile_says_how_long(profile: str, hours: int, client: Acme, web: Responder, here: Site):
    """The profiles that the directory lists differ in life."""
    leaf = facts(pem_certificates(await client.obtain(web, profile=profile))[0])
    assert leaf.window.not_after == here.clock.now().replace(microsecond=0) + timedelta(hours=hours)


@pytest.mark.usefixtures("timeless_tls")
async def test_near_its_issuers_end_an_order_gets_what_is_left(client: Acme, web: Responder, here: Site):
    """The certificate says its end. In the issuer's last minutes the order fails, and the fault is not the client's."""
    end = here.server.platform.authority.issuer_facts.window.not_after
    (here.server.config.directory / "authority" / "root-key.pem").unlink()
    here.clock.set(end - timedelta(minutes=30))
    await here.server._renew()
    assert facts(pem_certificates(await client.obtain(web))[0]).window.not_after == end
    here.clock.set(end - timedelta(minutes=4))
    assert problem(await client.finalize(await ready(client, web), Csr(["localhost"]))) == (500, "serverInternal")


async def test_an_entry_is_never_exceeded(stranger: Acme, web: Responder, here: Site):
    """A profile's life is cut to the entry's."""
    await stranger.register(await stranger.make_binding("brief"))
    leaf = facts(pem_certificates(await stranger.obtain(web, profile="short"))[0])
    assert leaf.window.not_after == here.clock.now().replace(microsecond=0) + timedelta(minutes=10)


async def test_nothing_is_made_before_it_is_proved(client: Acme, web: Responder, here: Site):
    """A pending order is not finalized, nor one of which a name is not proved, nor one that failed."""
    pending = (await client.order()).json()
    assert problem(await client.finalize(pending, Csr(["localhost"]))) == (403, "orderNotReady")
    url = pending["authorizations"][0]
    challenge = (await client.post(url)).json()["challenges"][0]
    await client.post(challenge["url"], {})
    assert (await client.decided(url))["status"] == "invalid"
    assert problem(await client.finalize(pending, Csr(["localhost"]))) == (403, "orderNotReady")
    assert await here.server.platform.ledger.live_by_name("payments", here.clock.now()) == []


@pytest.mark.parametrize(
    "csr",
    [
        Csr(["localhost", "payments.internal"]),
        Csr(["payments.internal"]),
        Csr([], "payments.internal"),
        Csr(["localhost"], "payments.internal"),
        Csr([]),
        Csr(["localhost"], key=rsa.generate_private_key(65537, 1024)),
        Csr(["localhost"], key=ec.generate_private_key(ec.SECP256K1())),
    ],
    ids=["more", "other", "other-cn", "cn-beside", "none", "weak", "curve"],
)
async def test_a_csr_asks_for_the_order(csr: Csr, client: Acme, web: Responder):
    """Other names than the order's, or a key that may not be, are a bad CSR; the order stays ready for a better one."""
    order = await ready(client, web)
    assert problem(await client.finalize(order, csr)) == (400, "badCSR")
    assert (await client.finalize(order, Csr(["LocalHost"], "localhost"))).status_code == 200


async def test_the_accounts_own_key_is_no_certificates(client: Acme, web: Responder):
    """Who steals a web server's key must not have the account."""
    order = await ready(client, web)
    assert problem(await client.finalize(order, Csr(["localhost"], key=client.key.private))) == (400, "badCSR")


async def test_an_order_is_finalized_once(client: Acme, web: Responder, here: Site):
    """Of several at the same time one gets a certificate, and there is one."""
    order = await ready(client, web)
    answers = await asyncio.gather(*(client.finalize(order, Csr(["localhost"])) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 403, 403, 403, 403, 403]
    assert len(await here.server.platform.ledger.live_by_name("payments", here.clock.now())) == 1


@pytest.mark.parametrize("left", ["{payments: {dns: [payments.internal]}}", "{}"])
async def test_what_the_world_took_back_is_not_issued(left: str, client: Acme, web: Responder, here: Site):
    """A name that the entry lost after it was proved is refused, or lost with the entry; with the name the order can go on."""
    order = await ready(client, web)
    await here.apply(f"trust_domain: example.org\nworkloads: {left}\n")
    assert problem(await client.finalize(order, Csr(["localhost"]))) == (403, "rejectedIdentifier")
    assert await here.server.platform.ledger.live_by_name("payments", here.clock.now()) == []
    await here.apply(ACME_WORLD)
    assert (await client.finalize(order, Csr(["localhost"]))).status_code == 200


async def test_what_the_platform_refuses_ends_the_order(client: Acme, web: Responder, here: Site, monkeypatch):
    """A refusal while issuing is told, recorded, and the order has failed."""
    order = await ready(client, web)
    monkeypatch.setattr("handfast.app.server.acme.finalizing.life", lambda *_: timedelta(days=390))
    assert problem(await client.finalize(order, Csr(["localhost"]))) == (403, "unauthorized")
    shown = (await client.post(order["finalize"].removesuffix("/finalize"))).json()
    assert shown["status"] == "invalid"
    assert shown["error"]["type"].endswith(":unauthorized")
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["certificate.refused"])
    assert isinstance(event, CertificateRefused)
    assert event.requester.startswith("acme account ")


async def test_a_signer_that_is_away_ends_the_order(client: Acme, web: Responder, monkeypatch):
    """Nobody can tell what was signed, so this order is over; the client is told to begin another."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the token does not answer")

    order = await ready(client, web)
    monkeypatch.setattr("handfast.io.issuance.Issuance.issue", away)
    assert problem(await client.finalize(order, Csr(["localhost"]))) == (503, "serverInternal")
    assert (await client.post(order["finalize"].removesuffix("/finalize"))).json()["status"] == "invalid"


async def test_a_certificate_is_its_accounts(client: Acme, web: Responder, here: Site):
    """Another account sees neither order nor certificate, and cannot finalize."""
    order = await ready(client, web)
    other = Acme(here, here.anonymous())
    await other.register()
    for url in (order["finalize"].removesuffix("/finalize"), order["authorizations"][0]):
        assert problem(await other.post(url)) == (404, "malformed")
    assert problem(await other.finalize(order, Csr(["localhost"]))) == (404, "malformed")
    made = (await client.finalize(order, Csr(["localhost"]))).json()
    assert problem(await other.post(made["certificate"])) == (404, "malformed")
    answer = await client.post(made["certificate"])
    assert answer.headers["content-type"] == "application/pem-certificate-chain"


async def test_its_account_revokes(client: Acme, web: Responder, here: Site):
    """The account that got a certificate revokes it, with a reason; a second time it is revoked already."""
    der = await certificate_of(client, web)
    assert (await revoke(client, der, reason=4)).status_code == 200
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["certificate.revoked"])
    assert isinstance(event, CertificateRevoked)
    assert event.crl_reason == "superseded"
    assert event.requester == f"acme account {client.kid.rpartition('/')[2]}"
    assert facts(der).fingerprint in here.server.platform.slices.denied
    assert problem(await revoke(client, der)) == (400, "alreadyRevoked")


async def test_a_revocation_is_asked_for_once(client: Acme, web: Responder, here: Site):
    """The same bytes again are refused as such, by account and by key: whoever recorded them learns nothing of what has become of it."""
    key, url = make_key(), f"{client.base}/revoke-cert"
    (der, _) = pem_certificates(await client.obtain(web, csr=Csr(["localhost"], key=key.private)))
    for who, signer, status in (({"kid": client.kid}, client.key, 200), ({"jwk": key.jwk}, key, 400)):
        header = {"url": url, "nonce": await client.nonce(), **who}
        body = json.dumps(signer.jws({"certificate": to_base64url(der)}, header))
        assert (await client.send(url, body)).status_code == status
        assert problem(await client.send(url, body)) == (400, "badNonce")


async def test_its_key_revokes(client: Acme, web: Responder, here: Site):
    """Who has a certificate's key revokes it, without an account."""
    key = make_key()
    (der, _) = pem_certificates(await client.obtain(web, csr=Csr(["localhost"], key=key.private)))
    holder = Acme(here, here.anonymous(), key)
    assert (await revoke(holder, der, reason=1)).status_code == 200
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["certificate.revoked"])
    assert isinstance(event, CertificateRevoked)
    assert event.crl_reason == "keyCompromise"


async def test_others_do_not_revoke(client: Acme, web: Responder, here: Site):
    """Neither another key, nor another account of another or of the same workload that has proved nothing."""
    der = await certificate_of(client, web)
    for name in ("brief", "payments"):
        other = Acme(here, here.anonymous())
        await other.register(await client.make_binding(name))
        assert problem(await revoke(other, der)) == (403, "unauthorized")
    assert problem(await revoke(Acme(here, here.anonymous()), der)) == (403, "unauthorized")
    assert problem(await revoke(client, b"no certificate")) == (403, "unauthorized")
    assert here.server.platform.slices.denied == frozenset()


async def test_who_has_proved_the_names_revokes(client: Acme, web: Responder, here: Site):
    """An account of the same workload that has proved all names may revoke (RFC 8555 section 7.6); of another it may not."""
    der = await certificate_of(client, web)
    other, foreign = Acme(here, here.anonymous()), Acme(here, here.anonymous())
    await other.register()
    await foreign.register(await client.make_binding("brief"))
    for one in (other, foreign):
        await one.meet((await one.order()).json(), web)
    assert problem(await revoke(foreign, der)) == (403, "unauthorized")
    assert (await revoke(other, der)).status_code == 200


@pytest.mark.parametrize("reason", [6, 7, 8, 11, -1, "1", True, 1.5, None])
async def test_an_unknown_reason_is_refused(reason: object, client: Acme, web: Responder):
    """Reasons are those of RFC 5280 that can be given here."""
    der = await certificate_of(client, web)
    assert problem(await revoke(client, der, reason=reason)) == (400, "badRevocationReason")


async def test_renewal_is_suggested(client: Acme, web: Responder, here: Site):
    """The window lies in the last half of the life, and begins at once for what is revoked; anyone may ask."""
    chain = await client.obtain(web)
    leaf = facts(pem_certificates(chain)[0])
    stranger = Acme(here, here.anonymous())
    assert problem(await stranger.get(f"/renewal-info/{CertificateId('ab' * 20, leaf.serial)}")) == (404, "malformed")
    answer = await stranger.get(f"/renewal-info/{ari(chain)}")
    start, end = (datetime.fromisoformat(answer.json()["suggestedWindow"][name]) for name in ("start", "end"))
    assert leaf.window.not_before + leaf.window.length / 2 < start < end < leaf.window.not_after
    assert 7200 <= int(answer.headers["retry-after"]) <= 7210
    await revoke(client, pem_certificates(chain)[0])
    window = (await stranger.get(f"/renewal-info/{ari(chain)}")).json()["suggestedWindow"]
    assert datetime.fromisoformat(window["end"]) <= here.clock.now().astimezone(UTC)


@pytest.mark.parametrize("which", ["AAAA.AQ", "x", "AAAA.", ".AQ", "AAAA.AQ.AQ", "A" * 200, "AAAA.gA"])
async def test_unknown_certificates_have_no_renewal(which: str, client: Acme):
    """What is unknown, and what is no id, are told apart from ours."""
    status, kind = problem(await client.get(f"/renewal-info/{which}"))
    assert (status, kind) in {(404, "malformed"), (400, "malformed")}


async def test_a_certificate_is_replaced_once(client: Acme, web: Responder):
    """An order may say what it replaces; a second that says the same is refused, unless the first came to nothing."""
    old = ari(await client.obtain(web))
    first = (await client.order(replaces=old)).json()
    assert first["replaces"] == old
    assert problem(await client.order(replaces=old)) == (409, "alreadyReplaced")
    await client.post(first["authorizations"][0], {"status": "deactivated"})
    assert (await client.order(replaces=old)).status_code == 201


async def test_who_is_waited_for_after_an_order_that_replaces(client: Acme, web: Responder, here: Site):
    """The old one, until the new one was seen in use. What another account of the workload says of a certificate proves nothing."""
    chain = await client.obtain(web)
    leaf, rotation = facts(pem_certificates(chain)[0]), here.server.platform.rotation
    other = Acme(here, here.anonymous())
    await other.register(await client.make_binding())

    async def waited_for() -> int:
        await rotation.outlook()
        leaves = await rotation._rotations.leaves_of(leaf.aki, here.clock.now(), {})
        return sum(one.count for one in leaves.holders if one.name == "payments")

    async def use(chain: str) -> None:
        rotation.used(facts(pem_certificates(chain)[0]).serial)

    await use(first := await other.obtain(web, replaces=ari(chain)))
    assert await waited_for() == 2
    second = await other.obtain(web, replaces=ari(first))
    assert await waited_for() == 3
    await use(second)
    assert await waited_for() == 2


async def test_only_what_is_the_accounts_is_replaced(client: Acme, web: Responder, here: Site):
    """A certificate of another workload, without a name in common, or unknown, is not replaced."""
    old = ari(await client.obtain(web))
    other = Acme(here, here.anonymous())
    await other.register(await client.make_binding("brief"))
    assert problem(await other.order(replaces=old)) == (400, "malformed")
    assert problem(await client.order("payments.internal", replaces=old)) == (400, "malformed")
    for wrong in ("AAAA.AQ", "nonsense", 7):
        assert problem(await client.order(replaces=wrong)) == (400, "malformed")


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "EdDSA"])
async def test_every_algorithm_serves(algorithm: str, stranger: Acme, web: Responder):
    """An account of each kind of key gets a certificate."""
    stranger.key = make_key(algorithm)
    await stranger.register()
    assert "BEGIN CERTIFICATE" in await stranger.obtain(web)


async def test_a_new_key_takes_over(client: Acme, web: Responder):
    """After a key change the new key gets certificates, and the old one does not count."""
    old, new = client.key, make_key("ES384")
    answer = await change(client, new)
    assert answer.status_code == 200, answer.text
    assert problem(await client.order()) == (400, "badSignatureAlgorithm")
    client.key = new
    assert "BEGIN CERTIFICATE" in await client.obtain(web)
    assert old.thumbprint != new.thumbprint


async def change(client: Acme, new: Signing, **wrong: object):
    url = f"{client.base}/key-change"
    inner = new.jws({"account": client.kid, "oldKey": client.key.jwk, **wrong}, {"jwk": new.jwk, "url": url})
    return await client.post(url, inner)
