from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.windows import Window, from_unix, to_unix, whole_second

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(BEGIN, BEGIN + timedelta(hours=3))
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        (WINDOW.not_before - timedelta(microseconds=1), False),
        (WINDOW.not_before, True),
        (WINDOW.not_after - timedelta(microseconds=1), True),
        (WINDOW.not_after, False),
    ],
)
def test_a_window_holds_its_first_moment_and_not_its_last(moment: datetime, inside: bool):
    """It counts from its beginning on, and has ended at its end."""
    assert WINDOW.contains(moment) is inside


@pytest.mark.parametrize("end", [BEGIN, BEGIN - timedelta(seconds=1)])
def test_a_window_is_not_empty(end: datetime):
    """It ends after it begins."""
    with pytest.raises(BadInput):
        Window(BEGIN, end)


def test_times_have_a_zone():
    """A time without a zone is refused on either side."""
    bare = datetime(2026, 1, 1)  # noqa: DTZ001
    for times in ((bare, BEGIN), (BEGIN, bare + timedelta(days=1))):
        with pytest.raises(BadInput):
            Window(*times)


def test_replaced_at_two_thirds():
    """Without jitter the time to replace it is after two thirds of its life; jitter moves it by a twentieth at most."""
    assert WINDOW.renew_at(0) == BEGIN + timedelta(hours=2)
    assert WINDOW.renew_at(1) - WINDOW.renew_at(0) == WINDOW.length / 20


@given(start=MOMENTS, seconds=st.integers(5, 10**9), jitter=st.floats(-1, 1))
def test_replaced_in_time(start: datetime, seconds: int, jitter: float):
    """Whatever the jitter, a certificate is replaced while it is valid, with a quarter of its life to spare."""
    window = Window(start, start + timedelta(seconds=seconds))
    assert window.contains(window.renew_at(jitter))
    assert window.not_after - window.renew_at(jitter) > window.length / 4


@given(MOMENTS)
def test_whole_seconds_survive_the_way_to_unix_and_back(moment: datetime):
    """A time cut to its second is the same after the way through a count of seconds."""
    cut = whole_second(moment)
    assert timedelta() <= moment - cut < timedelta(seconds=1)
    assert from_unix(to_unix(cut)) == cut


def test_whole_second_gives_utc():
    """The second is given in UTC, wherever the clock stood."""
    local = datetime(2026, 1, 1, 2, 0, 0, 9, tzinfo=timezone(timedelta(hours=2)))
    assert whole_second(local).isoformat() == "2026-01-01T00:00:00+00:00"
