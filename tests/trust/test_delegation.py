"""Who may answer OCSP for a CA, and who may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.trust.delegation import GRACE, ResponderPlan, is_responder, issued, judge_responder, may_answer
from handfast.trust.facts import facts
from tests.support.pki import Pki
from tests.trust.material import DOMAIN, NOW, private_key

KEY = private_key("p256")
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
CA_KEY, OTHER_KEY = private_key("p384"), private_key("ed25519")
END = NOW + timedelta(days=100)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def ca(text: str = "Root") -> bytes:
    builder = x509.CertificateBuilder(name(text), name(text), CA_KEY.public_key(), 1)
    builder = builder.not_valid_before(NOW - timedelta(days=1)).not_valid_after(END)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(CA_KEY.public_key()), critical=False)
        .sign(CA_KEY, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


class Shape:
    """A responder's certificate in the making, which tests bend."""

    def __init__(self) -> None:
        self.issuer, self.end, self.begin, self.signing = "Root", END, NOW - timedelta(days=1), CA_KEY
        self.public = KEY.public_key()
        self.extensions: dict[type[x509.ExtensionType], x509.ExtensionType] = {
            type(one): one for one, _ in ResponderPlan(DOMAIN).extensions()
        }
        self.extensions[x509.SubjectKeyIdentifier] = x509.SubjectKeyIdentifier.from_public_key(self.public)

    def der(self) -> bytes:
        builder = x509.CertificateBuilder(name(self.issuer), name("Responder"), self.public, 7)
        builder = builder.not_valid_before(self.begin).not_valid_after(self.end)
        for one in self.extensions.values():
            builder = builder.add_extension(one, critical=False)
        return builder.sign(self.signing, hashes.SHA256()).public_bytes(Encoding.DER)


def responder(change: Callable[[Shape], object] = lambda _: None) -> bytes:
    shape = Shape()
    change(shape)
    return shape.der()


def setting(**more: object) -> Callable[[Shape], object]:
    return lambda shape: shape.__dict__.update(more)


def without(kind: type[x509.ExtensionType]) -> Callable[[Shape], object]:
    return lambda shape: shape.extensions.pop(kind)


def putting(value: x509.ExtensionType) -> Callable[[Shape], object]:
    return lambda shape: shape.extensions.update({type(value): value})


CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH])


def test_one_that_the_ca_signed_may_answer():
    """For OCSP alone; it is recognised among other certificates, and names no identity."""
    made = responder()
    assert judge_responder(made, ca(), ca(), PUBLIC, NOW) is None
    assert may_answer(made, ca(), PUBLIC)
    assert is_responder(made)
    assert not is_responder(ca())
    assert not is_responder(Pki().leaf().cert_der)
    assert facts(made).uri_sans == facts(made).dns_sans == ()


def test_one_that_ends_a_moment_after_the_issuing_ca_will_do():
    """A keeper signs one after the other, each for so many days."""
    assert judge_responder(responder(setting(end=END + GRACE)), ca(), ca(), PUBLIC, NOW) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (setting(signing=private_key("rsa2048")), "responder_signature"),
        (setting(issuer="Another"), "responder_signature"),
        (setting(public=OTHER_KEY.public_key()), "responder_key"),
        (setting(end=END + 2 * GRACE), "responder_window"),
        (setting(end=NOW), "responder_window"),
        (setting(begin=NOW + timedelta(seconds=1)), "responder_window"),
        (without(x509.ExtendedKeyUsage), "responder_usage"),
        (putting(CLIENT), "responder_usage"),
        (putting(x509.BasicConstraints(ca=True, path_length=0)), "responder_usage"),
        (without(x509.OCSPNoCheck), "responder_nocheck"),
        (without(x509.KeyUsage), "responder_key_usage"),
        (without(x509.SubjectKeyIdentifier), "responder_key_id"),
    ],
)
def test_each_fault_is_found(change: Callable[[Shape], object], finding: str):
    """By its own name; and what is no matter of time is one at each answer, too."""
    made = responder(change)
    refusal = judge_responder(made, ca(), ca(), PUBLIC, NOW)
    assert refusal
    assert refusal.reason is Reason.AUTHORITY_UNFIT
    assert set(refusal.evidence) == {finding}
    assert may_answer(made, ca(), PUBLIC) is (finding == "responder_window")


def test_a_signature_without_the_name_is_none():
    """Whoever signed, its name has to be the issuer's."""
    assert issued(responder(), ca())
    assert not issued(responder(), ca("Other"))
    with pytest.raises(BadInput):
        issued(b"", ca())
