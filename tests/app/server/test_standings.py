from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handfast.app.client import Api
from handfast.app.server.callers import Role
from handfast.app.server.messages import EventList
from handfast.app.server.standing_messages import StandingAnswer, StandingRequest
from handfast.app.server.standings import ANSWERS, TELL_EVERY
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refused, Unavailable
from handfast.trust.standing import AGAIN_S, Word
from tests.app.sites import Site, problem, raw, site
from tests.support import ocsp
from tests.support.ocsp import GOOD, REVOKED, UNKNOWN, Saying, answer, nonce_of
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Issued, Pki

ACME = partner("Acme")
ALICE, BOB = ACME.leaf("alice"), ACME.leaf("bob")


class Responder:
    """The partner's responder: what it says of whom, and whether it says it well."""

    def __init__(self, site: ocsp.Site) -> None:
        self.site, self.said, self.saying = site, GOOD, Saying()
        site.reply = self.reply

    def reply(self, asked: bytes) -> bytes:
        self.saying.word, self.saying.nonce = self.said, nonce_of(asked)
        return answer(ALICE.cert, ACME.issuing, self.saying)


@pytest.fixture
def responder() -> Iterator[Responder]:
    with ocsp.site() as site:
        yield Responder(site)


def world(url: str, name: str = "acme", **more: str) -> str:
    entry: dict[str, Any] = {
        "roots_pem": roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
        "revocation": ({"ocsp": url} if url else {"crl": "http://127.0.0.1:1/"}) | more,
    }
    host = {
        "listen": 8443,
        "clients": {"trust": ["example.org", name]},
        "routes": [{"path": "/", "upstream": "http://x", "allow": ["acme/*"]}],
    }
    return json.dumps({"trust_domain": "example.org", "authorities": {name: entry}, "hosts": {"a.test": host}})


async def ask(agent: Api, leaf: Issued = ALICE, name: str = "acme") -> StandingAnswer:
    asked = StandingRequest(authority=name, certificate=leaf.cert_pem.decode())
    return await agent.call("POST", "/v1/agents/self/standings", StandingAnswer, asked)


async def findings(here: Site) -> list[tuple[str, str]]:
    found = await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised")
    return [(one["reason"], one["evidence"]["authority"]) for one in found.events]


@pytest.mark.parametrize(("said", "word"), [(GOOD, Word.GOOD), (REVOKED, Word.REVOKED), (UNKNOWN, Word.UNKNOWN)])
async def test_a_responder_is_asked_once_for_all(here: Site, responder: Responder, said: object, word: Word):
    """Its word goes to every agent, for as long as it counts; and not knowing somebody is no fault."""
    responder.said = said  # type: ignore[assignment]
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    answers = await asyncio.gather(*(ask(agent) for _ in range(5)))
    assert {one.word for one in answers} == {word}
    assert len(responder.site.asked) == 1
    assert await findings(here) == []


async def test_a_revocation_is_learned_within_a_minute(here: Site, responder: Responder):
    """The answer is asked for anew long before it ends."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    assert (await ask(agent)).word is Word.GOOD
    responder.said = REVOKED
    here.clock.set(here.clock.now() + timedelta(seconds=58))
    assert (await ask(agent)).word is Word.GOOD
    here.clock.set(here.clock.now() + timedelta(seconds=3))
    assert (await ask(agent)).word is Word.REVOKED


async def test_with_the_responder_away_the_last_word_counts_until_its_end(here: Site, responder: Responder):
    """The operator is told at once that it is away, and then once."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    responder.saying.until = timedelta(minutes=5)
    assert (await ask(agent)).word is Word.GOOD
    responder.site.status = 503
    for minutes, word in ((2, Word.GOOD), (2, Word.GOOD), (2, Word.UNKNOWN)):
        here.clock.set(here.clock.now() + timedelta(minutes=minutes))
        assert (await ask(agent)).word is word
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNAVAILABLE, "acme")]


async def test_a_wrong_answer_is_a_finding_and_no_word(here: Site, responder: Responder):
    """One that a stranger signed; told once a minute at most, however it changes."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    responder.saying.signer = authority("Acme Issuing")
    assert (await ask(agent)).word is Word.UNKNOWN
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNUSABLE, "acme")]
    responder.site.status = 503
    here.clock.set(here.clock.now() + timedelta(seconds=AGAIN_S + 1))
    assert (await ask(agent)).word is Word.UNKNOWN
    assert len(await findings(here)) == 1
    here.clock.set(here.clock.now() + TELL_EVERY)
    await ask(agent)
    assert (await findings(here))[1:] == [(Reason.REVOCATION_OCSP_UNAVAILABLE, "acme")]


async def test_what_was_told_is_told_again_after_it_was_well(here: Site, responder: Responder):
    """Another time that a responder is away is another finding."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    for status in (503, 200, 503):
        responder.site.status = status
        await ask(agent)
        here.clock.set(here.clock.now() + TELL_EVERY + timedelta(seconds=1))
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNAVAILABLE, "acme")] * 2


async def test_a_clock_that_was_set_back_keeps_no_fault_from_an_operator(here: Site, responder: Responder):
    """That something was told tomorrow is no reason not to tell it today."""
    await here.apply(world(responder.site.url))
    agent, right = await here.being(Role.AGENT), here.clock.now()
    responder.saying.until = timedelta(days=1)
    for ahead, status in ((timedelta(hours=2), 503), (timedelta(hours=2, minutes=2), 200), (timedelta(), 503)):
        here.clock.set(right + ahead)
        responder.site.status = status
        await ask(agent)
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNAVAILABLE, "acme")] * 2


async def test_findings_that_wait_long_for_the_ledger_and_are_lost_stop_nobody(
    here: Site, responder: Responder, monkeypatch: pytest.MonkeyPatch
):
    """Two may have waited, where another fault came a minute after the first. What was lost is told again later."""
    await here.apply(world(responder.site.url))
    agent, ledger = await here.being(Role.AGENT), here.server.platform.ledger
    away, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def hang(_: object) -> None:
        waiting.release()
        await away.wait()
        raise Unavailable("the ledger is away")

    with monkeypatch.context() as patch:
        patch.setattr(type(ledger), "append", lambda _, events: hang(events))
        asking = []
        for status in (503, 200):
            responder.site.status = status
            responder.saying.signer = authority("Acme Issuing")
            asking.append(asyncio.create_task(ask(agent, (ALICE, BOB)[len(asking)])))
            await asyncio.wait_for(waiting.acquire(), 5)
            here.clock.set(here.clock.now() + TELL_EVERY)
        away.set()
        assert [one.word for one in await asyncio.gather(*asking)] == [Word.UNKNOWN] * 2
    here.clock.set(here.clock.now() + timedelta(seconds=AGAIN_S + 1))
    await ask(agent)
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNUSABLE, "acme")]


async def test_no_agent_makes_us_ask_for_what_the_authority_never_signed(here: Site, responder: Responder):
    """Nor where no responder is configured, nor for what has ended, nor with what is no certificate."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    namesake = Pki("x", issuing=authority("Acme Issuing"), root=ACME.root)
    for stranger in (namesake.leaf("alice"), Pki("Other").leaf("alice"), ACME.expired()):
        with pytest.raises(BadInput, match="no CA of this authority issued it"):
            await ask(agent, stranger)
    with pytest.raises(Refused):
        await ask(agent, name="beta")
    plain = json.dumps({"authority": "acme", "certificate": "words"})
    assert problem(await raw(agent, "POST", "/v1/agents/self/standings", plain))[0] == 400
    await here.apply(world(""))
    with pytest.raises(Refused):
        await ask(agent)
    assert responder.site.asked == []


async def test_nobody_but_agents_asks(here: Site, responder: Responder):
    """A responder is the partner's, and its answers are for gateways."""
    await here.apply(world(responder.site.url))
    for role in (Role.OPERATOR, Role.WORKLOAD, Role.NOBODY):
        with pytest.raises(Refused):
            await ask(await here.being(role))
    assert responder.site.asked == []


async def test_another_responder_is_asked_anew(here: Site, responder: Responder):
    """What the old one said counts no more; another ``when_unknown`` changes nothing of it."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    assert (await ask(agent)).word is Word.GOOD
    await here.apply(world(responder.site.url, when_unknown="accept"))
    assert (await ask(agent)).word is Word.GOOD
    assert len(responder.site.asked) == 1
    await here.apply(world("http://127.0.0.1:1/"))
    assert (await ask(agent)).word is Word.UNKNOWN


async def test_no_url_in_a_certificate_is_asked(here: Site, responder: Responder):
    """The world file names the responder, whatever the answer is about; another certificate's answer is no word."""
    await here.apply(world(responder.site.url))
    agent = await here.being(Role.AGENT)
    assert (await ask(agent, BOB)).word is Word.UNKNOWN
    assert await findings(here) == [(Reason.REVOCATION_OCSP_UNUSABLE, "acme")]


async def test_a_server_that_begins_anew_knows_whom_it_knew(tmp_path: Path, responder: Responder):
    """With the responder away since; nobody whom it knew is refused, and nobody who was revoked comes back."""
    responder.saying.until = timedelta(minutes=10)
    for said, word, minutes in ((GOOD, Word.GOOD, 1), (REVOKED, Word.REVOKED, 3)):
        responder.said, responder.site.status = said, 200
        async with site(tmp_path) as before:
            await before.apply(world(responder.site.url))
            agent = await before.being(Role.AGENT)
            before.clock.set(before.clock.now() + timedelta(minutes=minutes))
            assert (await ask(agent)).word is word
        responder.site.status = 503
        async with site(tmp_path) as after:
            agent = await after.being(Role.AGENT)
            after.clock.set(after.clock.now() + timedelta(minutes=5))
            assert (await ask(agent)).word is word
            assert (await ask(agent, BOB)).word is Word.UNKNOWN
            after.clock.set(after.clock.now() + timedelta(minutes=15))
            assert (await ask(agent)).word is (Word.REVOKED if said is REVOKED else Word.UNKNOWN)


async def test_an_answer_that_cannot_be_kept_counts_all_the_same(tmp_path: Path, responder: Responder):
    """A disk without room is no reason to refuse anybody."""
    async with site(tmp_path) as here:
        (tmp_path / "partners").mkdir(mode=0o700, exist_ok=True)
        (tmp_path / "partners" / ANSWERS).write_bytes(b"in the way")
        await here.apply(world(responder.site.url))
        assert (await ask(await here.being(Role.AGENT))).word is Word.GOOD
