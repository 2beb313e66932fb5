from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from handfast.base.windows import Window
from handfast.trust.facts import facts, fingerprint
from handfast.trust.renewal import Counting, counting, renew_at, superseded
from handfast.trust.rotation import PACE, SETTLE, Pace
from tests.trust.material import ca_der

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
JITTER = st.floats(-1, 1)
LIVES = st.timedeltas(timedelta(seconds=5), timedelta(days=397))


def test_what_counts_is_read_from_the_certificates():
    """The issuing authority by its key, the roots by their bytes."""
    der = ca_der()
    assert counting(der, [der]) == Counting(facts(der).ski, frozenset({fingerprint(der)}))


def test_a_credential_is_superseded_by_another_issuer_or_by_other_roots():
    """More roots, fewer roots, and others; the same in another order is nothing new."""
    now = Counting("aa", frozenset({fingerprint(b"1"), fingerprint(b"2")}))
    assert not superseded("aa", [b"2", b"1"], now)
    assert superseded("bb", [b"1", b"2"], now)
    for roots in ([b"1"], [b"1", b"2", b"3"], [b"1", b"3"], []):
        assert superseded("aa", roots, now)


@given(LIVES, JITTER)
def test_without_a_word_it_is_renewed_in_time(life: timedelta, jitter: float):
    """As the window says."""
    window = Window(NOW, NOW + life)
    assert renew_at(window, jitter, None) == window.renew_at(jitter)


@given(LIVES, JITTER, st.floats(0, 1))
def test_superseded_it_is_renewed_soon_and_never_later_than_in_time(life: timedelta, jitter: float, age: float):
    """Not before every server knows; spread over a minute, or less where the life is short."""
    window = Window(NOW, NOW + life)
    told = NOW + life * age
    due = renew_at(window, jitter, told)
    in_time = window.renew_at(jitter)
    assert due <= in_time
    assert due == in_time or told + SETTLE <= due <= told + SETTLE + min(PACE.spread, life / 20)


def test_a_quicker_pace_renews_earlier():
    """Both the wait and the spread shrink."""
    pace, window = Pace(timedelta(seconds=1)), Window(NOW, NOW + timedelta(days=1))
    dues = [renew_at(window, jitter, NOW, pace) - NOW for jitter in (-1, 1)]
    assert dues == [timedelta(seconds=1), timedelta(seconds=7)]


def test_a_fleet_that_was_told_at_once_does_not_come_at_once():
    """The jitter that spreads renewals spreads these."""
    window = Window(NOW, NOW + timedelta(hours=1))
    dues = [renew_at(window, -1 + number / 50, NOW) for number in range(101)]
    assert dues[-1] - dues[0] == PACE.spread
    assert len(set(dues)) == len(dues)
