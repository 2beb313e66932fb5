from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from handfast.access.authority import ForeignAuthority
from handfast.access.world_file import parse_world
from handfast.app.agent import standings
from handfast.app.agent.standings import MOST_BODY, GatewayStandings
from handfast.app.client import Api
from handfast.app.server.standing_messages import StandingRequest
from handfast.base.windows import to_unix
from handfast.io.standing_files import SOON_S, StandingFiles
from tests.support.clock import FakeClock
from tests.support.partners import partner, roots_pem

ACME = partner("Acme")
LEAF = ACME.leaf("alice")


def authorities(revocation: dict[str, str] | None) -> dict[str, ForeignAuthority]:
    entry: dict[str, Any] = {
        "roots_pem": roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
    } | ({"revocation": revocation} if revocation else {})
    host = {"listen": 8443, "routes": [{"path": "/", "upstream": "http://a", "allow": []}]}
    plain = {"trust_domain": "example.org", "authorities": {"acme": entry}, "hosts": {"a.test": host}}
    return dict(parse_world(json.dumps(plain)).authorities)


OCSP = authorities({"ocsp": "http://127.0.0.1:1/"})


class Server:
    """The server: it says what it is told to, or is away."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.word, self.away, self.asked = clock, "good", False, list[StandingRequest]()
        self.stall = 0.0

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(self.stall)
        if self.away:
            raise httpx2.ConnectError("away")
        self.asked.append(StandingRequest(**json.loads(request.content)))
        now = to_unix(self.clock.now())
        return httpx2.Response(200, json={"word": self.word, "since": now, "until": now + 600, "renew": now + 60})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def server(clock: FakeClock) -> Server:
    return Server(clock)


@pytest.fixture
def here(server: Server, clock: FakeClock, tmp_path: Path) -> GatewayStandings:
    return begun(server, clock, tmp_path)


def begun(server: Server, clock: FakeClock, directory: Path) -> GatewayStandings:
    """Begin, or begin anew, with what lies in the directory."""
    transport = httpx2.MockTransport(server)
    api = Api(lambda: httpx2.AsyncClient(transport=transport, base_url="http://server"), "it")
    made = GatewayStandings(api, clock, StandingFiles(directory / "standings", clock))
    made.told(OCSP)
    return made


async def ask(here: GatewayStandings, name: str = "acme", body: str = "", path: str = "/standing") -> httpx2.Response:
    """Ask as Envoy does: the authority is the host, and the certificate is URL-encoded PEM."""
    sent = body or quote(LEAF.cert_pem.decode(), safe="")
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(here.app()), base_url="http://agent") as client:
        return await client.post(path, content=sent, headers={"host": name})


async def test_the_gateway_is_told_what_the_server_knows(here: GatewayStandings, server: Server, clock: FakeClock):
    """In one line: the word, its end, when to ask again. The server is asked once while that lasts."""
    now = to_unix(clock.now())
    for _ in range(3):
        answer = await ask(here)
        assert (answer.status_code, answer.text) == (200, f"good {now + 600} {now + 60}")
    (asked,) = server.asked
    assert (asked.authority, asked.certificate) == ("acme", LEAF.cert_pem.decode())


async def test_with_the_server_away_the_last_word_counts(here: GatewayStandings, server: Server, clock: FakeClock):
    """Until its end; who was never asked for is not known."""
    await ask(here)
    server.away = True
    clock.set(clock.now() + timedelta(seconds=120))
    assert (await ask(here)).text.startswith("good ")
    clock.set(clock.now() + timedelta(seconds=480))
    assert (await ask(here)).text.startswith("unknown ")


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_forgets_nobody(
    here: GatewayStandings, server: Server, clock: FakeClock, tmp_path: Path, killed: bool
):
    """With the server away: who was good stays so until the answer ends, who was revoked stays so, and nobody else is known."""
    assert (await ask(here)).text.startswith("good ")
    await (clock.advance(SOON_S) if killed else here.close())
    server.away = True
    while killed and not list((tmp_path / "standings").glob("*.json")):
        await asyncio.sleep(0.01)
    anew = begun(server, clock, tmp_path)
    assert (await ask(anew)).text.startswith("good ")
    stranger = quote(ACME.leaf("bob").cert_pem.decode(), safe="")
    assert (await ask(anew, body=stranger)).text.startswith("unknown ")
    clock.set(clock.now() + timedelta(seconds=600))
    assert (await ask(begun(server, clock, tmp_path))).text.startswith("unknown ")
    server.away, server.word = False, "revoked"
    clock.set(clock.now() + timedelta(seconds=60))
    assert (await ask(begun(server, clock, tmp_path))).text.startswith("revoked ")
    server.away = True
    clock.set(clock.now() + timedelta(days=400))
    assert (await ask(begun(server, clock, tmp_path))).text.startswith("revoked ")


async def test_after_a_restart_nobody_is_asked_for_whom_is_known(
    here: GatewayStandings, server: Server, clock: FakeClock, tmp_path: Path
):
    """The first requests cost the server nothing; once the word is due, it is asked."""
    await ask(here)
    await here.close()
    anew = begun(server, clock, tmp_path)
    for _ in range(3):
        assert (await ask(anew)).text.startswith("good ")
    assert len(server.asked) == 1
    clock.set(clock.now() + timedelta(seconds=61))
    assert (await ask(anew)).text.startswith("good ")
    assert len(server.asked) == 2


async def test_a_server_that_takes_too_long_is_away(
    here: GatewayStandings, server: Server, monkeypatch: pytest.MonkeyPatch
):
    """The gateway is answered before it gives up."""
    monkeypatch.setattr(standings, "ASK_S", 0.02)
    server.stall = 5.0
    assert (await ask(here)).text.startswith("unknown ")


@pytest.mark.parametrize("name", ["", "beta", "acme.", "ACME", "agent"])
async def test_an_authority_without_a_responder_is_not_asked_for(here: GatewayStandings, server: Server, name: str):
    """Whatever the gateway was told before."""
    assert (await ask(here, name or "-")).status_code == 404
    here.told(authorities(None))
    assert (await ask(here)).status_code == 404
    here.told(authorities({"crl": "http://127.0.0.1:1/"}))
    assert (await ask(here)).status_code == 404
    assert server.asked == []


@pytest.mark.parametrize("body", ["words", "%%%", "x" * (MOST_BODY + 1), "-----BEGIN CERTIFICATE-----"])
async def test_what_is_no_certificate_is_refused(here: GatewayStandings, server: Server, body: str):
    """However long it is."""
    assert (await ask(here, body=body)).status_code == (413 if len(body) > MOST_BODY else 400)
    assert server.asked == []


async def test_a_clock_that_is_behind_the_server_s_asks_no_later(
    here: GatewayStandings, server: Server, clock: FakeClock
):
    """How soon somebody asks anew is a length of time: whoever is ten minutes behind learns of a revocation as soon as others."""
    server.clock = FakeClock(clock.now() + timedelta(minutes=10))
    word, _, renew = (await ask(here)).text.split()
    assert (word, int(renew)) == ("good", to_unix(clock.now()) + 60)
    server.word = "revoked"
    await clock.advance(60)
    assert (await ask(here)).text.startswith("revoked ")
