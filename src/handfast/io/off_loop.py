"""Long work of the processor, away from the event loop.

Decides where work is done: short work at once, as a thread costs some fifty microseconds, and long work in a thread. Refuses to
know what the work is.

Hashes and signatures let go of the interpreter while they run; what is written in Python takes turns with the loop, every few
milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

LONG_BYTES = 256 * 1024
"""From where on octets take long to hash: a quarter of a millisecond."""
MANY = 1000
"""From where on entries take long to write: some milliseconds."""


async def run(work: Callable[[*Ts], T], *arguments: *Ts, long: bool) -> T:
    """Do ``work``, in a thread where it is ``long``."""
    return await asyncio.to_thread(work, *arguments) if long else work(*arguments)


async def let_go(many: list[T]) -> None:
    """Forget what is in a list, a little at a time: nothing interrupts the end of a million things."""
    while many:
        del many[-MANY:]
        await asyncio.sleep(0)
