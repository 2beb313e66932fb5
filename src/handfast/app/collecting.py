"""The garbage collector of a process that serves for long.

Decides that what stands when the start is over is never looked through again, and that new objects are looked through by the ten
thousand: most of them are gone by then, and a look through everything holds up all that is being answered.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 20_000  # some megabytes; the interpreter's own number is 700


def begin_to_serve() -> None:
    """Settle the collector, when all is started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
