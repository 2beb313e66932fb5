import pytest

from handfast.app.server.acme import orders, trials
from handfast.base.events import AcmeValidationFailed
from handfast.base.reasons import Reason
from handfast.trust.acme.orders import ORDER_LIFE, STALLED
from tests.app.server.acme.client import Acme, Responder, problem
from tests.app.sites import Site
from tests.support.acme import Csr


async def challenge_of(client: Acme, order: dict[str, object], kind: str = "http-01") -> dict[str, str]:
    authorization = (await client.post(order["authorizations"][0])).json()
    return next(one for one in authorization["challenges"] if one["type"] == kind)


async def test_an_order_says_what_is_to_be_proved(client: Acme):
    """An authorization for each name, with a challenge of each kind, and a token of its own for each."""
    answer = await client.order("localhost", "payments.internal", "LOCALHOST")
    order = answer.json()
    assert [one["value"] for one in order["identifiers"]] == ["localhost", "payments.internal"]
    assert (order["status"], order["profile"]) == ("pending", "workload")
    assert answer.headers["location"] == order["finalize"].removesuffix("/finalize")
    shown = [(await client.post(url)).json() for url in order["authorizations"]]
    assert [[one["type"] for one in each["challenges"]] for each in shown] == [["http-01", "tls-alpn-01", "dns-01"]] * 2
    assert len({one["token"] for each in shown for one in each["challenges"]}) == 6


async def test_a_wildcard_is_proved_by_dns_alone(stranger: Acme):
    """Its authorization names the domain, says that it is a wildcard, and offers dns-01."""
    await stranger.register(await stranger.make_binding("wiki", domains=["*.wiki.internal"]))
    order = (await stranger.order("*.wiki.internal")).json()
    shown = (await stranger.post(order["authorizations"][0])).json()
    assert (shown["identifier"]["value"], shown["wildcard"]) == ("wiki.internal", True)
    assert [one["type"] for one in shown["challenges"]] == ["dns-01"]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, (400, "malformed")),
        ({"identifiers": []}, (400, "malformed")),
        ({"identifiers": "localhost"}, (400, "malformed")),
        ({"identifiers": [{"type": "dns"}]}, (400, "malformed")),
        ({"identifiers": [{"type": "dns", "value": 7}]}, (400, "malformed")),
        ({"identifiers": [{"type": "ip", "value": "127.0.0.1"}]}, (400, "unsupportedIdentifier")),
        ({"identifiers": [{"type": "dns", "value": "127.0.0.1"}]}, (403, "rejectedIdentifier")),
        ({"identifiers": [{"type": "dns", "value": "ledger.internal"}]}, (403, "rejectedIdentifier")),
        ({"identifiers": [{"type": "dns", "value": "localhost"}] * 101}, (400, "malformed")),
        ({"identifiers": [{"type": "dns", "value": "localhost"}], "profile": "forever"}, (400, "invalidProfile")),
        ({"identifiers": [{"type": "dns", "value": "localhost"}], "profile": 7}, (400, "malformed")),
        ({"identifiers": [{"type": "dns", "value": "localhost"}], "notAfter": "2030-01-01T00:00:00Z"}, (400, "malformed")),
        ({"identifiers": [{"type": "dns", "value": "localhost"}], "notBefore": "2030-01-01T00:00:00Z"}, (400, "malformed")),
        ([], (400, "malformed")),
        ("x", (400, "malformed")),
        (None, (400, "malformed")),
    ],
    ids=str,
)  # fmt: skip
async def test_what_cannot_be_ordered(payload: object, expected: tuple[int, str], client: Acme):
    """Names that are not the workload's, are none, or are too many; profiles that do not exist."""
    assert problem(await client.post("/new-order", payload)) == expected


async def test_a_name_is_proved_over_http(client: Acme, web: Responder):
    """The server fetches the file under the name, and the order is ready."""
    order = (await client.order()).json()
    await client.meet(order, web)
    shown = (await client.post(order["authorizations"][0])).json()
    assert (shown["status"], [one["status"] for one in shown["challenges"]]) == ("valid", ["valid"])
    assert (await client.post(order["finalize"].removesuffix("/finalize"))).json()["status"] == "ready"
    assert f"host: localhost:{web.port}".encode() in web.asked[0].lower()


async def test_a_failure_is_told_and_recorded(client: Acme, web: Responder, here: Site):
    """A wrong file makes challenge, authorization and order invalid, with the reason for client and operator."""
    order = (await client.order()).json()
    challenge = await challenge_of(client, order)
    web.files[challenge["token"]] = "something else"
    await client.post(challenge["url"], {})
    shown = await client.decided(order["authorizations"][0])
    assert shown["status"] == "invalid"
    assert shown["challenges"][0]["error"]["type"].endswith(":incorrectResponse")
    assert (await client.post(order["finalize"].removesuffix("/finalize"))).json()["status"] == "invalid"
    ((_, event),) = await here.server.platform.ledger.recent(kinds=["acme.validation.failed"])
    assert isinstance(event, AcmeValidationFailed)
    assert (event.dns, event.challenge, event.reason) == ("localhost", "http-01", Reason.ACME_WRONG_ANSWER)


async def test_a_challenge_is_tried_once(client: Acme, web: Responder):
    """Posting to a challenge again, met or failed, changes nothing."""
    order = (await client.order()).json()
    await client.meet(order, web)
    tried = len(web.asked)
    web.files.clear()
    shown = (await client.post(order["authorizations"][0])).json()
    again = await client.post(shown["challenges"][0]["url"], {})
    assert again.json()["status"] == "valid"
    assert len(web.asked) == tried


async def test_a_trial_that_was_lost_begins_anew(client: Acme, web: Responder, here: Site, monkeypatch):
    """Where a server died while it looked, the next question has it looked at again."""
    order = (await client.order()).json()
    challenge = await challenge_of(client, order)
    web.files[challenge["token"]] = f"{challenge['token']}.{client.key.thumbprint}"
    with monkeypatch.context() as lost:
        lost.setattr(trials.Trials, "_run", _nothing)
        assert (await client.post(challenge["url"], {})).json()["status"] == "processing"
    waiting = await client.post(order["authorizations"][0])
    assert (waiting.json()["status"], waiting.headers["retry-after"]) == ("pending", "1")
    assert web.asked == []
    await here.clock.advance(STALLED.total_seconds())
    assert (await client.decided(order["authorizations"][0]))["status"] == "valid"


async def _nothing(*_: object) -> None:
    pass


async def test_too_many_trials_wait(client: Acme, monkeypatch):
    """What is more than the server can look at is put off; the order stays as it is."""
    monkeypatch.setattr(trials, "MOST_WAITING", 0)
    order = (await client.order()).json()
    challenge = await challenge_of(client, order)
    assert problem(await client.post(challenge["url"], {})) == (429, "rateLimited")
    assert (await client.post(challenge["url"])).json()["status"] == "pending"


async def test_open_orders_are_bounded(client: Acme, monkeypatch, here: Site):
    """An account has so many open orders, and more when some are given up or have expired."""
    monkeypatch.setattr(orders, "MOST_OPEN", 2)
    first = (await client.order()).json()
    await client.order()
    assert problem(await client.order()) == (429, "rateLimited")
    await client.post(first["authorizations"][0], {"status": "deactivated"})
    assert (await client.order()).status_code == 201
    await here.clock.advance(ORDER_LIFE.total_seconds() + 1)
    assert (await client.order()).status_code == 201


async def test_orders_a_day_are_bounded(client: Acme, monkeypatch, here: Site):
    """Also those that were given up count, until a day has passed."""
    monkeypatch.setattr(orders, "MOST_A_DAY", 1)
    order = (await client.order()).json()
    await client.post(order["authorizations"][0], {"status": "deactivated"})
    assert problem(await client.order()) == (429, "rateLimited")
    await here.clock.advance(ORDER_LIFE.total_seconds())
    assert (await client.order()).status_code == 201


async def test_an_order_expires(client: Acme, web: Responder, here: Site):
    """What was proved in time is not finalized after it."""
    order = (await client.order()).json()
    await client.meet(order, web)
    await here.clock.advance(ORDER_LIFE.total_seconds())
    assert (await client.post(order["authorizations"][0])).json()["status"] == "expired"
    assert problem(await client.finalize(order, Csr(["localhost"]))) == (403, "orderNotReady")


@pytest.mark.parametrize("path", ["{order}/9", "{order}/x", "{order}/-1", "{order}/" + "9" * 1500, "none/0"])
async def test_what_is_not_there(path: str, client: Acme):
    """Places and orders that do not exist are told as such."""
    order = (await client.order()).headers["location"].rpartition("/")[2]
    assert problem(await client.post("/authorization/" + path.replace("{order}", order))) == (404, "malformed")
    assert problem(await client.post(f"/challenge/{path.replace('{order}', order)}/http-01")) == (404, "malformed")
    assert problem(await client.post(f"/challenge/{order}/0/http-02")) == (404, "malformed")
    assert problem(await client.post(f"/certificate/{order}")) == (404, "malformed")


async def test_a_challenge_is_its_accounts_own(client: Acme, here: Site):
    """Whoever learns its URL, and has an account of the same workload, neither has it tried nor gives the order up."""
    other = Acme(here, here.anonymous())
    await other.register()
    order = (await client.order()).json()
    authorization, challenge = order["authorizations"][0], await challenge_of(client, order)
    for url, payload in ((authorization, {"status": "deactivated"}), (challenge["url"], None), (challenge["url"], {})):
        assert problem(await other.post(url, payload)) == (404, "malformed")
    shown = (await client.post(authorization)).json()
    assert (shown["status"], {one["status"] for one in shown["challenges"]}) == ("pending", {"pending"})
