"""What a partner's responder says of its clients counts at each request; who has no responder is asked for nowhere."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from handfast.base.reasons import Reason
from handfast.base.spiffe import SpiffeId
from handfast.trust.facts import facts, fingerprint
from handfast.trust.foreign_crl import RevocationList
from handfast.trust.standing import Word
from tests.envoy_real.forging import CN, FOR_CLIENTS, GOOD_URI, NOT_CA, URI, UTF8, Draft, Forged, forge, names, subject
from tests.envoy_real.guard import Tls
from tests.envoy_real.lone import GONE, Connection
from tests.envoy_real.partners import ELSEWHERE, ORG, Stage, a_draft, some_rules, stage
from tests.envoy_real.standing import Agent, agent
from tests.support.partners import partner, roots_pem
from tests.support.pki import Pki

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore:Attribute's length")]

DRAFTS = 150
OWN, ACME, BETA = Pki("Own"), partner("Acme"), partner("Beta")
ACME_RULES = [{"match": {"organization": "Acme", "common_name": "*"}, "identity": "acme/{common_name}"}]
BETA_RULES = [{"match": {"common_name": "*"}, "identity": "beta/{common_name}"}]
URL = "http://127.0.0.1:1/"
CA = fingerprint(ACME.issuing.cert_der)


def worlds(*, accept: bool = False, rules: object = ACME_RULES, more: str = "") -> dict[str, dict[str, Any]]:
    """Give two partners, one of which has a responder, and a list too where ``more`` names it."""
    revocation = {"ocsp": URL} | ({"when_unknown": "accept"} if accept else {}) | ({"crl": more} if more else {})
    return {
        "acme": {"roots_pem": roots_pem(ACME), "identities": rules, "revocation": revocation},
        "beta": {"roots_pem": roots_pem(BETA), "identities": BETA_RULES},
    }


def named(common_name: bytes, *more: bytes) -> Draft:
    return Draft((NOT_CA, FOR_CLIENTS, *more), subject=subject((ORG, UTF8, b"Acme"), (CN, UTF8, common_name)))


def outcome(gate: Stage, shown: Forged) -> object:
    """Give the identity that the service is told, the code of a refusal, or where TLS refused."""
    answer = gate.meet(shown)
    if isinstance(answer, Tls):
        return answer
    return answer.told("x-client-identity")[0] if answer.status == 200 else answer.code


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {mode: tmp_path_factory.mktemp(mode) for mode in ("refuse", "accept")}


@pytest.fixture(scope="module")
def strict(places: dict[str, Path]) -> Iterator[Stage]:
    with stage(places["refuse"], OWN, worlds()) as running:
        yield running


@pytest.fixture(scope="module")
def lenient(places: dict[str, Path]) -> Iterator[Stage]:
    with stage(places["accept"], OWN, worlds(accept=True)) as running:
        yield running


@pytest.fixture
def says(strict: Stage) -> Iterator[Agent]:
    with agent(strict.directory) as made:
        yield made
    (strict.directory / "nobody.sock").unlink()


@pytest.fixture
def hints(lenient: Stage) -> Iterator[Agent]:
    with agent(lenient.directory) as made:
        yield made
    (lenient.directory / "nobody.sock").unlink()


BOB = "spiffe://example.org/acme/bob"


def test_the_first_request_waits_for_the_word(strict: Stage, says: Agent):
    """Good comes in, revoked and unknown do not; the agent is told the authority and the certificate, once."""
    shown = {word: forge(ACME, named(b"bob")) for word in Word}
    for word, one in shown.items():
        says.say(one, word)
    for _ in range(3):
        assert outcome(strict, shown[Word.GOOD]) == BOB
        assert outcome(strict, shown[Word.REVOKED]) == Reason.REVOKED
        assert outcome(strict, shown[Word.UNKNOWN]) == Reason.REVOCATION_STATUS_UNKNOWN
    assert sorted(says.asked) == sorted(("acme", fingerprint(one.der)) for one in shown.values())


def test_a_clock_that_was_set_back_stretches_no_word(strict: Stage, says: Agent):
    """A time to ask again that is further away than a minute is asked about at once: who was revoked since is refused."""
    shown = forge(ACME, named(b"bob"))
    says.say(shown, Word.GOOD, ends=90_000, renew=86_400)
    assert outcome(strict, shown) == BOB
    says.say(shown, Word.REVOKED)
    assert outcome(strict, shown) == Reason.REVOKED


def test_what_is_not_known_may_be_accepted(lenient: Stage, hints: Agent):
    """Where the world says so; who is revoked is refused all the same."""
    shown = {word: forge(ACME, named(b"bob")) for word in Word}
    for word, one in shown.items():
        hints.say(one, word)
    assert outcome(lenient, shown[Word.GOOD]) == BOB
    assert outcome(lenient, shown[Word.REVOKED]) == Reason.REVOKED
    assert outcome(lenient, shown[Word.UNKNOWN]) == BOB
    assert outcome(lenient, forge(ACME, named(b"bob"))) == BOB


def test_with_the_agent_away_it_is_not_known(strict: Stage, lenient: Stage):
    """Nobody listens on its socket."""
    shown = forge(ACME, named(b"bob"))
    assert outcome(strict, shown) == Reason.REVOCATION_STATUS_UNKNOWN
    assert outcome(lenient, shown) == BOB


@pytest.mark.parametrize(
    "answer",
    ["", "good", "good 99999999999", "revoked good 1", "good x 1", "GOOD -1 -1", "good 1 99999999999", "good 9 9\n"],
)
def test_what_says_nothing_is_no_word(strict: Stage, says: Agent, answer: str):
    """A half answer lets nobody in, nor one that has ended."""
    shown = forge(ACME, named(b"bob"))
    says.says[fingerprint(shown.der)] = answer
    assert outcome(strict, shown) == Reason.REVOCATION_STATUS_UNKNOWN


def test_a_refusal_of_the_agent_is_no_word(strict: Stage, says: Agent):
    """Whatever stands in it."""
    shown = forge(ACME, named(b"bob"))
    says.say(shown, Word.GOOD)
    says.status = 404
    assert outcome(strict, shown) == Reason.REVOCATION_STATUS_UNKNOWN


def test_nobody_else_is_asked_for(strict: Stage, says: Agent):
    """Neither ours, nor another partner's, nor whom TLS or the rules refuse anyway, nor at hosts without partners."""
    own = forge(OWN, Draft())
    assert outcome(strict, own) == GOOD_URI.decode()
    assert outcome(strict, forge(BETA, named(b"bob"))) == "spiffe://example.org/beta/bob"
    assert outcome(strict, forge(ACME, named(b"a/b"))) == Reason.IDENTITY_NAME_UNUSABLE
    assert outcome(strict, forge(ACME, named(b"bob", names((URI, GOOD_URI))))) == Reason.IDENTITY_SAN_NOT_ALLOWED
    assert outcome(strict, forge(ACME, Draft((NOT_CA,), subject=named(b"bob").subject))) in {
        Reason.CERT_NO_EKU,
        Tls.AT_THE_GATEWAY,
    }
    assert outcome(strict, forge(partner("Other"), named(b"bob"))) is Tls.AT_THE_GATEWAY
    with Connection(strict.context(own), strict.port, ELSEWHERE) as connection:
        assert connection.ask("/").status == 200
    with strict.connect(strict.context(own)) as connection:
        assert connection.ask("/?anonymous").status == 200
    assert says.asked == []


def test_no_session_is_minted_for_a_partner(strict: Stage, says: Agent):
    """Its tokens would outlive what its authority says, and bear our name; ours have theirs."""
    own, others = forge(OWN, Draft()), [forge(ACME, named(b"bob")), forge(BETA, named(b"bob"))]
    says.say(others[0], Word.GOOD)
    told = [strict.meet(one).told("cookie") for one in (own, *others)]
    assert told == [["Handfast_Authorization=minted"], [], []]
    assert says.minted == [fingerprint(own.der)]


def test_an_open_connection_learns_of_a_revocation(strict: Stage, says: Agent):
    """At the first request after the word is due to be renewed, and never again good by a lapse."""
    shown = forge(ACME, named(b"bob"))
    says.say(shown, Word.GOOD, renew=1.5)
    with strict.connect(strict.context(shown)) as connection:
        assert connection.ask("/").status == 200
        says.say(shown, Word.REVOKED, renew=0)
        assert connection.ask("/").status == 200
        time.sleep(2.0)
        assert connection.ask("/").code == Reason.REVOKED
        says.status = 503
        assert connection.ask("/").code == Reason.REVOKED


def test_the_last_word_counts_until_its_end(strict: Stage, says: Agent):
    """With the agent silent from then on; then it is not known."""
    shown = forge(ACME, named(b"bob"))
    says.say(shown, Word.GOOD, ends=3, renew=0)
    with strict.connect(strict.context(shown)) as connection:
        assert connection.ask("/").status == 200
        says.status = 503
        assert connection.ask("/").status == 200
        time.sleep(3.1)
        assert connection.ask("/").code == Reason.REVOCATION_STATUS_UNKNOWN


def test_a_word_gives_way_to_none_that_knows_less(strict: Stage, lenient: Stage, says: Agent, hints: Agent):
    """An agent that began anew with the server away: who was revoked stays so, and who was good does until that ends."""
    for gate, told in ((strict, says), (lenient, hints)):
        shown = {word: forge(ACME, named(b"bob")) for word in (Word.GOOD, Word.REVOKED)}
        for word, one in shown.items():
            told.say(one, word, renew=0)
            outcome(gate, one)
            told.say(one, Word.UNKNOWN, ends=0, renew=5)
        assert [outcome(gate, one) for one in shown.values()] == [BOB, Reason.REVOKED]


def test_unknown_by_its_authority_is_a_word(strict: Stage, lenient: Stage, says: Agent, hints: Agent):
    """It takes the place of a good one, and never that of a revocation."""
    for gate, told in ((strict, says), (lenient, hints)):
        shown = {word: forge(ACME, named(b"bob")) for word in (Word.GOOD, Word.REVOKED)}
        for word, one in shown.items():
            told.say(one, word, renew=0)
            outcome(gate, one)
            told.say(one, Word.UNKNOWN)
        unknown = Reason.REVOCATION_STATUS_UNKNOWN if gate is strict else BOB
        assert [outcome(gate, one) for one in shown.values()] == [unknown, Reason.REVOKED]


def test_a_new_program_asks_anew(strict: Stage, says: Agent, tmp_path: Path):
    """What one gateway learned it learned for itself: another starts with nothing, and asks its agent."""
    shown = forge(ACME, named(b"bob"))
    says.say(shown, Word.GOOD)
    assert outcome(strict, shown) == BOB
    with agent(tmp_path) as other, stage(tmp_path, OWN, worlds()) as gate:
        other.say(shown, Word.REVOKED)
        assert outcome(gate, shown) == Reason.REVOKED


def test_others_are_served_while_one_waits(strict: Stage, says: Agent):
    """An agent that takes its time holds up those alone of whom it is asked; and who goes away meanwhile harms nobody."""
    shown, says.stall = forge(ACME, named(b"slow")), 1.5
    says.say(shown, Word.GOOD)
    slow, own = strict.context(shown), strict.context(forge(OWN, Draft()))
    codes = list[object]()

    def wait() -> None:
        with strict.connect(slow) as connection:
            codes.append(connection.ask("/").status)

    waiting = threading.Thread(target=wait)
    waiting.start()
    gone = strict.connect(slow)
    gone.tls.sendall(b"GET / HTTP/1.1\r\nHost: id.test\r\n\r\n")
    wait_for_questions(says, 2)
    gone.close()
    begun = time.monotonic()
    with strict.connect(own) as connection:
        assert connection.ask("/").status == 200
    assert time.monotonic() - begun < 1.0
    waiting.join(10)
    assert codes == [200]


def wait_for_questions(says: Agent, count: int) -> None:
    until = time.monotonic() + 5
    while len(says.asked) < count:
        assert time.monotonic() < until, says.asked
        time.sleep(0.02)


def test_a_waiting_request_keeps_what_it_was(strict: Stage, says: Agent):
    """Method, target, body and header fields reach the service as they came, and nobody's identity but the client's."""
    shown, says.stall = forge(ACME, named(b"bob")), 0.2
    says.say(shown, Word.GOOD)
    with strict.connect(strict.context(shown)) as connection:
        answer = connection.ask("/a?b=c", "POST", fields="X-Client-Identity: spiffe://example.org/root\r\nX-Own: 1\r\n")
    assert (answer.seen["method"], answer.seen["target"]) == ("POST", "/a?b=c")
    assert answer.told("x-client-identity") == [BOB]
    assert answer.told("x-own") == ["1"]


@pytest.mark.parametrize("accept", [False, True], ids=["refuse", "accept"])
def test_a_list_beside_the_responder(tmp_path: Path, *, accept: bool):
    """Either may say revoked; the list speaks for whom the responder does not know, until it ends, also on an open connection."""
    shown = {word: forge(ACME, named(b"bob")) for word in Word}
    listed, silent = forge(ACME, named(b"bob")), forge(ACME, named(b"bob"))
    until = int(time.time()) + 6
    known = {"acme": (RevocationList(CA, 0, until, (facts(listed.der).serial,)),)}
    worlds_ = worlds(accept=accept, more="http://127.0.0.1:1/list")
    with agent(tmp_path) as told, stage(tmp_path, OWN, worlds_, lists=known) as gate:
        for word, one in shown.items():
            told.say(one, word)
        told.say(listed, Word.GOOD)
        with gate.connect(gate.context(shown[Word.UNKNOWN])) as connection:
            assert connection.ask("/").status == 200
            assert [outcome(gate, one) for one in (shown[Word.GOOD], silent)] == [BOB, BOB]
            assert [outcome(gate, one) for one in (shown[Word.REVOKED], listed)] == [Reason.REVOKED] * 2
            assert all(str(gate.judged(one, word)) == outcome(gate, one) for word, one in shown.items())
            time.sleep(max(0.0, until - time.time()) + 0.1)
            ended = "" if accept else Reason.REVOCATION_STATUS_UNKNOWN
            assert connection.ask("/").code == ended
        assert outcome(gate, shown[Word.GOOD]) == BOB
        assert outcome(gate, silent) == (ended or BOB)
        assert outcome(gate, listed) == Reason.REVOKED


@pytest.mark.parametrize(
    ("accept", "more"), [(False, ""), (True, ""), (False, f"{URL}list")], ids=["refuse", "accept", "with a list"]
)
def test_both_sides_decide_alike(tmp_path: Path, more: str, *, accept: bool):
    """The access check is what the control plane says, for certificates, rules and words by chance."""
    seed = random.randrange(2**32)
    chance, met = Random(seed), dict.fromkeys(Word, 0)
    rules = [
        *some_rules(chance, "acme"),
        *({"match": {one: "*"}, "identity": "acme/x"} for one in ("common_name", "dns")),
    ]
    known = {"acme": (RevocationList(CA, 0, int(time.time()) + 3600, ()),)} if more else {}
    made = worlds(accept=accept, rules=rules, more=more)
    with agent(tmp_path) as told, stage(tmp_path, OWN, made, lists=known) as gate:
        for _ in range(DRAFTS):
            shown, word = forge(ACME, a_draft(chance)), chance.choice(list(Word))
            told.say(shown, word)
            try:
                seen = outcome(gate, shown)
            except GONE:
                continue
            if isinstance(seen, Tls):
                continue
            expected = gate.judged(shown, word)
            asked = ("acme", fingerprint(shown.der)) in told.asked
            assert seen == (str(expected) if isinstance(expected, SpiffeId) else expected), (
                f"seed {seed}: {shown.der.hex()}"
            )
            assert asked == isinstance(gate.judged(shown, Word.GOOD), SpiffeId), f"seed {seed}"
            met[word] += asked
    assert min(met.values()) >= 3, f"seed {seed}: {met}"
