from __future__ import annotations

import re

from handfast.io.ids import new_event_id


def test_an_event_id_is_26_letters_and_digits():
    """128 bits in lower case base32: it can be typed, and stands in a URL as it is."""
    assert re.fullmatch("[a-z2-7]{26}", new_event_id())


def test_event_ids_differ():
    """Chance makes each."""
    assert len({new_event_id() for _ in range(1000)}) == 1000


def test_all_the_chance_is_in_the_id():
    """The random octets are the id, and nothing else is."""
    assert new_event_id(lambda size: b"\xff" * size) == "7" * 25 + "4"
    assert new_event_id(bytes) == "a" * 26
