import asyncio
import json
from pathlib import Path

import pytest
from starlette.requests import Request

from handfast.app.server.acme.answers import Told
from handfast.app.server.acme.requests import Desk
from handfast.trust.acme.keys import from_base64url, to_base64url
from handfast.trust.acme.nonces import NONCE_LIFE
from tests.app.server.acme.client import Acme, problem
from tests.app.server.acme.conftest import ACME_WORLD
from tests.app.sites import DOMAIN, Site, site
from tests.support.acme import make_key

LOCALHOST = [{"type": "dns", "value": "localhost"}]


async def test_a_directory_tells_where_things_are(stranger: Acme):
    """Anyone reads it, without a certificate; an account needs a key of an operator."""
    answer = await stranger.get("/directory")
    plain = answer.json()
    assert plain["newOrder"] == f"{stranger.base}/new-order"
    assert plain["meta"]["externalAccountRequired"] is True
    assert set(plain["meta"]["profiles"]) == {"workload", "server", "short"}
    assert {name for name in plain if name != "meta"} == {
        "newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_nonce_is_to_be_had(method: str, stranger: Acme):
    """HEAD and GET give one each, which no cache keeps, and the way back to the directory."""
    first, second = [await stranger.get("/new-nonce", method) for _ in range(2)]
    assert first.headers["replay-nonce"] != second.headers["replay-nonce"]
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["link"] == f'<{stranger.base}/directory>;rel="index"'
    assert first.status_code == (200 if method == "HEAD" else 204)


async def test_a_request_counts_once(client: Acme):
    """The same bytes a second time are refused, and so are several at the same time but one."""
    url = f"{client.base}/new-order"
    header = {"url": url, "nonce": await client.nonce(), "kid": client.kid}
    body = json.dumps(client.key.jws({"identifiers": [{"type": "dns", "value": "localhost"}]}, header))
    answers = await asyncio.gather(*(client.send(url, body) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 400, 400, 400, 400]
    assert problem(await client.send(url, body)) == (400, "badNonce")


async def test_a_request_for_an_account_counts_once(stranger: Acme):
    """Whether the account was made by it or is only looked up: whoever heard it cannot ask again."""
    url, binding = f"{stranger.base}/new-account", stranger.bind(await stranger.make_binding())
    for payload, status in (({"externalAccountBinding": binding}, 201), ({"onlyReturnExisting": True}, 200)):
        header = {"url": url, "nonce": await stranger.nonce(), "jwk": stranger.key.jwk}
        body = json.dumps(stranger.key.jws(payload, header))
        assert (await stranger.send(url, body)).status_code == status
        assert problem(await stranger.send(url, body)) == (400, "badNonce")


async def test_a_second_server_knows_what_the_first_has_seen(tmp_path: Path):
    """A nonce of one server counts at another over the same database, and once for both: a restart changes nothing."""
    async with site(tmp_path) as first:
        await first.apply(ACME_WORLD)
        client, port = Acme(first, first.anonymous()), first.server.api_address[1]
        await client.register()
        url = f"{client.base}/new-order"
        headers = [{"url": url, "nonce": await client.nonce(), "kid": client.kid} for _ in range(2)]
        bodies = [json.dumps(client.key.jws({"identifiers": LOCALHOST}, header)) for header in headers]
        assert (await client.send(url, bodies[0])).status_code == 201
    async with site(tmp_path, port=port) as second:
        again = Acme(second, second.anonymous(), client.key, client.kid)
        assert problem(await again.send(url, bodies[0])) == (400, "badNonce")
        assert (await again.send(url, bodies[1])).status_code == 201


async def test_a_nonce_grows_old(client: Acme, here: Site):
    """After an hour it does not count, and the answer brings a fresh one."""
    nonce = await client.nonce()
    await here.clock.advance(NONCE_LIFE.total_seconds() + 1)
    answer = await client.post("/new-order", {}, nonce=nonce)
    assert problem(answer) == (400, "badNonce")
    assert (await client.post(client.kid, nonce=answer.headers["replay-nonce"])).status_code == 200


@pytest.mark.parametrize("nonce", ["AAAA", "A" * 44, "ö", "not base64!", "A" * 2000])
async def test_a_nonce_is_ours(nonce: str, client: Acme):
    """One that we did not make does not count."""
    assert problem(await client.post("/new-order", {}, nonce=nonce)) == (400, "badNonce")


async def test_without_a_nonce_a_stranger_learns_nothing(stranger: Acme):
    """Not even whether a key has an account: what somebody recorded cannot be asked again."""
    for nonce in ("A" * 44, None):
        answer = await stranger.post("/new-account", {"onlyReturnExisting": True}, nonce=nonce)
        assert problem(answer) == (400, "badNonce")


async def test_a_request_has_a_nonce(client: Acme):
    """Without one it does not count."""
    assert problem(await client.post("/new-order", {}, nonce=None)) == (400, "badNonce")


async def test_a_stranger_fills_no_store(stranger: Acme, here: Site):
    """Requests of nobody's are refused without being kept, however well signed."""
    for _ in range(5):
        assert problem(await stranger.post("/new-account", {"onlyReturnExisting": True})) == (
            400,
            "accountDoesNotExist",
        )
        assert problem(await stranger.post("/new-account", {})) == (403, "externalAccountRequired")
        await stranger.post("/revoke-cert", {"certificate": to_base64url(b"x")})
    assert await here.server.platform.ledger._db.fetch("select * from acme_nonces") == []


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost/acme/example.org/new-order",
        "https://ca.example.org/acme/example.org/new-order",
        "new-order",
        "https://localhost:{port}/acme/example.org/revoke-cert",
        "https://localhost:{port}/acme/example.org/new-order?x=1",
        "http://localhost:{port}/acme/example.org/new-order",
        "https://localhost:{port}/acme/EXAMPLE.org/new-order",
    ],
)
async def test_a_request_is_for_this_url(url: str, client: Acme):
    """What was signed for another URL does not count."""
    port = str(client.site.server.api_address[1])
    assert problem(await client.post("/new-order", {}, url=url.replace("{port}", port))) == (401, "unauthorized")


async def test_a_hostile_server_cannot_pass_a_request_on(client: Acme):
    """A request that names a host which is not ours is refused, also where its signed URL and its Host agree."""
    url = f"https://evil.example/acme/{DOMAIN}/new-order"
    header = {
        "url": url,
        "nonce": await client.nonce(),
        "kid": f"https://evil.example/acme/{DOMAIN}/account/{client.kid[-26:]}",
    }
    body = json.dumps(client.key.jws({"identifiers": [{"type": "dns", "value": "localhost"}]}, header))
    answer = await client.api._client.request(
        "POST",
        f"/acme/{DOMAIN}/new-order",
        content=body,
        headers={"content-type": "application/jose+json", "host": "evil.example"},
    )
    assert answer.status_code == 421
    assert answer.json()["type"].endswith(":malformed")


def test_what_stands_in_our_urls_is_a_name_of_ours_and_a_port(here: Site):
    """They are made of what the client calls us, and go into answers and into what is compared with signed URLs."""
    desk = Desk(here.server.platform, ["localhost"])

    def base(host: str) -> str:
        scope = {"type": "http", "headers": [(b"host", host.encode("latin-1"))], "path_params": {"domain": DOMAIN}}
        return desk.urls(Request(scope)).base

    for host in ("localhost", "LOCALHOST:14000", "localhost:", "localhost:65535"):
        assert base(host) == f"https://{host}/acme/{DOMAIN}"
    for host in ("", ":443", "localhost.evil.example", "localhost:x", "localhost:123456", "localhost:\xb2", "localhost:443:443",
                 "localhost:443/acme", "evil@localhost"):  # fmt: skip
        with pytest.raises(Told, match="does not go by that name"):
            base(host)


async def test_another_trust_domain_is_not_here(stranger: Acme):
    """Each has a directory of its own."""
    for path in ("directory", "new-nonce", "renewal-info/AA.AA"):
        assert (await stranger.api._client.get(f"/acme/example.com/{path}")).status_code == 404


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"alg": "none"}, (400, "badSignatureAlgorithm")),
        ({"alg": "HS256"}, (400, "badSignatureAlgorithm")),
        ({"alg": "RS256"}, (400, "badSignatureAlgorithm")),
        ({"alg": "ES384"}, (400, "badSignatureAlgorithm")),
        ({"alg": "none", "kid": "https://localhost/acme/example.org/account/x"}, (400, "badSignatureAlgorithm")),
        ({"crit": ["exp"]}, (400, "malformed")),
        ({"jwk": {"kty": "EC"}}, (400, "malformed")),
        ({"kid": None}, (400, "malformed")),
        ({"kid": "https://localhost/acme/example.org/account/x"}, (400, "accountDoesNotExist")),
        ({"kid": "account"}, (400, "accountDoesNotExist")),
        ({"kid": 7}, (400, "malformed")),
        ({"url": None}, (400, "malformed")),
        ({"alg": None}, (400, "malformed")),
        ({"alg": ["ES256"]}, (400, "malformed")),
    ],
    ids=str,
)
async def test_a_header_is_as_it_should_be(header: dict[str, object], expected: tuple[int, str], client: Acme):
    """Anything else is refused, in words that a client acts on."""
    assert problem(await client.post("/new-order", {}, **header)) == expected


async def test_an_account_is_named_by_its_whole_url(client: Acme):
    """Its id alone, or below another server's name, is no kid (RFC 8555 section 6.2)."""
    _, _, own = client.kid.rpartition("/")
    for kid in (
        own,
        f"/{own}",
        f"https://evil.example/acme/{DOMAIN}/account/{own}",
        f"{client.kid}/",
        f"{client.kid}?",
    ):
        assert problem(await client.post("/new-order", {}, kid=kid)) == (400, "accountDoesNotExist")


async def test_an_account_signs_with_its_own_key(client: Acme):
    """A request under another's kid does not count, whatever key signed it."""
    client.key = make_key()
    assert problem(await client.order()) == (403, "unauthorized")


async def test_what_was_signed_is_what_counts(client: Acme):
    """A payload that was changed on the way is refused."""
    url = f"{client.base}/new-order"
    body = client.key.jws({"identifiers": []}, {"url": url, "nonce": await client.nonce(), "kid": client.kid})
    body["payload"] = to_base64url(json.dumps({"identifiers": [{"type": "dns", "value": "localhost"}]}).encode())
    assert problem(await client.send(url, json.dumps(body))) == (403, "unauthorized")


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        ("{}", "application/json", 415),
        ("{}", "application/jose+json", 400),
        ("", "application/jose+json", 400),
        ("[" * 30_000, "application/jose+json", 400),
        ("x" * (64 * 1024), "application/jose+json", 400),
        ("x" * (64 * 1024 + 1), "application/jose+json", 413),
        ('{"protected":"","payload":"","signature":""}', "application/jose+json", 400),
        ('{"protected":"e30","payload":"","signature":"","header":{}}', "application/jose+json", 400),
    ],
    ids=["media", "empty-object", "nothing", "deep", "largest", "too large", "no-header", "unprotected"],
)
async def test_a_body_is_bounded_and_flattened(body: str, media: str, status: int, client: Acme):
    """Other forms, and more than 64 KiB, are refused."""
    assert problem(await client.send(f"{client.base}/new-order", body, media)) == (status, "malformed")


async def test_a_key_is_strong_enough(stranger: Acme):
    """A weak RSA key, a private one, and one of an unknown kind hold no account."""
    weak = {"kty": "RSA", "e": "AQAB", "n": to_base64url(b"\xff" * 128)}
    private = {**stranger.key.jwk, "d": "AAAA"}
    for jwk in (weak, private, {"kty": "oct", "k": "AAAA"}, "jwk"):
        assert problem(await stranger.post("/new-account", {}, jwk=jwk)) == (400, "badPublicKey")


async def test_a_client_certificate_changes_nothing(client: Acme, here: Site):
    """ACME goes by signatures: an operator without an account has none, and the API's own paths stay shut."""
    await here.issue("ann", operator=True)
    assert (
        await here.operator._client.get(f"/acme/{DOMAIN}/directory")
    ).status_code == 421  # by its socket: no host of ours
    assert (await client.api._client.get("/v1/acme")).status_code == 401
    assert (await client.api._client.post("/v1/acme/keys", json={"name": "payments"})).status_code == 401
    assert from_base64url("AAAA") == b"\0\0\0"
