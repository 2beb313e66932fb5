import asyncio

import pytest

from handfast.app.server.acme.messages import AcmeDeactivation, AcmeListAnswer
from handfast.app.server.messages import Nothing
from handfast.base.events import AcmeAccountCreated
from handfast.base.refusal import BadInput, Refused
from handfast.trust.acme.keys import from_base64url
from tests.app.server.acme.client import Acme, Responder, problem
from tests.app.sites import Site
from tests.support.acme import make_key


async def listed(site: Site) -> AcmeListAnswer:
    return await site.operator.call("GET", "/v1/acme", AcmeListAnswer)


async def test_an_account_needs_an_operators_key(stranger: Acme, here: Site):
    """Without a binding there is none; with one there is, and both are on record."""
    assert problem(await stranger.post("/new-account", {})) == (403, "externalAccountRequired")
    answer = await stranger.register()
    assert (answer.status_code, answer.json()["status"]) == (201, "valid")
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["acme.account.created"])
    assert isinstance(event, AcmeAccountCreated)
    assert (event.name, event.account) == ("payments", stranger.kid.rpartition("/")[2])
    (row,) = (await listed(here)).accounts
    assert (row.account, row.name, row.active) == (event.account, "payments", True)


async def test_a_key_lets_one_in(stranger: Acme, here: Site):
    """Of many that come at the same time with one key, one gets an account; afterwards the secret is gone."""
    binding = await stranger.make_binding()
    clients = [Acme(here, here.anonymous()) for _ in range(5)]
    answers = await asyncio.gather(*(one.register(binding) for one in clients))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403, 403]
    assert {problem(answer) for answer in answers if answer.status_code != 201} == {(403, "unauthorized")}
    ((mac,),) = await here.server.platform.ledger._db.fetch("select mac from acme_bindings")
    assert mac == b""


async def test_a_key_may_let_more_in(stranger: Acme, here: Site):
    """As many as the operator said."""
    binding = await stranger.make_binding(accounts=2)
    answers = [await Acme(here, here.anonymous()).register(binding) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 403]


async def test_a_key_ends(stranger: Acme, here: Site):
    """After its time it lets nobody in, and whoever has it fills no store."""
    binding = await stranger.make_binding(ttl_seconds=60)
    await here.clock.advance(60)
    assert problem(await stranger.register(binding)) == (403, "unauthorized")
    assert await here.server.platform.ledger._db.fetch("select * from acme_nonces") == []


async def test_a_binding_is_of_this_key_and_request(stranger: Acme):
    """A wrong secret, another's key, another URL, a nonce and another algorithm are refused, and the key stays unused."""
    binding = await stranger.make_binding()
    secret, url = from_base64url(binding.hmac_key), f"{stranger.base}/new-account"
    wrong = {
        "secret": stranger.key.bind(binding.key_id, b"x" * 32, url),
        "kid": stranger.key.bind("x" * 26, secret, url),
        "key": make_key().bind(binding.key_id, secret, url),
        "url": stranger.key.bind(binding.key_id, secret, f"{stranger.base}/new-order"),
        "nonce": stranger.key.bind(binding.key_id, secret, url, nonce="x"),
        "algorithm": stranger.key.bind(binding.key_id, secret, url, alg="none"),
        "form": {"protected": "", "payload": "", "signature": ""},
        "text": "binding",
    }
    answers = {
        name: problem(await stranger.post("/new-account", {"externalAccountBinding": one}))
        for name, one in wrong.items()
    }
    assert answers == {
        "secret": (403, "unauthorized"),
        "kid": (403, "unauthorized"),
        "key": (400, "malformed"),
        "url": (400, "malformed"),
        "nonce": (400, "malformed"),
        "algorithm": (400, "badSignatureAlgorithm"),
        "form": (400, "malformed"),
        "text": (403, "externalAccountRequired"),
    }
    assert (await stranger.register(binding)).status_code == 201


async def test_an_account_is_found_again(client: Acme):
    """The same key gets the same account, and needs no binding for it."""
    kid, client.kid = client.kid, ""
    for payload in ({}, {"onlyReturnExisting": True}):
        answer = await client.post("/new-account", payload)
        assert (answer.status_code, answer.headers["location"]) == (200, kid)


async def test_contacts_change(client: Acme):
    """Contacts are plain mail addresses, a few of them."""
    answer = await client.post(client.kid, {"contact": ["mailto:ops@example.org"]})
    assert answer.json()["contact"] == ["mailto:ops@example.org"]
    assert (await client.post(client.kid)).json()["contact"] == ["mailto:ops@example.org"]
    for contact, kind in (
        (["tel:+1"], "unsupportedContact"),
        (["mailto:a@b,c@d"], "invalidContact"),
        (["mailto:a@b?cc=c@d"], "invalidContact"),
        (["mailto:a@b"] * 11, "invalidContact"),
        (["mailto:" + "a" * 300 + "@b"], "invalidContact"),
        (["mailto:a@b\n"], "invalidContact"),
        ("mailto:a@b", "invalidContact"),
        ([7], "invalidContact"),
    ):
        assert problem(await client.post(client.kid, {"contact": contact})) == (400, kind)


async def test_an_account_closes_itself(client: Acme, here: Site):
    """Afterwards nothing that it signs counts, and its key gets no other account."""
    assert (await client.post(client.kid, {"status": "deactivated"})).json()["status"] == "deactivated"
    assert problem(await client.order()) == (401, "unauthorized")
    kid, client.kid = client.kid, ""
    assert problem(await client.register()) == (401, "unauthorized")
    assert kid
    assert [event.kind for _, event in await here.server.platform.ledger.recent(1)] != []
    assert [row.active for row in (await listed(here)).accounts] == [False]


async def test_an_operator_closes_an_account(client: Acme, here: Site):
    """From then on it may do nothing; a second time there is nothing to close."""
    request = AcmeDeactivation(account=client.kid.rpartition("/")[2])
    await here.operator.call("POST", "/v1/acme/deactivations", Nothing, request)
    assert problem(await client.order()) == (401, "unauthorized")
    with pytest.raises(Refused):
        await here.operator.call("POST", "/v1/acme/deactivations", Nothing, request)


async def test_an_account_is_its_own(client: Acme, here: Site):
    """Nobody reads or changes another's."""
    other = Acme(here, here.anonymous())
    await other.register()
    assert problem(await other.post(client.kid)) == (404, "malformed")
    assert problem(await other.post(f"{client.kid}/orders")) == (404, "malformed")


async def test_orders_are_listed_by_pages(client: Acme, monkeypatch):
    """Those that are open or done are listed, with the way to the next page; a cursor of somebody's own making is refused."""
    monkeypatch.setattr("handfast.app.server.acme.accounts.PAGE", 2)
    made = [(await client.order()).headers["location"] for _ in range(3)]
    first = await client.post(f"{client.kid}/orders")
    assert first.json()["orders"] == made[:2]
    following = next(value for value in first.headers.get_list("link") if 'rel="next"' in value)
    second = await client.post(following.split(">")[0][1:])
    assert second.json()["orders"] == made[2:]
    assert problem(await client.post(f"{client.kid}/orders?after=x")) == (400, "malformed")


async def test_a_key_change_is_signed_by_both(client: Acme):
    """The new key signs inside, over the account and the old key; else nothing changes."""
    new, url = make_key(), f"{client.base}/key-change"
    right = {"account": client.kid, "oldKey": client.key.jwk}
    header = {"jwk": new.jwk, "url": url}
    for payload, inner in (
        ({**right, "account": client.kid + "x"}, header),
        ({**right, "oldKey": new.jwk}, header),
        (right, {**header, "url": client.kid}),
        (right, {**header, "nonce": "x"}),
        ([], header),
    ):
        assert problem(await client.post(url, new.jws(payload, inner))) == (400, "malformed")
    forged = make_key().jws(right, header)
    assert problem(await client.post(url, forged)) == (403, "unauthorized")
    assert (await client.order()).status_code == 201


async def test_a_key_has_one_account(client: Acme, here: Site):
    """A change to a key that another account has is a conflict, and says where that account is."""
    other, url = Acme(here, here.anonymous()), f"{client.base}/key-change"
    await other.register()
    inner = other.key.jws({"account": client.kid, "oldKey": client.key.jwk}, {"jwk": other.key.jwk, "url": url})
    answer = await client.post(url, inner)
    assert problem(answer) == (409, "malformed")
    assert answer.headers["location"] == other.kid


async def test_an_operator_names_a_workload_that_has_names(stranger: Acme):
    """A reserved name, a workload without names, wrong names, and names beside an entry are refused when the key is made."""
    with pytest.raises(Refused):
        await stranger.make_binding("handfast/operator/eve")
    for name, domains in (
        ("wiki", []), ("wiki", ["127.0.0.1"]), ("wiki", ["a b"]), ("payments", ["localhost"]), ("..", ["a.internal"])
    ):  # fmt: skip
        with pytest.raises(BadInput):
            await stranger.make_binding(name, domains=domains)


async def test_a_keys_domains_serve_where_there_is_no_entry(stranger: Acme, web: Responder):
    """The operator's names count then, and no others."""
    await stranger.register(await stranger.make_binding("wiki", domains=["LocalHost"]))
    assert problem(await stranger.order("payments.internal")) == (403, "rejectedIdentifier")
    assert "BEGIN CERTIFICATE" in await stranger.obtain(web)
