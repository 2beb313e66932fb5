from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from handfast.trust.standing import AGAIN_S, LATEST_S, Standing, Word, later

NOW = 1000
TIMES = st.integers(NOW - 50, NOW + 50)
STANDINGS = st.builds(Standing, st.sampled_from(Word), TIMES, TIMES, TIMES)


def said(word: Word, since: int = NOW, until: int = NOW + 100, renew: int = NOW + 50) -> Standing:
    return Standing(word, since, until, renew)


GOOD, REVOKED, UNKNOWN = said(Word.GOOD), said(Word.REVOKED), said(Word.UNKNOWN)


def test_a_word_counts_until_its_end_and_a_revocation_for_ever():
    """Time makes nobody good again."""
    assert GOOD.counts(NOW + 99)
    assert not GOOD.counts(NOW + 100)
    assert REVOKED.counts(NOW + 10**9)
    assert GOOD.settled(NOW + 49)
    assert not GOOD.settled(NOW + 50)
    assert not replace(GOOD, until=NOW).settled(NOW)
    assert replace(UNKNOWN, until=NOW).settled(NOW)


def test_a_clock_that_was_set_back_settles_nothing():
    """Else who was revoked since, or was not known for a moment, would stay so for as long as the clock is behind."""
    longest = said(Word.GOOD, until=NOW + 10**6, renew=NOW + LATEST_S)
    assert longest.settled(NOW)
    assert not longest.settled(NOW - 1)
    assert not replace(UNKNOWN, renew=NOW + 86400).settled(NOW)


def test_silence_leaves_what_is_known():
    """The last word stays while it counts; without one it is not known, and asked again soon."""
    assert later(GOOD, None, NOW) == replace(GOOD, renew=NOW + AGAIN_S)
    assert later(REVOKED, None, NOW + 500).word is Word.REVOKED
    for held in (None, GOOD):
        silent = later(held, None, NOW + 500)
        assert (silent.word, silent.renew) == (Word.UNKNOWN, NOW + 500 + AGAIN_S)
        assert not silent.counts(NOW + 500)


def test_a_newer_word_is_taken():
    """A revoked one that was released is good again, a good one that was revoked is not."""
    newer = NOW + 1
    assert later(GOOD, said(Word.REVOKED, newer), NOW).word is Word.REVOKED
    assert later(REVOKED, said(Word.GOOD, newer), NOW).word is Word.GOOD
    assert later(GOOD, said(Word.UNKNOWN, newer), NOW).word is Word.UNKNOWN
    assert later(UNKNOWN, said(Word.GOOD, newer), NOW).word is Word.GOOD


def test_a_word_that_is_played_back_is_not_taken():
    """It counts still, and something newer is known; it is asked again when that one says."""
    older = said(Word.GOOD, NOW - 1, renew=NOW + 7)
    assert later(REVOKED, older, NOW) == replace(REVOKED, renew=NOW + 7)
    assert later(UNKNOWN, older, NOW).word is Word.UNKNOWN
    assert later(said(Word.GOOD), said(Word.REVOKED, NOW - 1), NOW).word is Word.GOOD


def test_of_two_words_of_one_second_a_revocation_counts():
    """Whichever came first: what was true when somebody was revoked makes nobody good."""
    assert later(GOOD, REVOKED, NOW).word is Word.REVOKED
    assert later(REVOKED, GOOD, NOW).word is Word.REVOKED


def test_not_knowing_takes_no_revocation_back():
    """However late it is said: an authority forgets its certificates after their end."""
    assert later(REVOKED, said(Word.UNKNOWN, NOW + 1), NOW).word is Word.REVOKED


def test_a_revocation_that_is_said_again_counts_from_then():
    """A good word from between the two would else be newer than what is known."""
    again = later(REVOKED, said(Word.REVOKED, NOW + 10), NOW + 10)
    assert again.since == NOW + 10
    assert later(again, said(Word.GOOD, NOW + 5), NOW + 10).word is Word.REVOKED


@given(st.none() | STANDINGS, st.none() | STANDINGS, TIMES)
def test_nobody_revoked_comes_back_by_less_than_a_newer_good(held: Standing | None, answer: Standing | None, now: int):
    """Nor is anybody good without having been said to be so."""
    outcome = later(held, answer, now)
    if held and held.word is Word.REVOKED and outcome.word is not Word.REVOKED:
        assert answer
        assert answer.word is Word.GOOD
        assert answer.since > held.since
    if outcome.word is Word.GOOD:
        assert Word.GOOD in {one.word for one in (held, answer) if one}
