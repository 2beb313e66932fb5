from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from handfast.access.authority import ForeignAuthority, Revocation
from handfast.base.windows import to_unix
from handfast.io import standings
from handfast.io.standings import MOST_AT_ONCE, Record, Standings
from handfast.trust.foreign import read_ca
from handfast.trust.standing import AGAIN_S, Standing, Word
from tests.support.clock import FakeClock
from tests.support.partners import authority

OCSP = Revocation(ocsp="http://a")
ACME = ForeignAuthority("acme", (read_ca(authority("Acme").cert_der),), ("a.test",), (), OCSP)


class Asked:
    """Whoever is asked: says what it is told to, counts, and may be held up."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.word, self.count = clock, Word.GOOD, 0
        self.away = False
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> Standing | None:
        self.count += 1
        await self.open.wait()
        now = to_unix(self.clock.now())
        return None if self.away else Standing(self.word, now, now + 100, now + 10)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def asked(clock: FakeClock) -> Asked:
    return Asked(clock)


async def test_an_answer_is_kept_until_it_is_due(clock: FakeClock, asked: Asked):
    """Then it is asked for again, and what is said then counts."""
    known = Standings(clock)
    for _ in range(3):
        assert (await known.of("acme", "1", asked)).word is Word.GOOD
    await clock.advance(9)
    assert (await known.of("acme", "1", asked)).word is Word.GOOD
    assert asked.count == 1
    asked.word = Word.REVOKED
    await clock.advance(1)
    assert (await known.of("acme", "1", asked)).word is Word.REVOKED
    assert asked.count == 2


async def test_many_who_want_to_know_ask_once(clock: FakeClock, asked: Asked):
    """They wait for the same answer; one who goes away takes it from nobody."""
    known = Standings(clock)
    asked.open.clear()
    waiting = [asyncio.create_task(known.of("acme", "1", asked)) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    asked.open.set()
    assert {one.word for one in await asyncio.gather(*waiting[1:])} == {Word.GOOD}
    assert asked.count == 1


async def test_without_an_answer_the_last_one_counts_until_its_end(clock: FakeClock, asked: Asked):
    """Then it is not known, which is asked again soon and not at once."""
    known = Standings(clock)
    await known.of("acme", "1", asked)
    asked.away = True
    await clock.advance(99)
    assert (await known.of("acme", "1", asked)).word is Word.GOOD
    await clock.advance(1)
    assert (await known.of("acme", "1", asked)).word is Word.UNKNOWN
    count = asked.count
    assert (await known.of("acme", "1", asked)).word is Word.UNKNOWN
    assert asked.count == count
    asked.away = False
    await clock.advance(AGAIN_S)
    assert (await known.of("acme", "1", asked)).word is Word.GOOD


async def test_who_is_revoked_stays_so_in_silence(clock: FakeClock, asked: Asked):
    """Whoever cuts us off from a responder brings nobody back."""
    known = Standings(clock)
    asked.word = Word.REVOKED
    await known.of("acme", "1", asked)
    asked.away = True
    await clock.advance(10_000)
    assert (await known.of("acme", "1", asked)).word is Word.REVOKED


async def test_one_who_is_known_is_not_held_up(clock: FakeClock, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    """While the last answer counts, the next one is taken up by whoever comes after it."""
    monkeypatch.setattr(standings, "PATIENCE_S", 0.01)
    known = Standings(clock)
    await known.of("acme", "1", asked)
    asked.open.clear()
    asked.word = Word.REVOKED
    await clock.advance(10)
    held = await known.of("acme", "1", asked)
    assert (held.word, held.renew) == (Word.GOOD, to_unix(clock.now()) + AGAIN_S)
    asked.open.set()
    await asyncio.sleep(0.01)
    assert (await known.of("acme", "1", asked)).word is Word.REVOKED
    assert asked.count == 2


async def test_questions_at_once_are_bounded_for_each_authority(
    clock: FakeClock, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """The others wait for their turn, for a while; and one whose responder hangs holds up nobody else."""
    monkeypatch.setattr(standings, "QUEUE_S", 0.2)
    known = Standings(clock)
    asked.open.clear()
    waiting = [asyncio.create_task(known.of("acme", str(one), asked)) for one in range(MOST_AT_ONCE + 5)]
    await asyncio.sleep(0.01)
    assert asked.count == MOST_AT_ONCE
    other = Asked(clock)
    assert (await known.of("beta", "1", other)).word is Word.GOOD
    assert (await known.of("acme", "late", asked)).word is Word.UNKNOWN
    assert asked.count == MOST_AT_ONCE
    asked.open.set()
    words = [one.word for one in await asyncio.gather(*waiting)]
    assert words == [Word.GOOD] * MOST_AT_ONCE + [Word.UNKNOWN] * 5
    assert (await known.of("acme", "late", asked)).word is Word.GOOD


async def test_a_crowd_gets_its_turn(clock: FakeClock, asked: Asked, monkeypatch: pytest.MonkeyPatch):
    """All clients of a partner at once, when a gateway begins; over the bound on those who wait nobody is asked for."""
    monkeypatch.setattr(standings, "MOST_WAITING", 200)
    known = Standings(clock)
    crowd = await asyncio.gather(*(known.of("acme", str(one), asked) for one in range(210)))
    assert [one.word for one in crowd] == [Word.GOOD] * 200 + [Word.UNKNOWN] * 10
    assert asked.count == 200


async def test_what_is_kept_is_bounded_for_each_authority(
    clock: FakeClock, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """What was learned first goes first, and no other authority's."""
    monkeypatch.setattr(standings, "MOST_KEPT", 3)
    known, other = Standings(clock), Asked(clock)
    await known.of("beta", "0", other)
    for one in range(4):
        await known.of("acme", str(one), asked)
    await known.of("acme", "3", asked)
    assert asked.count == 4
    await known.of("acme", "0", asked)
    assert asked.count == 5
    await known.of("beta", "0", other)
    assert other.count == 1


class Paper:
    """What outlives a process: the word of one certificate."""

    def __init__(self, word: Standing | None = None) -> None:
        self.word, self.kept = word, list[Standing]()
        self.record = Record(self.recall, self.keep)

    async def recall(self) -> Standing | None:
        await asyncio.sleep(0)
        return self.word

    async def keep(self, standing: Standing) -> None:
        self.kept.append(standing)


async def test_a_word_that_was_kept_counts_while_the_next_one_is_waited_for(
    clock: FakeClock, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """Whoever was known before a restart is held up for a moment, and only where the responder hangs."""
    monkeypatch.setattr(standings, "PATIENCE_S", 0.01)
    now = to_unix(clock.now())
    paper, known = Paper(Standing(Word.GOOD, now - 50, now + 50, now - 1)), Standings(clock)
    asked.open.clear()
    crowd = await asyncio.gather(*(known.of("acme", "1", asked, paper.record) for _ in range(5)))
    assert {one.word for one in crowd} == {Word.GOOD}
    asked.word = Word.REVOKED
    asked.open.set()
    await asyncio.sleep(0.01)
    assert (await known.of("acme", "1", asked, paper.record)).word is Word.REVOKED
    assert asked.count == 1
    assert [one.word for one in paper.kept] == [Word.REVOKED]


async def test_a_revocation_that_was_kept_gives_way_to_a_later_good_alone(clock: FakeClock, asked: Asked):
    """Not to a restart with the responder away, nor to what is not known there; and what does not count is not kept."""
    now = to_unix(clock.now())
    paper, known = Paper(Standing(Word.REVOKED, now + 20, now - 50, now - 100)), Standings(clock)
    asked.away = True
    assert (await known.of("acme", "1", asked, paper.record)).word is Word.REVOKED
    asked.away = False
    for word in (Word.UNKNOWN, Word.GOOD):
        asked.word = word
        await clock.advance(AGAIN_S)
        assert (await known.of("acme", "1", asked, paper.record)).word is Word.REVOKED
    assert paper.kept == []
    await clock.advance(20)
    assert (await known.of("acme", "1", asked, paper.record)).word is Word.GOOD
    assert [one.word for one in paper.kept] == [Word.GOOD]


async def test_a_question_that_breaks_is_asked_again(clock: FakeClock, asked: Asked):
    """A fault of ours is nobody's answer, and is not kept."""
    known = Standings(clock)

    async def broken() -> Standing | None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await known.of("acme", "1", broken)
    assert (await known.of("acme", "1", asked)).word is Word.GOOD


@pytest.mark.parametrize(
    ("after", "forgotten"),
    [
        (ACME, False),
        (replace(ACME, hosts=()), False),
        (replace(ACME, revocation=replace(OCSP, refuse=False)), False),
        (replace(ACME, revocation=replace(OCSP, ocsp="http://b")), True),
        (replace(ACME, cas=(read_ca(authority("Acme").cert_der),)), True),
        (None, True),
    ],
)
async def test_what_was_learned_belongs_to_whom_was_asked(
    clock: FakeClock, asked: Asked, after: ForeignAuthority | None, *, forgotten: bool
):
    """Another chain or another responder begins anew; another rule does not."""
    known = Standings(clock)
    known.follow({"acme": ACME})
    await known.of("acme", "1", asked)
    known.follow({"acme": after} if after else {})
    await known.of("acme", "1", asked)
    assert asked.count == (2 if forgotten else 1)
