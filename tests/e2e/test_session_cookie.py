import hashlib
import time
from http.cookies import SimpleCookie

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handfast.base.reasons import Reason
from tests.e2e import jwt
from tests.e2e.clients import BOTH_VERSIONS, Connection, Response, Seen, curl
from tests.e2e.platform import Client, Platform
from tests.e2e.test_refusals import check_problem
from tests.e2e.world import OPEN, STRICT

COOKIE = "Handfast_Authorization"
JWKS = "/.well-known/jwks.json"


def cookie_of(response: Response) -> str:
    """Give the token that an answer sets."""
    (value,) = response.named("set-cookie")
    return SimpleCookie(value)[COOKIE].value


def tokens_in(seen: Seen) -> list[str]:
    """Give all session tokens that the service sees, however they are written."""
    crumbs = [crumb.strip() for value in seen.named("cookie") for crumb in value.split(";")]
    return [
        value for name, _, value in (crumb.partition("=") for crumb in crumbs) if name.strip().lower() == COOKIE.lower()
    ]


@pytest.fixture
def token(platform: Platform, payments: Client) -> str:
    """Give the token that a client with a certificate gets at its first request."""
    return cookie_of(curl(platform, f"{OPEN}/", files=payments.files))


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
def test_the_token_says_who_came_and_is_bound_to_the_certificate(platform: Platform, payments: Client, tls):
    """An application can verify the token by the host's JWK set: who, for whom, until when, with which certificate."""
    with Connection(platform, OPEN, payments.files, tls) as connection:
        response = connection.request()
        token, jwks = cookie_of(response), connection.request(JWKS).plain
    claims = jwt.claims_of(token, jwks)
    thumbprint = jwt.pad(hashlib.sha256(payments.der).digest())
    assert (claims["aud"], claims["sub"]) == (OPEN, "spiffe://example.org/payments")
    assert claims["iss"] == "spiffe://example.org/handfast/gateway/local"
    assert claims["cnf"] == {"x5t#S256": thumbprint}
    assert claims["iat"] <= time.time() < claims["exp"] <= payments.leaf.not_valid_after_utc.timestamp()
    assert tokens_in(Seen(response)) == [token]


def test_the_token_ends_with_the_certificate(platform: Platform):
    """The token of a certificate that ends soon ends no later, and neither does the browser's cookie."""
    brief = platform.issue("staff/brief-token", ttl_seconds=60)
    response = curl(platform, f"{OPEN}/", files=brief.files)
    claims = jwt.claims_of(cookie_of(response), curl(platform, OPEN + JWKS).plain)
    end = brief.leaf.not_valid_after_utc.timestamp()
    assert claims["exp"] == end
    age = int(SimpleCookie(response.one("set-cookie"))[COOKIE]["max-age"])
    assert age <= end - time.time() + 2


def test_the_cookie_is_for_this_host_and_no_script(platform: Platform, payments: Client):
    """The cookie is Secure, HttpOnly, SameSite=Lax, and of this host alone."""
    attributes = curl(platform, f"{OPEN}/", files=payments.files).one("set-cookie").split("; ")[1:]
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(attributes)
    assert not [one for one in attributes if one.lower().startswith("domain")]


def test_the_jwk_set_is_public(platform: Platform):
    """Anyone may read the keys by which tokens are verified, as JSON."""
    response = curl(platform, OPEN + JWKS)
    assert (response.status, response.one("content-type")) == (200, "application/json")
    assert [sorted(key) for key in response.plain["keys"]] == [["alg", "crv", "kid", "kty", "use", "x", "y"]]


def test_it_is_not_set_again(platform: Platform, payments: Client, token):
    """A client that sends its valid token is not given it again, and the service sees it once."""
    response = curl(platform, f"{OPEN}/", "-H", f"Cookie: a=1; {COOKIE}={token}; b=2", files=payments.files)
    assert not response.named("set-cookie")
    assert tokens_in(Seen(response)) == [token]
    assert {"a=1", "b=2"} <= {crumb.strip() for crumb in Seen(response).one("cookie").split(";")}


def test_all_workers_give_the_same_token(platform: Platform, payments: Client, token):
    """Whichever worker thread a connection falls to, a client has one token."""
    seen = set()
    for _ in range(12):
        with Connection(platform, OPEN, payments.files) as connection:
            seen.add(cookie_of(connection.request()))
    assert seen == {token}


FORGERIES = {
    "other-subject": lambda token: jwt.forge(token, sub="spiffe://example.org/staff/alice"),
    "longer-life": lambda token: jwt.forge(token, exp=2**33),
    "unsigned": jwt.unsigned,
    "signature-cut": lambda token: token.rpartition(".")[0] + ".",
    "garbage": lambda _: "let-me-in",
    "empty": lambda _: "",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_token_that_is_not_the_clients_is_replaced(platform: Platform, payments: Client, token, forge):
    """The service sees the true token in place of a forged one, alone or beside it, and the client gets the true one again."""
    forged = forge(token)
    for cookies in (
        [f"{COOKIE}={forged}"],
        [f"{COOKIE}={forged}; {COOKIE}={token}"],
        [f"{COOKIE}={token}; x=y;{COOKIE}={forged}"],
        [f"{COOKIE}={forged}", "x=y", f" {COOKIE} = {forged}"],
    ):
        with Connection(platform, OPEN, payments.files) as connection:
            response = connection.request(headers=[("Cookie", one) for one in cookies])
        assert tokens_in(Seen(response)) == [token]
        if forged:
            assert forged not in "\n".join(value for name, value in Seen(response).headers if name == "cookie").replace(
                token, ""
            )
        assert not response.named("set-cookie") or cookie_of(response) == token


@pytest.mark.parametrize(
    "claim", [{"exp": 2, "iat": 1}, {"aud": STRICT}, {"sub": "spiffe://example.org/staff/alice"}], ids=str
)
def test_a_token_that_the_gateway_did_not_mint_is_replaced(platform: Platform, payments: Client, token, claim):
    """A stale token, or one for another host, does not reach the service though the gateway's own key signed it."""
    key = load_pem_private_key((platform.data / "agent" / "session-key.pem").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    signed = jwt.sign_again(token, key, **claim)
    jwt.claims_of(signed, curl(platform, OPEN + JWKS).plain)
    response = curl(platform, f"{OPEN}/", "-H", f"Cookie: {COOKIE}={signed}", files=payments.files)
    assert tokens_in(Seen(response)) == [token] == [cookie_of(response)]


def test_a_forged_token_does_not_verify(platform: Platform, token):
    """What an application checks would notice a forgery, too."""
    with pytest.raises(InvalidSignature):
        jwt.claims_of(jwt.forge(token, sub="spiffe://example.org/admin"), curl(platform, OPEN + JWKS).plain)


def test_a_stolen_token_is_replaced_by_the_thiefs_own(platform: Platform, reports: Client, token):
    """Another certificate's token turns into the sender's own: nobody is taken for somebody else."""
    response = curl(platform, f"{OPEN}/", "-H", f"Cookie: {COOKIE}={token}", files=reports.files)
    (arrived,) = tokens_in(Seen(response))
    claims = jwt.claims_of(arrived, curl(platform, OPEN + JWKS).plain)
    assert claims["sub"] == "spiffe://example.org/reports"
    assert cookie_of(response) == arrived != token


HIDDEN = (
    "x=y {name}={token}", "x=y, {name}={token}", "x=y,{name}={token}", "x=y\t{name}={token}", 'x="y; {name}={token}"',
    '{name}="{token}"', "$Version=1; {name}={token}; $Path=/", "{name} ={token}", "x={name}={token}", "=; {name}= {token}",
)  # fmt: skip


@pytest.mark.parametrize("name", [COOKIE, COOKIE.lower(), COOKIE.upper()])
def test_a_stolen_token_cannot_hide(platform: Platform, reports: Client, token, name):
    """Servers read cookies in more ways than RFC 6265 has: in none of them is another's token to be found."""
    with Connection(platform, OPEN, reports.files) as known, Connection(platform, OPEN) as unknown:
        for hidden in HIDDEN:
            headers = [("Cookie", hidden.format(name=name, token=token))]
            assert token not in str(Seen(known.request(headers=headers)).headers)
            assert token not in str(Seen(unknown.request("/health", headers=headers)).headers)


def test_a_token_of_the_certificate_before_is_replaced(platform: Platform, token):
    """After a renewal the old certificate's token is stale, though the identity is the same."""
    renewed = platform.issue("payments")
    response = curl(platform, f"{OPEN}/", "-H", f"Cookie: {COOKIE}={token}", files=renewed.files)
    (arrived,) = tokens_in(Seen(response))
    assert arrived != token
    claims = jwt.claims_of(arrived, curl(platform, OPEN + JWKS).plain)
    assert claims["cnf"]["x5t#S256"] == jwt.pad(hashlib.sha256(renewed.der).digest())


def test_without_a_certificate_it_opens_nothing(platform: Platform, token):
    """The token is no key: without its certificate a client is nobody, and the service does not see what it sent."""
    headers = [("Cookie", f"{COOKIE}={token}; a=1")]
    with Connection(platform, OPEN) as connection:
        check_problem(connection.request(headers=headers), 403, Reason.CLIENT_NO_CERTIFICATE)
        response = connection.request("/health", headers=headers)
    assert tokens_in(Seen(response)) == []
    assert Seen(response).one("cookie") == "a=1"
    assert not response.named("set-cookie")


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_a_host_without_sessions_sets_none(platform: Platform, payments: Client, http):
    """A host that does not ask for sessions sets no cookie and shows no keys."""
    response = curl(platform, f"{STRICT}/", http, files=payments.files)
    assert not response.named("set-cookie")
    assert tokens_in(Seen(response)) == []
    assert Seen(curl(platform, STRICT + JWKS, files=payments.files)).request.startswith("GET /.well-known/jwks.json")


def test_a_refusal_sets_none(platform: Platform):
    """One who is refused gets no token."""
    assert not curl(platform, f"{OPEN}/", files=platform.issue("staff/mallory").files).named("set-cookie")


def test_the_services_own_cookies_stay(platform: Platform, payments: Client):
    """Over HTTP/2, where cookies come as several headers, those of the application arrive."""
    response = curl(
        platform, f"{OPEN}/", "--http2", "-H", "Cookie: a=1; b=2", "-H", "Cookie: c=3", files=payments.files
    )
    crumbs = {crumb.strip() for value in Seen(response).named("cookie") for crumb in value.split(";")}
    assert {"a=1", "b=2", "c=3"} <= crumbs
