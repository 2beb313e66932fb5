from __future__ import annotations

import ssl
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.trust.facts import CertificateFacts, facts, hex_serial, issuer_facts, pem, pem_certificates
from handfast.trust.profile import CLIENT_AUTH, SERVER_AUTH
from tests.support.mutations import mutants
from tests.support.pki import CLIENT, Pki
from tests.trust.material import DOMAIN, ca_der, issuer_key, private_key


@cache
def pki() -> Pki:
    return Pki()


@cache
def leaf_der(key: str = "ec") -> bytes:
    return pki().leaf("payments", dns=("a.internal", "b.internal"), key=key).cert_der  # type: ignore[arg-type]


def test_a_leaf_is_read_whole():
    """Names, usages, window, key and identifiers are those of the certificate."""
    certificate = x509.load_der_x509_certificate(leaf_der())
    issuing = facts(pki().issuing.cert_der)
    found = facts(leaf_der())
    assert found == CertificateFacts(
        subject="CN=payments",
        issuer=issuing.subject,
        serial=f"{certificate.serial_number:x}".zfill(len(found.serial)),
        fingerprint=found.fingerprint,
        uri_sans=("spiffe://example.org/payments",),
        dns_sans=("a.internal", "b.internal"),
        window=Window(certificate.not_valid_before_utc, certificate.not_valid_after_utc),
        is_ca=False,
        ekus=(CLIENT_AUTH, SERVER_AUTH),
        key_kind="ec",
        key_bits=256,
        curve="secp256r1",
        signature_hash="sha256",
        ski=found.ski,
        aki=issuing.ski,
        self_issued=False,
    )
    assert len(found.ski) == 40


def test_the_fingerprint_is_what_openssl_prints():
    """SHA-256 of the whole DER, lower case."""
    assert facts(leaf_der()).fingerprint == sha256(leaf_der()).hexdigest()


def test_an_authority_is_told_by_its_constraints():
    """A root is a CA and its own issuer; an issuing CA is not its own."""
    root, issuing = facts(ssl.PEM_cert_to_DER_cert(pki().roots_pem.decode())), facts(pki().issuing.cert_der)
    assert (root.is_ca, root.self_issued) == (True, True)
    assert (issuing.is_ca, issuing.self_issued) == (True, False)


def test_no_extended_usage_is_not_an_empty_one():
    """An absent extension is None, one usage is one."""
    assert facts(pki().leaf("a", eku=None).cert_der).ekus is None
    assert facts(pki().leaf("a", eku=[CLIENT]).cert_der).ekus == (CLIENT_AUTH,)


def test_what_is_not_there_is_empty():
    """A certificate without names has none."""
    found = facts(pki().leaf("a", dns=(), ips=(), san_uris=()).cert_der)
    assert (found.uri_sans, found.dns_sans) == ((), ())


def test_several_uris_are_all_told():
    """Whoever judges needs to see each."""
    uris = ("spiffe://example.org/a", "https://b.example")
    assert facts(pki().leaf("a", san_uris=uris).cert_der).uri_sans == uris


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("rsa2048", ("rsa", 2048, "", "sha256")),
        ("p384", ("ec", 384, "secp384r1", "sha256")),
        ("p521", ("ec", 521, "secp521r1", "sha256")),
        ("ed25519", ("ed25519", 256, "", "")),
    ],
)
def test_a_key_is_told_by_kind_bits_and_curve(kind: str, wanted: tuple[str, int, str, str]):
    """Keys that are not allowed are told as well; Ed25519 has no hash of its own."""
    found = facts(ca_der(key=private_key(kind)))
    assert (found.key_kind, found.key_bits, found.curve, found.signature_hash) == wanted


def test_a_sha1_signature_is_told():
    """A weak signature can be judged by its name."""
    assert facts(pki().leaf("a", sha1=True).cert_der).signature_hash == "sha1"


def test_an_unknown_signature_algorithm_is_told_as_unknown():
    """What nobody knows here is not mistaken for something good."""
    ecdsa_sha256, nobodys = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    assert facts(leaf_der().replace(ecdsa_sha256, nobodys)).signature_hash == "unknown"


def test_a_key_of_an_unknown_curve_is_told_as_other():
    """A certificate can be shown though its key cannot be used."""
    p256, nobodys = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    assert facts(leaf_der().replace(p256, nobodys)).key_kind == "other"


@pytest.mark.parametrize(("number", "wanted"), [(0, "00"), (1, "01"), (0x1FF, "01ff"), (2**159 - 1, "7f" + "ff" * 19)])
def test_a_serial_has_two_digits_an_octet(number: int, wanted: str):
    """Serials compare as text, so each has one spelling."""
    assert hex_serial(number) == wanted


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"not DER", bytes(64 * 1024 + 1)])
def test_garbage_is_bad_input(data: bytes):
    """What is no certificate says so."""
    with pytest.raises(BadInput):
        facts(data)


@pytest.mark.parametrize(("size", "why"), [(64 * 1024, "cannot be read"), (64 * 1024 + 1, "larger than 65536 bytes")])
def test_a_certificate_that_is_too_large_is_not_even_looked_at(size: int, why: str):
    """The bound itself is within."""
    with pytest.raises(BadInput, match=why):
        facts(bytes(size))


def test_a_certificate_with_something_after_it_is_bad_input():
    """A certificate ends where it ends."""
    with pytest.raises(BadInput):
        facts(leaf_der() + b"\0")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(mutants([leaf_der("ec"), leaf_der("rsa")]))
def test_changed_bytes_give_facts_or_bad_input(changed: bytes):
    """Whatever is flipped, inserted or cut, nothing else is raised."""
    try:
        found = facts(changed)
    except BadInput:
        return
    assert isinstance(found, CertificateFacts)


@given(st.binary(max_size=300))
def test_any_bytes_give_facts_or_bad_input(data: bytes):
    """Chance makes no certificate."""
    with pytest.raises(BadInput):
        facts(data)


# --- issuers


def test_an_issuer_is_read_with_its_trust_domain_and_key():
    """What plans need of an issuer comes from its certificate."""
    certificate = x509.load_der_x509_certificate(ca_der())
    found = issuer_facts(ca_der())
    assert found.trust_domain == DOMAIN
    assert found.subject_der == certificate.subject.public_bytes()
    assert found.key_id == x509.SubjectKeyIdentifier.from_public_key(issuer_key().public_key()).digest
    assert found.window == Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "der",
    [
        ca_der(ca=False),
        ca_der(ski=False),
        ca_der(uris=()),
        ca_der(uris=("https://example.org",)),
        ca_der(uris=("spiffe://example.org/path",)),
        ca_der(uris=("spiffe://example.org", "spiffe://example.com")),
        ca_der(key=private_key("p521")),
        ca_der(key=private_key("rsa1024")),
    ],
    ids=["no ca", "no ski", "no uri", "not spiffe", "with path", "two", "p521", "rsa 1024"],
)
def test_what_cannot_issue_here_is_refused(der: bytes):
    """An issuer is a CA of one trust domain, with an identifier and a key that signs here."""
    with pytest.raises(BadInput):
        issuer_facts(der)


def test_a_root_without_names_is_taken_for_whom_the_caller_says():
    """One that says whose it is keeps that: nobody's authority becomes another's by being asked for as that."""
    other = TrustDomain("example.com")
    assert issuer_facts(ca_der(uris=()), other).trust_domain == other
    assert issuer_facts(ca_der(), other).trust_domain == DOMAIN
    with pytest.raises(BadInput):
        issuer_facts(ca_der(uris=("https://example.org",)), other)


# --- PEM


@given(st.binary(min_size=1, max_size=500))
def test_pem_is_what_the_standard_library_writes(data: bytes):
    """The two agree on lines, and what is written reads back."""
    assert pem(data) == ssl.DER_cert_to_PEM_cert(data)
    assert pem_certificates(pem(data)) == (data,)


def test_certificates_are_given_in_their_order_whatever_stands_between():
    """Comments, other blocks and line ends of another system do not count."""
    text = f"# a leaf\n{pem(b'one')}\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n{pem(b'two')}"
    assert pem_certificates(text) == (b"one", b"two")
    assert pem_certificates(text.replace("\n", "\r\n")) == (b"one", b"two")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nA=AA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAA==AAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n§§§§\n-----END CERTIFICATE-----\n",
        pem(b"whole") + "-----BEGIN CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n" + pem(b"whole"),
        pem(b"a") * 65,
        " " * (256 * 1024 + 1),
    ],
)
def test_pem_that_is_damaged_empty_or_too_much_is_bad_input(text: str):
    """Half a block is not passed over in silence."""
    with pytest.raises(BadInput):
        pem_certificates(text)


def test_64_certificates_are_read():
    """The bound itself is within."""
    assert len(pem_certificates(pem(b"a") * 64)) == 64


@given(st.text(alphabet="-BEGINCRTFAD \n=", max_size=200) | st.text(max_size=200))
def test_any_text_gives_certificates_or_bad_input(text: str):
    """Whatever the text is, nothing else is raised."""
    try:
        assert pem_certificates(text + pem(b"x"))[-1] == b"x"
    except BadInput:
        return


def test_a_pem_of_the_library_reads_back():
    """A real certificate's PEM gives its DER."""
    certificate = x509.load_der_x509_certificate(leaf_der())
    assert pem_certificates(certificate.public_bytes(Encoding.PEM).decode()) == (leaf_der(),)
