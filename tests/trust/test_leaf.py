from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given

from handfast.trust import leaf
from handfast.trust.addresses import StatusSite
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import MUST_STAPLE, RESPONDER
from tests.trust.material import ca_der, issuer_key, planned, plans, request


def built(plan: LeafPlan) -> x509.Certificate:
    """Make the same certificate with the builder of `cryptography`: the oracle."""
    key = load_der_public_key(plan.subject.spki)
    ca = x509.load_der_x509_certificate(ca_der())
    ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    rsa = plan.subject.key.kind == "rsa"
    usage = x509.KeyUsage(True, False, rsa, False, False, False, False, False, False)
    names = [x509.UniformResourceIdentifier(str(plan.identity)), *map(x509.DNSName, plan.dns)]
    builder = (
        x509.CertificateBuilder(issuer_name=ca.subject, public_key=key, serial_number=plan.serial)  # type: ignore[arg-type]
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, plan.common_name)]))
        .not_valid_before(plan.window.not_before)
        .not_valid_after(plan.window.not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(_purposes(plan)), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)  # type: ignore[arg-type]
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski), critical=False)
    )
    for extension in _status(plan):
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key(), hashes.SHA256())


def _purposes(plan: LeafPlan) -> list[x509.ObjectIdentifier]:
    if plan.profile is RESPONDER:
        return [ExtendedKeyUsageOID.OCSP_SIGNING]
    return [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]


def _status(plan: LeafPlan) -> Iterator[x509.ExtensionType]:
    if plan.profile is RESPONDER:
        yield x509.OCSPNoCheck()
    if plan.status:
        uris = [x509.UniformResourceIdentifier(url) for url in (plan.status.crl, plan.status.ocsp, plan.status.issuer)]
        yield x509.CRLDistributionPoints([x509.DistributionPoint(uris[:1], None, None, None)])
        methods = (AuthorityInformationAccessOID.OCSP, AuthorityInformationAccessOID.CA_ISSUERS)
        yield x509.AuthorityInformationAccess(list(map(x509.AccessDescription, methods, uris[1:])))
    if plan.profile is MUST_STAPLE:
        yield x509.TLSFeature([x509.TLSFeatureType.status_request])


@given(plans())
def test_the_template_writes_what_the_builder_writes(plan: LeafPlan):
    """Byte for byte, for every kind of key, any names and dates before and after 2050."""
    assert leaf.tbs(plan) == built(plan).tbs_certificate_bytes


@pytest.mark.parametrize("year", [2049, 2050])
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa2048", "ed25519"])
def test_the_template_is_right_around_2050(year: int, kind: str):
    """The turn of the two kinds of Time is met for certain, for every kind of key."""
    plan = planned(request(ttl=timedelta(days=90), key=kind), now=datetime(year, 12, 1, tzinfo=UTC))
    assert leaf.tbs(plan) == built(plan).tbs_certificate_bytes


def test_the_template_of_a_responder_is_right():
    """What signs OCSP says so, says that nobody is to ask for it, and names no place to ask."""
    asked = request(reserved=True, ttl=timedelta(days=7), profile=RESPONDER)
    plan = planned(asked, status=StatusSite("http://status.example.org"))
    assert plan.status is None
    assert leaf.tbs(plan) == built(plan).tbs_certificate_bytes


def test_the_template_of_one_that_demands_a_staple_is_right():
    """The TLS feature extension names status_request, behind all others (RFC 7633)."""
    plan = planned(request(reserved=True, profile=MUST_STAPLE), status=StatusSite("http://status.example.org"))
    assert leaf.tbs(plan) == built(plan).tbs_certificate_bytes


def test_an_assembled_certificate_is_signed():
    """TBS and signature together are a certificate that its issuer's key verifies."""
    tbs = leaf.tbs(planned())
    der = leaf.assemble(tbs, issuer_key().sign(tbs, ec.ECDSA(hashes.SHA256())))
    certificate = x509.load_der_x509_certificate(der)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(ca_der()))
    assert certificate.tbs_certificate_bytes == tbs
