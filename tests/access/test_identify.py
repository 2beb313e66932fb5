from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.identify import identify, standing
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.base.windows import Window
from handfast.trust.facts import CertificateFacts, facts

OWN = TrustDomain("example.org")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNER = ec.generate_private_key(ec.SECP256R1())
CLIENT, SERVER, ANY = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)

GOOD = CertificateFacts(
    subject="CN=payments",
    issuer="CN=Issuing",
    serial="01",
    fingerprint="ab" * 32,
    uri_sans=("spiffe://example.org/payments",),
    dns_sans=(),
    window=Window(NOW - timedelta(hours=1), NOW + timedelta(hours=1)),
    is_ca=False,
    ekus=(CLIENT.dotted_string, SERVER.dotted_string),
    key_kind="ec",
    key_bits=256,
    curve="secp256r1",
    signature_hash="sha256",
    ski="",
    aki="",
    self_issued=False,
)
# What is wrong, in the order in which it is looked for.
FAULTS = [
    (Reason.CERT_IS_CA, {"is_ca": True}),
    (Reason.CERT_NO_EKU, {"ekus": None}),
    (Reason.CERT_WRONG_EKU, {"ekus": (ANY.dotted_string,)}),
    (Reason.CERT_WEAK_KEY, {"key_kind": "rsa", "key_bits": 2047, "curve": ""}),
    (Reason.CERT_WEAK_SIGNATURE, {"signature_hash": "sha1"}),
    (Reason.IDENTITY_NO_URI_SAN, {"uri_sans": ()}),
]


def leaf(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    ekus: Sequence[x509.ObjectIdentifier] = (CLIENT,),
    uris: Sequence[str] = ("spiffe://example.org/payments",),
    ca: bool = False,
) -> CertificateFacts:
    """Make a real certificate and read it."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payments")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuing")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if ekus:
        builder = builder.add_extension(x509.ExtendedKeyUsage(ekus), critical=False)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return facts(builder.sign(SIGNER, hashes.SHA256()).public_bytes(Encoding.DER))


def reason(seen: CertificateFacts) -> Reason | None:
    outcome = identify(seen, trust={OWN})
    return outcome.reason if isinstance(outcome, Refusal) else None


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({}, None),
        ({"ekus": (SERVER, CLIENT)}, None),
        ({"ca": True}, Reason.CERT_IS_CA),
        ({"ekus": ()}, Reason.CERT_NO_EKU),
        ({"ekus": (SERVER,)}, Reason.CERT_WRONG_EKU),
        ({"ekus": (ANY,)}, Reason.CERT_WRONG_EKU),
        ({"uris": ()}, Reason.IDENTITY_NO_URI_SAN),
        ({"uris": ("spiffe://example.org/a", "spiffe://example.org/a")}, Reason.IDENTITY_SEVERAL_URI_SANS),
        ({"uris": ("https://example.org/a",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("spiffe://example.org",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("spiffe://example.org/a/../b",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("SPIFFE://example.org/a",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("spiffe://example.org/a?b",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("spiffe://example.org/a\n",)}, Reason.IDENTITY_NOT_SPIFFE),
        ({"uris": ("spiffe://partner.org/a",)}, Reason.IDENTITY_FOREIGN_DOMAIN),
        ({"uris": ("spiffe://example.org.evil/a",)}, Reason.IDENTITY_FOREIGN_DOMAIN),
    ],
)
def test_real_certificates(made: dict[str, Any], expected: Reason | None):
    """A real certificate has an identity, or the reason why not."""
    assert reason(leaf(SIGNER, **made)) is expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (ec.generate_private_key(ec.SECP384R1()), None),
        (ec.generate_private_key(ec.SECP521R1()), None),
        (ec.generate_private_key(ec.SECP256K1()), Reason.CERT_UNSUPPORTED_KEY),
        (rsa.generate_private_key(65537, 1024), Reason.CERT_WEAK_KEY),
    ],
    ids=["P-384", "P-521", "secp256k1", "rsa-1024"],
)
def test_real_keys(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, expected: Reason | None):
    """The kind of key counts as it is read from a real certificate."""
    assert reason(leaf(key)) is expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ({"key_kind": "rsa", "key_bits": 2048}, None),
        ({"key_kind": "ed25519", "key_bits": 256, "curve": ""}, None),
        ({"key_kind": "ed448", "key_bits": 456, "curve": ""}, Reason.CERT_UNSUPPORTED_KEY),
        ({"key_kind": "dsa", "key_bits": 2048, "curve": ""}, Reason.CERT_UNSUPPORTED_KEY),
        ({"key_kind": "other", "key_bits": 0, "curve": ""}, Reason.CERT_UNSUPPORTED_KEY),
        ({"signature_hash": "md5"}, Reason.CERT_WEAK_SIGNATURE),
        ({"signature_hash": "unknown"}, Reason.CERT_WEAK_SIGNATURE),
        ({"signature_hash": ""}, None),
        ({"signature_hash": "sha512"}, None),
    ],
)
def test_keys_and_signatures(key: dict[str, Any], expected: Reason | None):
    """What is not known to be strong is refused."""
    assert reason(replace(GOOD, **key)) is expected


@given(st.sets(st.sampled_from(range(len(FAULTS)))))
def test_the_first_fault_is_named(chosen: set[int]):
    """Of several faults the first of the fixed order is told, whatever else is wrong."""
    seen = GOOD
    for at in sorted(chosen, reverse=True):
        seen = replace(seen, **FAULTS[at][1])
    assert reason(seen) is (FAULTS[min(chosen)][0] if chosen else None)


@given(st.text(), st.sampled_from([{OWN}, set(), {TrustDomain("partner.org")}]))
def test_any_text_is_an_identity_or_refused(uri: str, trust: set[TrustDomain]):
    """Whatever stands in a URI SAN, the outcome is a refusal or the identity that it spells, of a trusted domain."""
    outcome = identify(replace(GOOD, uri_sans=(uri,)), trust=trust)
    assert isinstance(outcome, Refusal) or (str(outcome) == uri and outcome.trust_domain in trust)


def test_the_identity_is_the_one_written():
    """A good certificate gives its SPIFFE id, and evidence of a foreign one names its domain."""
    assert identify(GOOD, trust=[OWN]) == SpiffeId(OWN, "/payments")
    assert identify(GOOD, trust=[]) == Refusal(Reason.IDENTITY_FOREIGN_DOMAIN, {"trust_domain": "example.org"})


@pytest.mark.parametrize(
    ("moment", "revoked", "expected"),
    [
        (NOW, set(), None),
        (GOOD.window.not_before, set(), None),
        (GOOD.window.not_before - timedelta(seconds=1), set(), Reason.CERT_NOT_YET_VALID),
        (GOOD.window.not_after - timedelta(seconds=1), set(), None),
        (GOOD.window.not_after, set(), Reason.CERT_EXPIRED),
        (NOW, {GOOD.fingerprint}, Reason.REVOKED),
        (GOOD.window.not_after, {GOOD.fingerprint}, Reason.REVOKED),
        (NOW, {"cd" * 32}, None),
    ],
)
def test_standing(moment: datetime, revoked: set[str], expected: Reason | None):
    """Revocation is told before expiry, and a certificate has ended as its last second begins."""
    outcome = standing(GOOD, revoked=revoked, now=moment)
    assert (outcome.reason if outcome else None) is expected
