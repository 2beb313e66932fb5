import base64
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from handfast.app.agent.session import MOST_BODY, Minted, Sessions
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import to_unix
from tests.support.clock import FakeClock
from tests.support.pki import SERVER, Issued, Pki

HOST = "api.example.org"
ISSUER = "spiffe://example.org/handfast/gateway/edge"


@pytest.fixture(scope="module")
def leaf() -> Issued:
    """Give a client's certificate, of a day."""
    return Pki().leaf("payments")


@pytest.fixture
def clock(leaf: Issued) -> FakeClock:
    """Give a clock that stands within the certificate's life."""
    return FakeClock(leaf.cert.not_valid_before_utc + timedelta(hours=1))


@pytest.fixture
def sessions(tmp_path: Path, clock: FakeClock) -> Sessions:
    """Give a mint."""
    return opened(tmp_path, clock)


def opened(directory: Path, clock: FakeClock) -> Sessions:
    return Sessions(directory / "key.pem", ISSUER, TrustDomain("example.org"), clock)


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified(token: str, jwks: str) -> dict[str, Any]:
    """Verify a token as an application would, by the published key (RFC 7515, RFC 7518 section 3.4), and give its claims."""
    header, claims, signature = token.split(".")
    said, (key,) = json.loads(decoded(header)), json.loads(jwks)["keys"]
    assert (said["alg"], said["kid"]) == ("ES256", key["kid"])
    x, y = (int.from_bytes(decoded(key[name]), "big") for name in "xy")
    raw = decoded(signature)
    assert len(raw) == 64
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    public.verify(der, f"{header}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))
    return json.loads(decoded(claims))


def minted(sessions: Sessions, leaf: Issued, host: str = HOST) -> Minted:
    outcome = sessions.token_for(leaf.cert_der, host)
    assert isinstance(outcome, Minted)
    return outcome


def test_a_token_says_who_came_where_and_until_when(sessions: Sessions, leaf: Issued, clock: FakeClock):
    """The signature verifies by the published key, and each claim is the certificate's."""
    token = minted(sessions, leaf)
    now = to_unix(clock.now())
    assert verified(token.token, sessions.jwks) == {
        "iss": ISSUER,
        "aud": HOST,
        "sub": "spiffe://example.org/payments",
        "iat": now,
        "exp": now + 3600,
        "cnf": {"x5t#S256": base64.urlsafe_b64encode(hashlib.sha256(leaf.cert_der).digest()).rstrip(b"=").decode()},
    }
    assert (token.renew, token.ends) == (now + 2400, now + 3600)


def test_a_token_ends_with_its_certificate(sessions: Sessions, leaf: Issued, clock: FakeClock):
    """Ten minutes before the certificate's end a token lives ten minutes."""
    clock.set(leaf.cert.not_valid_after_utc - timedelta(minutes=10))
    token = minted(sessions, leaf)
    assert verified(token.token, sessions.jwks)["exp"] == token.ends == to_unix(leaf.cert.not_valid_after_utc)


def test_one_token_serves_until_a_third_of_its_life_is_left(sessions: Sessions, leaf: Issued, clock: FakeClock):
    """All workers of a gateway get the same one, and then all get the next."""
    first = minted(sessions, leaf)
    clock.set(clock.now() + timedelta(seconds=2399))
    assert minted(sessions, leaf) is first
    clock.set(clock.now() + timedelta(seconds=1))
    assert minted(sessions, leaf).token != first.token


def test_another_host_or_certificate_has_a_token_of_its_own(sessions: Sessions, leaf: Issued):
    """A token for one host opens nothing at another."""
    other = Pki().leaf("payments")
    tokens = {minted(sessions, one, host).token for one in (leaf, other) for host in (HOST, "b.example.org")}
    assert len(tokens) == 4


def test_a_restart_keeps_the_key(tmp_path: Path, clock: FakeClock, leaf: Issued):
    """What was minted before verifies after; the key's file is for its owner alone."""
    before = opened(tmp_path, clock)
    token = minted(before, leaf)
    assert verified(token.token, opened(tmp_path, clock).jwks)["aud"] == HOST
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert json.loads(before.jwks)["keys"][0].keys() == {"crv", "kty", "x", "y", "alg", "use", "kid"}


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_said(tmp_path: Path, clock: FakeClock, text: str):
    """It is not replaced in silence."""
    (tmp_path / "key.pem").touch(0o600)
    (tmp_path / "key.pem").write_text(text)
    with pytest.raises(BadInput, match=r"key\.pem"):
        opened(tmp_path, clock)


def test_a_key_of_another_kind_is_said(tmp_path: Path, clock: FakeClock):
    """ES256 takes P-256 alone."""
    for key in (Pki().leaf(key="rsa").key_pem, Pki().leaf(key=ec.generate_private_key(ec.SECP384R1())).key_pem):
        (tmp_path / "key.pem").touch(0o600)
        (tmp_path / "key.pem").write_bytes(key)
        with pytest.raises(BadInput, match=r"key\.pem"):
            opened(tmp_path, clock)


def test_who_has_no_identity_gets_no_token(sessions: Sessions):
    """The refusals are those of the gateway."""
    pki = Pki()
    for bad, reason in (
        (pki.leaf(san_uris=[]), Reason.IDENTITY_NO_URI_SAN),
        (pki.leaf(san_uris=["spiffe://example.com/a"]), Reason.IDENTITY_FOREIGN_DOMAIN),
        (pki.leaf(eku=[SERVER]), Reason.CERT_WRONG_EKU),
    ):
        outcome = sessions.token_for(bad.cert_der, HOST)
        assert isinstance(outcome, Refusal)
        assert outcome.reason is reason


def test_an_expired_certificate_gets_no_token(sessions: Sessions, leaf: Issued, clock: FakeClock):
    """A token that ends before it begins would be worth nothing, and is not made."""
    for moment, reason in (
        (leaf.cert.not_valid_after_utc, Reason.CERT_EXPIRED),
        (leaf.cert.not_valid_before_utc - timedelta(seconds=1), Reason.CERT_NOT_YET_VALID),
    ):
        clock.set(moment)
        outcome = sessions.token_for(leaf.cert_der, HOST)
        assert isinstance(outcome, Refusal)
        assert outcome.reason is reason


def test_tokens_do_not_pile_up(sessions: Sessions, leaf: Issued, monkeypatch: pytest.MonkeyPatch):
    """The oldest make room."""
    monkeypatch.setattr("handfast.app.agent.session.MOST_TOKENS", 3)
    for number in range(5):
        minted(sessions, leaf, f"h{number}")
    assert [host for _, host in sessions._tokens] == ["h2", "h3", "h4"]


# Over HTTP, as Envoy asks


async def posted(sessions: Sessions, body: bytes, host: str = HOST) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=sessions.app())
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        return await client.post("/session", content=body)


async def test_envoy_gets_the_token_with_its_times(sessions: Sessions, leaf: Issued):
    """Three words: when to renew, when it ends, the token; the certificate comes as Envoy escapes it."""
    response = await posted(sessions, quote(leaf.chain_pem).encode())
    renew, ends, token = response.text.split(" ")
    assert (int(renew), int(ends), token) == (
        minted(sessions, leaf).renew,
        minted(sessions, leaf).ends,
        minted(sessions, leaf).token,
    )


async def test_hostile_bodies_are_refused(sessions: Sessions, leaf: Issued):
    """Too long, no certificate, damaged, of nobody: each has its status, and none a token."""
    damaged = leaf.cert_pem.replace(b"M", b"N")
    stranger = Pki().leaf(san_uris=["spiffe://example.com/a"])
    cases = [
        (b"x" * (MOST_BODY + 1), 413),
        (b"", 400),
        (b"x", 400),
        (damaged, 400),
        (b"%00" * 99, 400),
        (quote(stranger.cert_pem).encode(), 403),
    ]
    for body, status in cases:
        response = await posted(sessions, body)
        assert response.status_code == status
        assert "eyJ" not in response.text


@given(
    body=st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----".encode())
)
async def test_whatever_comes_is_answered(body: bytes, tmp_path_factory: pytest.TempPathFactory):
    """No body makes the mint fail."""
    response = await posted(_MINT(tmp_path_factory), body)
    assert response.status_code in {400, 403, 413}


class _Once:
    def __init__(self) -> None:
        self._made: Sessions | None = None

    def __call__(self, factory: pytest.TempPathFactory) -> Sessions:
        self._made = self._made or opened(factory.mktemp("mint"), FakeClock())
        return self._made


_MINT = _Once()
