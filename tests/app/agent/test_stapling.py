from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.app.agent import stapling
from handfast.app.agent.stapling import Leaf, Staples, leaf_of
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.trust.staple import HASTE
from tests.support.clock import FakeClock
from tests.support.ocsp import REVOKED, UNKNOWN, Saying, answer, delegate
from tests.support.partners import authority
from tests.support.pki import Issued, Pki

ROOT = authority("Root")
ISSUING, STRANGER = authority("Issuing", ROOT), authority("Issuing", ROOT)
PKI = Pki("Test", issuing=ISSUING, root=ROOT.cert)
HOST, NEXT, STRICT = PKI.leaf("host"), PKI.leaf("next"), PKI.leaf("strict", must_staple=True)
RESPONDER = delegate(ISSUING, ends=timedelta(days=2))
API = "api.example.org"
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def leaf(one: Issued) -> Leaf:
    return leaf_of(one.chain_pem.decode())


@dataclass
class Away:
    """Responses from a server that may be away, or say other things; by the machine's time, from which the clock starts."""

    directory: Path
    clock: FakeClock = field(default_factory=lambda: FakeClock(datetime.now(UTC)))
    asked: list[str] = field(default_factory=list)
    fault: HandfastError | None = None
    about: x509.Certificate | None = None
    said: Callable[[], Saying] = Saying
    wait: float = 0.0

    def __post_init__(self) -> None:
        """Begin at the time that answers begin at."""
        self.begun = self.clock.now()

    def response(self, one: Issued = HOST) -> bytes:
        """Make one that counts for an hour from now on, unless told otherwise."""
        said, passed = self.said(), self.clock.now() - self.begun
        said.signer, said.sent = said.signer or RESPONDER, said.sent or (RESPONDER,)
        said.since, said.until = said.since + passed, (said.until or HOUR) + passed
        return answer(self.about or one.cert, ISSUING, said)

    async def ask(self, serial: str) -> bytes:
        """Answer as the server would."""
        self.asked.append(serial)
        await asyncio.sleep(self.wait)
        if self.fault:
            raise self.fault
        one = next(one for one in (HOST, NEXT, STRICT) if leaf(one).serial == serial)
        return self.response(one)

    def staples(self) -> Staples:
        """Begin with what is on disk."""
        return Staples(lambda name: self.directory / f"{name}.ocsp", self.clock, self.ask)

    async def pass_time(self, staples: Staples, length: timedelta, one: Issued = HOST) -> None:
        """Let time pass as the gateway does: it looks every five seconds."""
        end = self.clock.now() + length
        while self.clock.now() < end:
            self.clock.set(min(end, self.clock.now() + timedelta(seconds=5)))
            await staples.ensure(API, leaf(one))


@pytest.fixture
def server(tmp_path: Path) -> Away:
    """Give a server that answers."""
    return Away(tmp_path)


async def test_what_came_with_the_certificate_is_stapled(server: Away):
    """Nobody is asked; it lies on disk for its owner alone, and another start finds it there."""
    staples, response = server.staples(), server.response()
    staples.offered(API, leaf(HOST), response)
    assert staples.of(API, leaf(HOST)) == response
    await staples.ensure(API, leaf(HOST))
    assert staples.of(API, leaf(HOST)) == response
    file = server.directory / f"{API}.ocsp"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (response, 0o600)
    again = server.staples()
    await again.ensure(API, leaf(HOST))
    assert again.of(API, leaf(HOST)) == response
    assert server.asked == []
    assert again.fault(API, leaf(HOST)) is None


async def test_the_first_is_asked_for_where_none_came(server: Away):
    """By the certificate's serial, and by no other name."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    assert server.asked == [leaf(HOST).serial]
    assert staples.of(API, leaf(HOST))


async def test_for_a_day_there_is_always_one_that_counts_for_long(server: Away):
    """It is asked for anew after two thirds of its life give or take a twentieth, and at no other time."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    for _ in range(24):
        await server.pass_time(staples, HOUR / 2)
        found = staples._of(API).held
        assert found
        assert staples.of(API, leaf(HOST)) == found.der
        assert found.window.not_after - server.clock.now() > 17 * MINUTE
    assert 16 <= len(server.asked) <= 21


async def test_with_the_server_away_it_is_dropped_before_its_end(server: Away):
    """It is asked for again and again, less than a second time in five, and is there at once when the server is back."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    server.fault = Unavailable("away")
    await server.pass_time(staples, HOUR - 2 * HASTE)
    assert staples.of(API, leaf(HOST))
    assert 10 < len(server.asked) < 60
    fault = staples.fault(API, leaf(HOST))
    assert fault == Refusal(Reason.STAPLE_FAILED, {"host": API, "error": "away"})
    await server.pass_time(staples, HASTE)
    assert staples.of(API, leaf(HOST)) == b""
    server.fault = None
    await server.pass_time(staples, MINUTE)
    assert staples.of(API, leaf(HOST))
    assert staples.fault(API, leaf(HOST)) is None


async def test_one_that_the_certificate_demands_stays_past_its_end(server: Away):
    """Envoy refuses who asks for it then, serves the others, and would take no configuration without it. It is told."""
    staples = server.staples()
    staples.offered(API, leaf(STRICT), response := server.response(STRICT))
    server.fault = Unavailable("away")
    await staples.ensure(API, leaf(STRICT))
    await server.pass_time(staples, 2 * HOUR, STRICT)
    assert staples.of(API, leaf(STRICT)) == response
    fault = staples.fault(API, leaf(STRICT))
    assert fault
    assert fault.reason is Reason.STAPLE_ENDED


@pytest.mark.parametrize(
    "said",
    [
        lambda: Saying(word=UNKNOWN),
        lambda: Saying(signer=STRANGER),
        lambda: Saying(until=-MINUTE),
        lambda: Saying(since=HOUR),
    ],
    ids=["unknown", "signed by a stranger", "ended", "of the future"],
)
async def test_what_is_not_good_takes_no_good_ones_place(server: Away, said: Callable[[], Saying]):
    """Whoever stands between, or plays an old one back, gets nothing stapled."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    good = staples.of(API, leaf(HOST))
    server.said = said
    await server.pass_time(staples, HOUR - 5 * MINUTE)
    assert staples.of(API, leaf(HOST)) == good
    assert staples.fault(API, leaf(HOST))
    fresh = Away(server.directory / "none", said=said)
    fresh.directory.mkdir()
    staples = fresh.staples()
    await staples.ensure(API, leaf(HOST))
    assert staples.of(API, leaf(HOST)) == b""
    assert list(fresh.directory.iterdir()) == []


async def test_one_of_another_certificate_is_not_stapled(server: Away):
    """Envoy would refuse the whole secret for it."""
    server.about = NEXT.cert
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    assert staples.of(API, leaf(HOST)) == b""


async def test_a_revoked_certificate_is_not_called_good_any_more(server: Away):
    """The good response is dropped as soon as the issuer says otherwise, though it would count for longer."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    server.said = lambda: Saying(word=REVOKED)
    await server.pass_time(staples, 45 * MINUTE)
    assert staples.of(API, leaf(HOST)) == b""


async def test_that_the_agent_is_refused_says_nothing_of_the_certificate(server: Away):
    """An agent that was revoked itself keeps what it has: its hosts' certificates still count."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    server.fault = Refused(Refusal(Reason.REVOKED))
    await server.pass_time(staples, 45 * MINUTE)
    assert staples.of(API, leaf(HOST))
    assert staples.fault(API, leaf(HOST))


@pytest.mark.parametrize("kept", ["damaged", "of another", "ended", "a directory"])
async def test_what_lies_on_disk_is_judged_too(server: Away, kept: str):
    """Whoever can write there makes nothing be stapled: another one is asked for."""
    file = server.directory / f"{API}.ocsp"
    if kept == "a directory":
        file.mkdir()
    elif kept == "ended":
        file.write_bytes(server.response())
        server.clock.set(server.clock.now() + HOUR)
    else:
        file.write_bytes(server.response(NEXT) if kept == "of another" else b"\x30\x82")
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    assert server.asked == [leaf(HOST).serial]
    found = staples._of(API).held
    assert found
    assert found.window.not_after > server.clock.now() + 59 * MINUTE


def test_a_certificate_that_demands_one_is_refused_without(server: Away):
    """It must not be put in service. One that demands nothing may go without."""
    staples = server.staples()
    server.said = lambda: Saying(word=REVOKED)
    for response in (b"", server.response(STRICT)):
        with pytest.raises(Refused):
            staples.offered(API, leaf(STRICT), response)
        staples.offered(API, leaf(HOST), response)
    assert staples.of(API, leaf(STRICT)) == staples.of(API, leaf(HOST)) == b""


async def test_until_the_next_certificate_is_in_service_both_have_theirs(server: Away):
    """What is offered with the next one takes nothing from the one that is served."""
    staples = server.staples()
    staples.offered(API, leaf(HOST), first := server.response(HOST))
    await staples.ensure(API, leaf(HOST))
    staples.offered(API, leaf(NEXT), second := server.response(NEXT))
    assert (staples.of(API, leaf(HOST)), staples.of(API, leaf(NEXT))) == (first, second)
    await staples.ensure(API, leaf(NEXT))
    assert (staples.of(API, leaf(HOST)), staples.of(API, leaf(NEXT))) == (b"", second)


async def test_an_answer_that_comes_late_is_not_taken_for_the_next_certificates(server: Away):
    """The certificate changed while the server was asked."""
    staples, server.wait = server.staples(), 0.05
    asking = asyncio.create_task(staples.ensure(API, leaf(HOST)))
    await asyncio.sleep(0.01)
    staples.offered(API, leaf(NEXT), response := server.response(NEXT))
    await staples.ensure(API, leaf(NEXT))
    await asking
    assert staples.of(API, leaf(NEXT)) == response
    assert staples.of(API, leaf(HOST)) == b""


async def test_a_server_that_does_not_answer_holds_nobody_up(server: Away, monkeypatch: pytest.MonkeyPatch):
    """And who else looks meanwhile does not ask again."""
    monkeypatch.setattr(stapling, "ASK_S", 0.02)
    staples, server.wait = server.staples(), 60
    async with asyncio.timeout(5):
        await asyncio.gather(*(staples.ensure(API, leaf(HOST)) for _ in range(3)))
    assert len(server.asked) == 1
    fault = staples.fault(API, leaf(HOST))
    assert fault
    assert "in time" in fault.evidence["error"]


async def test_a_disk_that_is_full_stops_no_staple(server: Away, monkeypatch: pytest.MonkeyPatch):
    """Only a restart would miss it."""

    def full(*_: object) -> None:
        raise Unavailable("no room")

    monkeypatch.setattr(stapling, "write", full)
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    assert staples.of(API, leaf(HOST))


async def test_the_metrics_say_when_each_ends(server: Away):
    """By host; one that is not served any more is gone."""
    staples = server.staples()
    await staples.ensure(API, leaf(HOST))
    held = staples._of(API).held
    assert held
    (line,) = [line for line in staples.metrics().decode().splitlines() if not line.startswith("#")]
    name, value = line.split()
    assert name == f'handfast_staple_next_update_seconds{{host="{API}"}}'
    assert float(value) == held.window.not_after.timestamp()
    staples.forget_others(())
    assert b"api.example.org" not in staples.metrics()


def test_a_chain_is_read():
    """Leaf and issuer; a leaf that stands alone has nobody who could speak of it, and what is none is said."""
    assert (leaf(STRICT).must_staple, leaf(HOST).must_staple) == (True, False)
    assert (leaf(HOST).der, leaf(HOST).issuer) == (HOST.cert_der, ISSUING.cert_der)
    alone = leaf_of(HOST.cert_pem.decode())
    assert alone.issuer == alone.der
    with pytest.raises(BadInput):
        leaf_of("nothing")


@pytest.mark.parametrize("away", [False, True])
async def test_one_of_the_future_is_replaced_at_once(server: Away, away: bool):
    """Where the clock was set back it does not count yet, and neither its time nor that of the last try is one to wait for."""
    staples, right = server.staples(), server.clock.now()
    server.clock.set(right + 6 * HOUR)
    await staples.ensure(API, leaf(HOST))
    if away:
        server.fault = Unavailable("away")
        server.clock.set(right + 6 * HOUR + HOUR / 2 + HOUR / 3)
        await staples.ensure(API, leaf(HOST))
    server.clock.set(right)
    server.fault = None
    assert staples.of(API, leaf(HOST)) == b""
    await staples.ensure(API, leaf(HOST))
    assert staples.of(API, leaf(HOST))
