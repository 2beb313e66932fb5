from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID
from hypothesis import given

from handfast.trust import der, expected, leaf
from handfast.trust.addresses import StatusSite
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import MUST_STAPLE, RESPONDER, Profile
from tests.trust.material import NOW, csr_facts, issuer, issuer_key, planned, plans, private_key, request


def wanted(plan: LeafPlan) -> expected.Extensions:
    return expected.extensions(plan, plan.subject.key.kind, plan.subject.key_id)


def built(plan: LeafPlan) -> list[bytes]:
    """Give the extensions of a certificate that the library's own builder made, in its own frames."""
    assert plan.status
    key = private_key().public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    name = x509.Name([])
    uris = {url: x509.UniformResourceIdentifier(url) for url in (plan.status.crl, plan.status.ocsp, plan.status.issuer)}
    method = AuthorityInformationAccessOID
    access = [
        x509.AccessDescription(method.OCSP, uris[plan.status.ocsp]),
        x509.AccessDescription(method.CA_ISSUERS, uris[plan.status.issuer]),
    ]
    names = [x509.UniformResourceIdentifier(str(plan.identity)), *map(x509.DNSName, plan.dns)]
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
         "crl_sign", "encipher_only", "decipher_only"), False)  # fmt: skip
    points = [x509.DistributionPoint([uris[plan.status.crl]], None, None, None)]
    certificate = (
        x509.CertificateBuilder(name, name, key, 1, NOW, NOW)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(plan.issuer.key_id, None, None), critical=False)
        .add_extension(x509.CRLDistributionPoints(points), critical=False)
        .add_extension(x509.AuthorityInformationAccess(access), critical=False)
        .sign(issuer_key(), hashes.SHA256())
    )
    (together,) = der.children(der.children(certificate.tbs_certificate_bytes)[7])
    return list(der.children(together))


def test_what_is_expected_is_what_another_builder_writes():
    """Frames and values, byte for byte, as in a certificate that nothing of ours wrote."""
    plan = planned(request(dns=("a.internal", "*.b.internal")), status=StatusSite("http://status.example.org", 3))
    assert list(wanted(plan).values()) == built(plan)


@given(plans())
def test_every_plan_is_expected_as_the_template_writes_it(plan: LeafPlan):
    """Two writers that know nothing of each other agree."""
    (together,) = der.children(der.children(leaf.tbs(plan))[7])
    assert tuple(wanted(plan).values()) == der.children(together)


@pytest.mark.parametrize(
    ("profile", "oid", "value"),
    [
        (RESPONDER, x509.OCSPNoCheck.oid, x509.OCSPNoCheck()),
        (MUST_STAPLE, x509.TLSFeature.oid, x509.TLSFeature([x509.TLSFeatureType.status_request])),
    ],
)
def test_a_profile_may_want_one_more(profile: Profile, oid: x509.ObjectIdentifier, value: x509.ExtensionType):
    """A responder's mark, and the demand for a staple, and nobody else has them."""
    plan = planned(request(reserved=True, profile=profile))
    assert wanted(plan)[oid] == der.extension(oid.dotted_string, value.public_bytes())
    assert oid not in wanted(planned())


def test_the_key_in_the_bytes_counts_and_not_the_plans():
    """Kind and identifier are arguments, so that a plan cannot lie about them."""
    found = expected.extensions(planned(), "rsa", bytes(20))
    assert found[x509.SubjectKeyIdentifier.oid].endswith(der.octet_string(bytes(20)))
    assert found[x509.KeyUsage.oid] == wanted(planned(request(key="rsa2048")))[x509.KeyUsage.oid]
    assert csr_facts().key_id not in found[x509.SubjectKeyIdentifier.oid]


def test_only_two_are_critical():
    """As RFC 5280 wants basic constraints and key usage to be."""
    plan = planned(status=StatusSite("http://status.example.org"))
    critical = {oid for oid, value in wanted(plan).items() if b"\x01\x01\xff" in der.children(value)}
    assert critical == expected.CRITICAL
    assert issuer().key_id in wanted(plan)[x509.AuthorityKeyIdentifier.oid]
