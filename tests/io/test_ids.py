"""The names of events: typed by people, made anywhere, kept near one another."""

from __future__ import annotations

import re

from handfast.io.ids import new_event_id

A_MOMENT = 1_770_000_000_123_456_789
MILLISECOND = 1_000_000


def test_an_event_id_is_26_letters_and_digits():
    """128 bits in lower case base32: it can be typed, and stands in a URL as it is."""
    assert re.fullmatch("[a-z2-7]{26}", new_event_id())


def test_event_ids_of_one_moment_differ():
    """Chance makes the greater part of each."""
    assert len({new_event_id(nanoseconds=A_MOMENT) for _ in range(1000)}) == 1000


def test_ids_that_are_made_together_begin_alike():
    """So that the index takes them in one place: seconds apart they share seven letters, and years apart they do not."""
    begin = new_event_id(nanoseconds=A_MOMENT)[:7]
    assert new_event_id(nanoseconds=A_MOMENT + 100 * MILLISECOND)[:7] == begin
    assert new_event_id(nanoseconds=2 * A_MOMENT)[:7] != begin


def test_an_id_is_the_time_and_all_the_chance():
    """The first 48 bits are milliseconds, the random octets are the rest, and nothing else is in it."""
    assert new_event_id(lambda size: b"\xff" * size, 0) == "a" * 9 + "d" + "7" * 15 + "4"
    assert new_event_id(bytes, 0) == "a" * 26
    assert new_event_id(bytes, MILLISECOND) == "a" * 9 + "e" + "a" * 16
