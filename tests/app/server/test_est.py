import base64
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs7
from cryptography.x509.oid import NameOID

from handfast.app.client import Api
from handfast.app.server.callers import Caller, Role
from handfast.app.server.est import Est
from handfast.app.server.messages import (
    EnrolmentTokenAnswer,
    EnrolmentTokenRequest,
    RevocationAnswer,
    RevocationRequest,
)
from handfast.base.events import CertificateIssued, CertificateRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io.credentials import Credential
from handfast.io.database import step
from handfast.io.issuance import Issuance
from handfast.trust.enrolment import CSR_ATTRIBUTES
from handfast.trust.facts import facts, pem, pem_certificates
from tests.app.sites import DOMAIN, WORLD, Site, problem, raw

EST = "/.well-known/est"
PKCS10 = "application/pkcs10"


class Device:
    """A device with a key of its own."""

    def __init__(self, name: str = "payments") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name

    def csr(self, *names: x509.GeneralName, common_name: str = "") -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or self.name)])
        builder = x509.CertificateSigningRequestBuilder(subject)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)

    def credential(self, site: Site, leaf: bytes) -> Credential:
        """Be what the device is with its new certificate."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Credential(key, pem(leaf) + site.server.platform.authority.chain_pem, site.bundle)


async def token(site: Site, name: str = "payments", **more: int) -> str:
    asked = EnrolmentTokenRequest(name=name, **more)
    return (await site.operator.call("POST", "/v1/est/tokens", EnrolmentTokenAnswer, asked)).token


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def enrol(api: Api, csr: bytes, authorization: str = "", operation: str = "simpleenroll", media: str = PKCS10):
    headers = {"content-type": media} | ({"authorization": authorization} if authorization else {})
    return await raw(api, "POST", f"{EST}/{operation}", base64.encodebytes(csr), **headers)


def certificates(response: httpx2.Response) -> list[bytes]:
    """Read a certs-only answer."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    content = base64.b64decode(b"".join(response.content.split()), validate=True)
    return [one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(content)]


async def enrolled(site: Site, device: Device) -> bytes:
    authorization = basic(device.name, await token(site, device.name))
    (leaf,) = certificates(await enrol(site.anonymous(), device.csr(), authorization))
    return leaf


async def test_anyone_gets_the_authorities(here: Site):
    """With or without the trust domain as label: the root, and the issuing CA."""
    for path in (f"{EST}/cacerts", f"{EST}/{DOMAIN}/cacerts"):
        found = certificates(await raw(here.anonymous(), "GET", path))
        authority = here.server.platform.authority
        assert sorted(found) == sorted(
            [*pem_certificates(authority.bundle_pem), *pem_certificates(authority.chain_pem)]
        )


async def test_the_attributes_are_told(here: Site):
    """A device learns what to put into its request before it is anybody."""
    response = await raw(here.anonymous(), "GET", f"{EST}/csrattrs")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/csrattrs")
    assert base64.b64decode(response.content) == CSR_ATTRIBUTES


@pytest.mark.parametrize("path", [f"{EST}/other.org/cacerts", f"{EST}/serverkeygen", f"{EST}/a/b/cacerts", EST])
async def test_nothing_else_is_there(here: Site, path: str):
    """Another label is another authority, which is not here; optional operations are not offered."""
    assert problem(await raw(here.anonymous(), "GET", path)) == (404, Reason.NOT_FOUND)


async def test_a_device_enrols_and_enrols_again(here: Site):
    """A token gives the entry's certificate; that one gives the next, for another key."""
    await here.apply()
    device = Device()
    leaf = await enrolled(here, device)
    seen = facts(leaf)
    assert (seen.uri_sans, seen.dns_sans) == ((f"spiffe://{DOMAIN}/payments",), ("payments.internal",))
    assert seen.window.not_after == here.clock.now().replace(microsecond=0) + timedelta(hours=1)
    next_ = Device()
    answer = await enrol(here.holder(device.credential(here, leaf)), next_.csr(), operation="simplereenroll")
    (renewed,) = certificates(answer)
    assert facts(renewed).uri_sans == seen.uri_sans
    assert facts(renewed).serial != seen.serial
    assert x509.load_der_x509_certificate(renewed).public_key() == next_.key.public_key()
    requesters = [e.requester for _, e in await here.server.platform.ledger.page(kinds=["certificate.issued"], limit=500)
                  if isinstance(e, CertificateIssued) and e.identity.endswith("/payments")]  # fmt: skip
    assert requesters[0].startswith("est:")
    assert requesters[1] == f"spiffe://{DOMAIN}/payments"


async def test_a_certificate_is_asked_for_again_as_it_is(here: Site):
    """RFC 7030 section 4.2.2: a request with the subject and names of the certificate itself is granted."""
    await here.apply()
    device = Device()
    leaf = await enrolled(here, device)
    held = x509.load_der_x509_certificate(leaf)
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    again = await enrol(here.holder(device.credential(here, leaf)), device.csr(*names), operation="simplereenroll")
    assert facts(certificates(again)[0]).dns_sans == ("payments.internal",)


async def test_a_token_is_good_once(here: Site):
    """The second device is refused with a challenge, and so is one with a token that was withdrawn."""
    await here.apply()
    authorization = basic("payments", await token(here))
    certificates(await enrol(here.anonymous(), Device().csr(), authorization))
    again = await enrol(here.anonymous(), Device().csr(), authorization)
    assert problem(again) == (401, Reason.TOKEN_NOT_VALID)
    assert again.headers["www-authenticate"].startswith("Basic realm=")


async def test_a_token_counts_and_ends(here: Site):
    """A counted token lets in as many; none lets anyone in after its time."""
    await here.apply()
    authorization = basic("payments", await token(here, uses=2, ttl_seconds=60))
    certificates(await enrol(here.anonymous(), Device().csr(), authorization))
    await here.clock.advance(60)
    assert problem(await enrol(here.anonymous(), Device().csr(), authorization)) == (401, Reason.TOKEN_NOT_VALID)


@pytest.mark.parametrize("user", ["", "ledger", "payments ", "PAYMENTS"])
async def test_a_token_is_one_names(here: Site, user: str):
    """The token of one workload opens nothing as another, and is not used up by trying."""
    await here.apply()
    secret = await token(here)
    assert problem(await enrol(here.anonymous(), Device().csr(), basic(user, secret))) == (401, Reason.TOKEN_NOT_VALID)
    certificates(await enrol(here.anonymous(), Device().csr(), basic("payments", secret)))


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !", "Basic cGF5bWVudHM=", "Bearer cGF5bWVudHM6eA==", "Basic /w==", "Basic cGF5bWVudHM6eA==!"],
)
async def test_without_a_token_nobody_enrols(here: Site, header: str):
    """Whatever stands in the Authorization field, it is answered with a challenge."""
    await here.apply()
    answer = await enrol(here.anonymous(), Device().csr(), header)
    assert problem(answer) == (401, Reason.CALLER_UNKNOWN)
    assert "www-authenticate" in answer.headers


async def test_names_beyond_the_entry_are_refused(here: Site):
    """A device cannot name itself; and a refused name does not use the token up."""
    await here.apply()
    device, authorization = Device(), basic("payments", await token(here))
    for csr in (
        device.csr(common_name="ledger"),
        device.csr(x509.DNSName("ledger.internal")),
        device.csr(x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/handfast/operator/eve")),
    ):
        answer = await enrol(here.anonymous(), csr, authorization)
        assert problem(answer) == (403, Reason.ISSUANCE_NAME_NOT_ALLOWED)
    certificates(await enrol(here.anonymous(), device.csr(), authorization))


async def test_a_forged_proof_of_possession_is_recorded(here: Site):
    """A CSR that was altered after it was signed is refused, costs the token, and stands in the records."""
    await here.apply()
    csr, authorization = Device().csr(), basic("payments", await token(here))
    forged = csr[:-1] + bytes((csr[-1] ^ 1,))
    assert problem(await enrol(here.anonymous(), forged, authorization)) == (403, Reason.ISSUANCE_BAD_PROOF)
    assert problem(await enrol(here.anonymous(), csr, authorization)) == (401, Reason.TOKEN_NOT_VALID)
    ((_, event),) = await here.server.platform.ledger.page(kinds=["certificate.refused"])
    assert isinstance(event, CertificateRefused)
    assert event.reason is Reason.ISSUANCE_BAD_PROOF


async def test_bodies_are_bounded_and_checked(here: Site):
    """Another type, too much, no base64, no CSR: each is 400, before anything is used up."""
    await here.apply()
    api, authorization, csr = here.anonymous(), basic("payments", await token(here)), Device().csr()
    for body, media in (
        (csr, "application/json"),
        (bytes(40_000), PKCS10),
        (bytes(20_000), PKCS10),
        (b"\x30\x00", PKCS10),
    ):
        assert problem(await enrol(api, body, authorization, media=media)) == (400, "bad-input")
    headers = {"content-type": PKCS10, "authorization": authorization}
    as_pem = await raw(api, "POST", f"{EST}/simpleenroll", pem(csr, "CERTIFICATE REQUEST"), **headers)
    assert problem(as_pem) == (400, "bad-input")
    certificates(await enrol(api, csr, authorization, media="Application/PKCS10; charset=x"))


async def test_who_has_no_certificate_cannot_renew(here: Site):
    """Neither a stranger, nor a token, nor the operator on the local socket re-enrols."""
    await here.apply()
    authorization = basic("payments", await token(here))
    for api in (here.anonymous(), here.operator):
        answer = await enrol(api, Device().csr(), authorization, operation="simplereenroll")
        assert problem(answer) == (401, Reason.CALLER_UNKNOWN)


async def test_the_platforms_own_do_not_enrol(here: Site):
    """An operator's and an agent's certificate are renewed elsewhere, and open nothing here."""
    for credential in (await here.issue("ann", operator=True), await here.join()):
        answer = await enrol(here.holder(credential), Device("ann").csr(), operation="simplereenroll")
        assert problem(answer) == (403, Reason.ENTRY_RESERVED)


async def test_a_gateways_certificate_does_not_enrol(here: Site):
    """Nor any other below the platform's own names that is neither an operator's nor an agent's."""
    gateway = Caller(Role.WORKLOAD, "handfast/gateway/edge", None, (await here.issue("payments")).leaf)
    with pytest.raises(Refused) as caught:
        await Est(here.server.platform, lambda _: gateway)._by_certificate(gateway)
    assert caught.value.refusal.reason is Reason.ENTRY_RESERVED


async def test_a_revoked_device_is_refused(here: Site):
    """Neither its certificate nor a token on its connection gets it another one."""
    await here.apply()
    device = Device()
    leaf = await enrolled(here, device)
    holder = here.holder(device.credential(here, leaf))
    secret = await token(here)
    request = RevocationRequest(serial=facts(leaf).serial)
    await here.operator.call("POST", "/v1/revocations", RevocationAnswer, request)
    assert problem(await enrol(holder, device.csr(), operation="simplereenroll")) == (403, Reason.REVOKED)
    assert problem(await enrol(holder, device.csr(), basic("payments", secret))) == (403, Reason.REVOKED)


async def test_a_device_that_is_revoked_while_it_renews_gets_nothing(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A renewal that began before the revocation and ends after it is not answered."""
    await here.apply()
    device = Device()
    leaf = await enrolled(here, device)
    inner = Issuance.issue

    async def slow(issuance: Issuance, *args: Any, **more: Any) -> Any:
        request = RevocationRequest(serial=facts(leaf).serial)
        await here.operator.call("POST", "/v1/revocations", RevocationAnswer, request)
        return await inner(issuance, *args, **more)

    monkeypatch.setattr(Issuance, "issue", slow)
    answer = await enrol(here.holder(device.credential(here, leaf)), Device().csr(), operation="simplereenroll")
    assert problem(answer) == (403, Reason.REVOKED)


async def test_a_device_that_the_ledger_does_not_know_is_refused(here: Site):
    """After a backup was restored it may be one that was revoked since; a token lets it in again."""
    await here.apply()
    device = Device()
    leaf = await enrolled(here, device)
    ledger = here.server.platform.ledger
    await ledger._db.write(step("delete from certificates where serial = $1", facts(leaf).serial))
    answer = await enrol(here.holder(device.credential(here, leaf)), device.csr(), operation="simplereenroll")
    assert problem(answer) == (401, Reason.CALLER_UNKNOWN)
    assert await ledger.live_by_name("payments", here.clock.now()) == []  # nothing was made for it either
    assert await enrolled(here, device)


async def test_without_an_entry_nobody_enrols(here: Site):
    """No token is made for a name that the world lacks; what was enrolled before ends with its entry."""
    answer = await raw(here.operator, "POST", "/v1/est/tokens", b'{"name": "payments"}')
    assert problem(answer) == (403, Reason.ENTRY_NO_MATCH)
    await here.apply()
    device = Device()
    leaf, spare = await enrolled(here, device), await token(here)
    await here.apply(WORLD.replace("payments", "reports"))
    renewal = await enrol(here.holder(device.credential(here, leaf)), device.csr(), operation="simplereenroll")
    assert problem(renewal) == (403, Reason.ENTRY_NO_MATCH)
    answer = await enrol(here.anonymous(), device.csr(), basic("payments", spare))
    assert problem(answer) == (403, Reason.ENTRY_NO_MATCH)
