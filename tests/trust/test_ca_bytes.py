"""The bytes of CA certificates and requests, against the builder of another library."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.windows import Window, whole_second
from handfast.io.signers import sign_with
from handfast.trust import ca_bytes
from handfast.trust.addresses import StatusSite
from handfast.trust.ca import issuing_plan
from handfast.trust.ca_bytes import Plan, Signatory
from handfast.trust.constraints import permitted
from handfast.trust.delegation import ResponderPlan
from handfast.trust.leaf import assemble
from tests.trust.material import DOMAIN, NOW, PrivateKey, private_key

SITE = StatusSite("http://status.example.org:7481")
WINDOW = Window(whole_second(NOW), whole_second(NOW) + timedelta(days=9))
ISSUER = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Root")])
KINDS = pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
PLANS = pytest.mark.parametrize(
    "plan",
    [
        issuing_plan(DOMAIN, permitted(DOMAIN, ["internal"])),
        issuing_plan(DOMAIN, None, SITE),
        ResponderPlan(DOMAIN),
    ],
    ids=["limits", "status", "responder"],
)


def public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def digest(key: PrivateKey) -> hashes.HashAlgorithm | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return hashes.SHA384() if getattr(key, "key_size", 0) == 384 else hashes.SHA256()


def extensions(plan: Plan, key: PrivateKey) -> list[tuple[x509.ExtensionType, bool]]:
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return [*plan.extensions(), (key_id, False), *(_status(key_id.digest.hex()) if plan.site else [])]


def _status(key_id: str) -> list[tuple[x509.ExtensionType, bool]]:
    place = x509.UniformResourceIdentifier(f"{SITE.url}/crl/above/{key_id}.crl")
    ocsp, issuer = (x509.UniformResourceIdentifier(f"{SITE.url}/{path}") for path in ("ocsp", f"ca/above/{key_id}.cer"))
    kinds = x509.AuthorityInformationAccessOID
    access = [x509.AccessDescription(kinds.OCSP, ocsp), x509.AccessDescription(kinds.CA_ISSUERS, issuer)]
    points = [x509.DistributionPoint([place], None, None, None)]
    return [(x509.CRLDistributionPoints(points), False), (x509.AuthorityInformationAccess(access), False)]


@KINDS
@PLANS
def test_the_request_is_what_the_builder_writes(kind: str, plan: Plan):
    """PKCS#10, byte for byte, and its signature proves the key."""
    key = private_key(kind)
    tbs = ca_bytes.request_tbs(plan, public(key))
    builder = x509.CertificateSigningRequestBuilder(plan.name)
    for one, critical in extensions(plan, key):
        builder = builder.add_extension(one, critical=critical)
    assert tbs == builder.sign(key, digest(key)).tbs_certrequest_bytes
    ours = x509.load_der_x509_csr(ca_bytes.request(tbs, public(key), sign_with(key, tbs)))
    assert ours.is_signature_valid


@KINDS
@PLANS
def test_the_certificate_is_what_the_builder_writes(kind: str, plan: Plan):
    """RFC 5280, byte for byte up to the signature, which verifies."""
    signing, key = private_key(kind), private_key("p256")
    by = Signatory(name=ISSUER.public_bytes(), public_key_der=public(signing), key_id=b"above")
    tbs = ca_bytes.tbs(plan, by, public(key), WINDOW, 77)
    builder = x509.CertificateBuilder(ISSUER, plan.name, key.public_key(), 77)
    builder = builder.not_valid_before(WINDOW.not_before).not_valid_after(WINDOW.not_after)
    for one, critical in (*extensions(plan, key), (x509.AuthorityKeyIdentifier(b"above", None, None), False)):
        builder = builder.add_extension(one, critical=critical)
    built = builder.sign(signing, digest(signing))
    assert tbs == built.tbs_certificate_bytes
    made = x509.load_der_x509_certificate(assemble(tbs, sign_with(signing, tbs)))
    assert made.tbs_certificate_bytes == built.tbs_certificate_bytes
    assert made.signature_algorithm_oid == built.signature_algorithm_oid
