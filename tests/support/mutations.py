"""Real inputs, damaged: for parsers that must give a result or say no, whatever the bytes are.

What is damaged is real, so that most of it still parses, and the rest reaches what random octets never would.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from hypothesis import strategies as st

ODD = (b"\x00", b"\xff", b"\x80", b"\x7f", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x02\x00", b"\x05\x00", b"\x06\x00", b"\xa0\x00",
       b"\x1f\xff\xff\xff\x7f", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\x0c\x01\xff")  # fmt: skip
"""Octets that parsers stumble over: lengths that lie, empty values, long tags, half a character."""


def mutant(seed: bytes, chance: Random, most: int = 3) -> bytes:
    """Damage ``seed`` in one to ``most`` places."""
    data = seed
    for _ in range(chance.randint(1, most)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
        data = data[:at] + _instead(data[at:to], seed, chance) + data[to:]
    return data


def _instead(piece: bytes, seed: bytes, chance: Random) -> bytes:
    match chance.randrange(6):
        case 0:
            return b""
        case 1:
            return piece * chance.randint(2, 4)
        case 2:
            return bytes(octet ^ 1 << chance.randrange(8) for octet in piece)
        case 3:
            return chance.choice(ODD)
        case 4:
            start = chance.randrange(len(seed) + 1)
            return seed[start : start + chance.randint(1, 64)]
        case _:
            return chance.randbytes(max(len(piece), 1))


def mutants(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Give damaged seeds, and by chance a whole one."""
    return st.builds(
        lambda seed, chance, whole: seed if whole else mutant(seed, chance),
        st.sampled_from(seeds),
        st.randoms(use_true_random=False),
        st.integers(0, 20).map(lambda number: number == 0),
    )


def many(seeds: Sequence[bytes], count: int, seed: int = 7) -> Iterator[bytes]:
    """Give ``count`` damaged seeds, the same ones each time."""
    chance = Random(seed)
    return (mutant(chance.choice(seeds), chance) for _ in range(count))


def grown(parse: Callable[[bytes], object], inputs: Callable[[], Iterable[bytes]]) -> int:
    """Tell how many bytes are held after a second time over all inputs that were not after the first, which fills caches."""

    def over_all() -> int:
        for one in inputs():
            parse(one)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first = over_all()
        return over_all() - first
    finally:
        tracemalloc.stop()
