from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.trust.acme.challenges import (
    ACME_IDENTIFIER,
    ChallengeKind,
    check_dns,
    check_http,
    check_tls_alpn,
    dns_value,
    key_authorization,
    kinds_for,
)
from tests.support.acme import alpn_certificate

AUTHORIZATION = key_authorization("token", "thumbprint")
NAME = "a.internal"
GOOD = alpn_certificate(NAME, AUTHORIZATION)[0]


def test_a_key_authorization_binds_token_and_key():
    """As RFC 8555 section 8.1 writes it; the TXT record is its digest."""
    assert AUTHORIZATION == "token.thumbprint"
    assert dns_value("token.thumbprint") == "61rBZ_4knHblO0MNoxFsXZ_eTFUHum0B6IVRbhvUn5I"


def test_a_wildcard_is_for_dns_alone():
    """Other names are proved by any kind."""
    assert kinds_for("*.a.internal") == (ChallengeKind.DNS,)
    assert kinds_for(NAME) == tuple(ChallengeKind)


def test_a_file_is_the_authorization():
    """White space may come after it; anything else, before it too, is another file."""
    for good in (b"", b"\n", b"\r\n", b" \t\n"):
        assert check_http(AUTHORIZATION.encode() + good, AUTHORIZATION) is None
    for bad in (b"", b" token.thumbprint", b"token.other", b"<html>token.thumbprint</html>", b"token.thumbprint\0"):
        refusal = check_http(bad, AUTHORIZATION)
        assert refusal
        assert refusal.reason is Reason.ACME_WRONG_ANSWER


def test_one_record_is_enough():
    """Others may stand beside it; none is not enough."""
    value = dns_value(AUTHORIZATION).encode()
    assert check_dns([b"other", value], AUTHORIZATION) is None
    assert check_dns([], AUTHORIZATION)
    assert check_dns([value + b" ", value[:-1], AUTHORIZATION.encode()], AUTHORIZATION)


def test_a_certificate_proves_its_name():
    """With the name alone and the digest in a critical extension; the name may be written in capitals."""
    assert check_tls_alpn(alpn_certificate(NAME, AUTHORIZATION)[0], NAME, AUTHORIZATION) is None
    assert check_tls_alpn(alpn_certificate(NAME.upper(), AUTHORIZATION)[0], NAME, AUTHORIZATION) is None
    for der in (
        alpn_certificate("b.internal", AUTHORIZATION)[0],
        alpn_certificate(NAME, "token.other")[0],
        alpn_certificate(NAME, AUTHORIZATION, critical=False)[0],
        other([x509.DNSName(NAME), x509.DNSName("b.internal")]),
        other([x509.UniformResourceIdentifier("spiffe://a.internal")]),
        other([x509.DNSName(NAME)], b"\x04\x1f" + sha256(AUTHORIZATION.encode()).digest()),
        other([x509.DNSName(NAME)], sha256(AUTHORIZATION.encode()).digest()),
        other([x509.DNSName(NAME)], b""),
        other([x509.DNSName(NAME)], None),
        other([]),
    ):
        assert check_tls_alpn(der, NAME, AUTHORIZATION), der


def other(
    names: list[x509.GeneralName], proof: bytes | None = b"\x04\x20" + sha256(AUTHORIZATION.encode()).digest()
) -> bytes:
    """Make a certificate that is not as RFC 8737 has it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, now, now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if proof is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, proof), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@given(st.binary(max_size=200))
def test_octets_prove_nothing(raw: bytes):
    """Whatever is shown is judged."""
    assert check_tls_alpn(raw, NAME, AUTHORIZATION)
    assert check_http(raw, AUTHORIZATION)
    assert check_dns([raw], AUTHORIZATION)


@given(st.data())
def test_a_spoilt_certificate_is_judged(data: st.DataObject):
    """One octet changed anywhere gives a verdict."""
    raw = bytearray(GOOD)
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    check_tls_alpn(bytes(raw), NAME, AUTHORIZATION)
