"""The trust domain's own limits, through the API."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.app.server.messages import CertificateAnswer, CertificateRequest, RenewRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import Refused
from handfast.io.credentials import new_key
from tests.app.sites import DOMAIN, Site

NARROW = f"""\
trust_domain: {DOMAIN}
issuance: {{identities: [team/*], dns: ["*.internal"], keys: [ec-p256], longest: 1h}}
"""


async def test_nobody_gets_more_than_the_trust_domain_allows(here: Site):
    """Identity, DNS name, life and type of key are each refused with a reason, also to an operator."""
    await here.apply(NARROW)
    assert (await here.issue("team/ledger", dns=["ledger.internal"])).leaf.dns_sans == ("ledger.internal",)
    for name, more, reason in (
        ("payments", {}, Reason.ISSUANCE_NAME_NOT_ALLOWED),
        ("team/ledger", {"dns": ["ledger.example.org"]}, Reason.ISSUANCE_NAME_NOT_ALLOWED),
        ("team/ledger", {"ttl_seconds": 3601}, Reason.ISSUANCE_TOO_LONG),
    ):
        with pytest.raises(Refused) as caught:
            await here.issue(name, **more)
        assert caught.value.refusal.reason is reason
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(ed25519.Ed25519PrivateKey.generate(), None)
    asked = CertificateRequest(name="team/ledger", csr=csr.public_bytes(Encoding.PEM).decode())
    with pytest.raises(Refused) as caught:
        await here.operator.call("POST", "/v1/certificates", CertificateAnswer, asked)
    assert caught.value.refusal.reason is Reason.ISSUANCE_KEY_NOT_ALLOWED


async def test_a_renewal_is_cut_to_what_is_allowed_now(here: Site):
    """A certificate from before the limits is renewed with the life that they leave it."""
    held = await here.issue("team/ledger", ttl_seconds=7200)
    await here.apply(NARROW)
    request = RenewRequest(csr=new_key().csr_pem)
    renewed = await here.holder(held).call("POST", "/v1/certificates/renew", CertificateAnswer, request)
    assert renewed.not_after <= here.clock.now() + timedelta(hours=1)


async def test_the_platforms_own_certificates_go_on(here: Site):
    """An agent joins and an operator is certified under the narrowest limits."""
    await here.apply(NARROW)
    assert (await here.join()).leaf.uri_sans == (f"spiffe://{DOMAIN}/handfast/agent/edge",)
    assert (await here.issue("alice", operator=True)).leaf.uri_sans == (f"spiffe://{DOMAIN}/handfast/operator/alice",)
