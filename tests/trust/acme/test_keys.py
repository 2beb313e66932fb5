import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust.acme.keys import AccountKey, certificate_spki, from_base64url, read_key, to_base64url
from handfast.trust.acme.problems import AcmeError, Problem
from tests.support.acme import alpn_certificate, make_key

EC, RSA, OKP = make_key("ES256").jwk, make_key("RS256").jwk, make_key("EdDSA").jwk


@given(st.binary(max_size=100))
def test_base64url_comes_back(data: bytes):
    """What is written is read, without padding."""
    text = to_base64url(data)
    assert "=" not in text
    assert from_base64url(text) == data


@pytest.mark.parametrize("text", ["AA==", "A", "AB", "A+A/", "A A", "AA\n", "é", 7, None, b"AA"])
def test_base64url_has_one_spelling(text: object):
    """Padding, the other alphabet, spare bits, white space and other types are refused."""
    with pytest.raises(BadInput):
        from_base64url(text)


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "EdDSA"])
def test_a_key_is_read(algorithm: str):
    """The key is the one that was written, whatever else stands beside it, and has one canonical form."""
    signing = make_key(algorithm)
    key = read_key({**signing.jwk, "use": "sig", "kid": "x"})
    assert isinstance(key, AccountKey)
    public = signing.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key.spki == public
    assert key == read_key(dict(reversed(signing.jwk.items())))


@pytest.mark.parametrize(
    "jwk",
    [
        None, [], "x", {}, {"kty": "oct", "k": "AAAA"}, {"kty": ["EC"]},
        {**EC, "d": "AAAA"}, {**RSA, "p": "AAAA"},
        {**EC, "crv": "P-521"}, {**EC, "crv": "P-384"}, {**EC, "crv": 7}, {**EC, "x": "AAAA"}, {**EC, "x": EC["y"]},
        {**EC, "y": None}, {"kty": "EC"},
        {**RSA, "e": "AQ"}, {**RSA, "e": "Aw"}, {**RSA, "e": "AAEAAQ"}, {**RSA, "e": ""}, {**RSA, "e": "AQAC"},
        {**RSA, "n": to_base64url(b"\x80" + bytes(126) + b"\x01")}, {**RSA, "n": to_base64url(b"\x81" * 513)},
        {**RSA, "n": to_base64url(b"\0" + from_base64url(RSA["n"]))},
        {**OKP, "crv": "Ed448"}, {**OKP, "crv": "X25519"}, {**OKP, "x": "AAAA"},
    ],
)  # fmt: skip
def test_a_bad_key_is_refused(jwk: object):
    """Unknown and weak ones, private ones, points that are not on the curve, and numbers with another spelling."""
    outcome = read_key(jwk)
    assert isinstance(outcome, Problem)
    assert outcome.error is AcmeError.BAD_PUBLIC_KEY


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "x", "y", "n", "e"]), st.text(max_size=50) | st.none() | st.integers()
    )
)
def test_any_key_is_read_or_refused(jwk: dict[str, object]):
    """Whatever stands where, there is a key or a problem."""
    for kind in ("EC", "RSA", "OKP"):
        assert isinstance(read_key({**jwk, "kty": kind}), AccountKey | Problem)


def test_a_certificates_key_is_read():
    """And what is no certificate is refused."""
    der, key = alpn_certificate("a.internal", "x")
    assert certificate_spki(der) == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(BadInput):
        certificate_spki(b"x")
