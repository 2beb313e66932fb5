from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.csr import CsrFacts, read_csr
from tests.support.mutations import mutants
from tests.trust.material import csr_der, private_key, reason


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_a_csr_gives_its_key_whole(kind: str):
    """The key, its kind and its identifier come from the CSR, in PEM and in DER alike."""
    key = private_key(kind)
    found = read_csr(csr_der(key))
    as_pem = x509.load_der_x509_csr(csr_der(key)).public_bytes(Encoding.PEM)
    assert isinstance(found, CsrFacts)
    assert read_csr(as_pem) == found
    assert found.key_id == x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest


@pytest.mark.parametrize("kind", ["p521", "rsa1024"])
def test_a_csr_for_a_key_that_is_not_allowed_is_refused(kind: str):
    """The refusal names the key."""
    found = read_csr(csr_der(private_key(kind)))
    assert reason(found) is Reason.ISSUANCE_KEY_NOT_ALLOWED
    assert isinstance(found, Refusal)
    assert found.evidence["key"] in {"ec secp521r1", "rsa 1024"}


def test_a_csr_for_a_key_with_a_small_exponent_is_refused():
    """RSA with exponent 3 is not allowed, whatever its size."""
    assert reason(read_csr(csr_der(rsa.generate_private_key(3, 2048)))) is Reason.ISSUANCE_KEY_NOT_ALLOWED


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_a_csr_that_is_not_signed_with_its_own_key_is_refused(kind: str):
    """A changed signature proves nothing."""
    data = bytearray(csr_der(private_key(kind)))
    data[-1] ^= 1
    assert reason(read_csr(bytes(data))) is Reason.ISSUANCE_BAD_PROOF


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_a_csr_may_be_signed_with_any_digest(digest: hashes.HashAlgorithm):
    """The request names it, and what it names is what is checked."""
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(private_key(), digest)
    assert made.is_signature_valid
    assert isinstance(read_csr(made.public_bytes(Encoding.DER)), CsrFacts)


@pytest.mark.parametrize(
    "other",
    ["1.2.840.10045.4.3.3", "1.2.840.113549.1.1.11", "1.3.101.112", "1.2.3"],
    ids=["sha384", "rsa", "ed25519", "unknown"],
)
def test_a_csr_that_names_another_algorithm_than_its_own_is_refused(other: str):
    """One digest for another, or another kind of key's signature, proves nothing."""
    request_info, _, signature = der.children(csr_der(private_key()))
    data = der.sequence(request_info, der.sequence(der.oid(other)), signature)
    assert reason(read_csr(data)) is Reason.ISSUANCE_BAD_PROOF


def test_a_csr_with_another_name_than_was_signed_is_refused():
    """The signature covers the whole request, not the key alone."""
    data = csr_der(private_key(), name="payments").replace(b"payments", b"payment5")
    assert reason(read_csr(data)) is Reason.ISSUANCE_BAD_PROOF


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN", b"\x30\x00", b"x" * 16385, b"-----BEGIN CERTIFICATE REQUEST-----\n-----END"]
)
def test_what_is_not_a_csr_is_bad_input(data: bytes):
    """Garbage and what is too large are refused at the door."""
    with pytest.raises(BadInput):
        read_csr(data)


def test_a_csr_that_is_too_large_is_not_even_parsed():
    """A good request with a lot of text before it is one byte too much."""
    text = x509.load_der_x509_csr(csr_der(private_key())).public_bytes(Encoding.PEM)
    filling = b"x" * (16 * 1024 - len(text) - 1) + b"\n"
    assert isinstance(read_csr(filling + text), CsrFacts)
    with pytest.raises(BadInput, match="larger"):
        read_csr(b"x" + filling + text)


def test_a_csr_of_a_version_that_does_not_exist_is_bad_input():
    """The library raises this apart from its other errors."""
    version_1, version_4 = b"\x02\x01\x00", b"\x02\x01\x03"
    with pytest.raises(BadInput):
        read_csr(csr_der(private_key()).replace(version_1, version_4, 1))


CSRS = [csr_der(private_key(kind)) for kind in ("p256", "rsa2048", "ed25519")]


@given(mutants(CSRS))
def test_a_changed_csr_is_read_or_refused_and_raises_nothing_else(changed: bytes):
    """Whatever is flipped, inserted or cut, the outcome is a value or `BadInput`."""
    try:
        found = read_csr(changed)
    except BadInput:
        return
    assert isinstance(found, CsrFacts | Refusal)
