"""Waiting for whichever comes first, and for those who are as far as oneself.

Decides that what did not come first is given up. Refuses to know what is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def abreast() -> None:
    """Wait until all whose turn it is have done as much as the caller.

    Many who do the same work go through it in step then, stage by stage. A processor that does one thing fifty times finds code
    and tables in its caches; signatures read large tables, and whatever comes between two of them starts cold.
    """
    await asyncio.sleep(0)


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for one of several things."""
    tasks = [asyncio.create_task(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
