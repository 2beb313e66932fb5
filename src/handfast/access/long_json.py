"""JSON of any length, written and read so that others get their turn.

Decides where long values are cut. The standard library writes and reads the same, in one call that nothing interrupts: for a slice with
a million entries that is a quarter of a second, also in a thread. Refuses to know what is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]

LONG = 256 * 1024
"""From here on a text is read in pieces: shorter ones take a few milliseconds."""
PIECE = 64 * 1024
_ITEMS, _SHORT = 1000, 200
_ESCAPE = 12
"""The longest escape: two surrogates, as in ``\\ud83d\\ude00``."""

_Scan = Callable[[str, int], tuple[object, int]]


def pieces(value: object) -> Iterator[str]:
    """Write plain values as ``json.dumps`` does with sorted keys and no spaces, a piece at a time."""
    if isinstance(value, str) and len(value) > PIECE:
        yield '"'
        yield from (_written(value[at : at + PIECE])[1:-1] for at in range(0, len(value), PIECE))
        yield '"'
    elif isinstance(value, list) and value:
        for at in range(0, len(value), _ITEMS):
            yield "," if at else "["
            yield from _items(value[at : at + _ITEMS])
        yield "]"
    elif isinstance(value, Mapping) and value:
        for number, key in enumerate(sorted(value)):
            yield f"{',' if number else '{'}{_written(key)}:"
            yield from pieces(value[key])
        yield "}"
    else:
        yield _written(value)


def loads(raw: bytes) -> object:
    """Read JSON as ``json.loads`` does; a long text in pieces.

    Raises:
        ValueError: it is not JSON, or not Unicode. RecursionError: it is nested too deep.
    """
    return json.loads(raw) if len(raw) < LONG else _Patient().decode(raw.decode())


class _Patient(json.JSONDecoder):
    """Reads in Python, but for each string: by the library's own scanner of before there was one in C."""

    def __init__(self) -> None:
        super().__init__()
        self.parse_string = _string
        self.scan_once: _Scan = py_make_scanner(self)


def _items(some: list[object]) -> Iterator[str]:
    if all(isinstance(one, str) and len(one) <= _SHORT for one in some):
        yield _written(some)[1:-1]
        return
    for number, one in enumerate(some):
        yield "," if number else ""
        yield from pieces(one)


def _written(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _string(text: str, at: int, strict: bool = True) -> tuple[str, int]:
    """Read a string from behind its first quote, as far as there is none in pieces, and then whole."""
    parts = []
    while (cut := _cut(text, at)) > at:
        parts.append(scanstring(f'{text[at:cut]}"', 0, strict)[0])
        at = cut
    rest, end = scanstring(text, at, strict)
    return "".join((*parts, rest)), end


def _cut(text: str, at: int) -> int:
    """Give where a piece may end: before any quote, and in no escape; ``at`` itself where that is not to be found."""
    cut = at + PIECE
    if cut >= len(text) or text.find('"', at, cut) >= 0:
        return at
    while cut > at and (escape := text.rfind("\\", max(at, cut - _ESCAPE), cut)) >= 0:
        cut = escape
    return cut
