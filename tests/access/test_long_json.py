from __future__ import annotations

import json
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access import long_json
from handfast.access.long_json import LONG, loads, pieces

# Letters, quotes, backslashes, what is escaped by name and by number, beyond 16 bits, and half of a pair.
texts = st.text(st.sampled_from('ab"\\\n\u00e9\u2028\U0001f600\ud83d\ude00'), max_size=120)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(autouse=True, scope="module")
def _short_pieces() -> object:
    """Let what is short be long, as hypothesis makes nothing of a megabyte."""
    patch = pytest.MonkeyPatch()
    patch.setattr(long_json, "PIECE", 16)
    patch.setattr(long_json, "LONG", 0)
    patch.setattr(long_json, "_ITEMS", 3)
    patch.setattr(long_json, "_SHORT", 5)
    yield
    patch.undo()


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@given(values)
def test_it_is_written_as_the_library_writes_it(value: object):
    """Letter for letter: digests are made of it."""
    assert "".join(pieces(value)) == canonical(value)


@given(values, st.booleans())
def test_it_is_read_as_the_library_reads_it(value: object, pretty: bool):
    """Whatever was written, in whichever form."""
    raw = json.dumps(value, indent=1 if pretty else None).encode()
    assert loads(raw) == json.loads(raw)


@given(st.one_of(values.map(canonical), st.text(st.sampled_from('{}[]",:\\ntu01\u00e9 '), max_size=60)), st.data())
def test_what_the_library_refuses_is_refused(text: str, data: st.DataObject):
    """Cut anywhere, or anything at all: the same value, or the same kind of error."""
    raw = text[: data.draw(st.integers(0, len(text)))].encode("utf-8", "surrogatepass")
    try:
        wanted = json.loads(raw)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - of whichever kind, as callers take them alike
            loads(raw)
    else:
        assert loads(raw) == wanted


def test_others_get_their_turn(monkeypatch: pytest.MonkeyPatch):
    """A long text and many short ones are written and read in a thread: nobody waits for as much as half of the work."""
    monkeypatch.undo()
    monkeypatch.setattr(long_json, "PIECE", 64 * 1024)
    monkeypatch.setattr(long_json, "LONG", LONG)
    monkeypatch.setattr(long_json, "_ITEMS", 1000)
    monkeypatch.setattr(long_json, "_SHORT", 200)
    value = {"crls": [("A" * 64 + "\n") * 500_000], "denied": [f"{number:064x}" for number in range(100_000)]}

    def work() -> None:
        assert loads("".join(pieces(value)).encode()) == value

    thread, turns = threading.Thread(target=work), [time.monotonic()]
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        turns.append(time.monotonic())
    assert max(after - before for before, after in pairwise(turns)) < (turns[-1] - turns[0]) / 2
