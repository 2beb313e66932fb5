import asyncio

import pytest

from handfast.io.waiting import first_of


async def test_the_first_that_is_over_ends_the_wait_and_the_others():
    """Nobody goes on waiting for what nobody wants any more."""
    over, never = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(first_of(over.wait(), never.wait()))
    await asyncio.sleep(0)
    before = len(asyncio.all_tasks())
    over.set()
    await asyncio.wait_for(waiting, 1)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before - 3


async def test_who_is_cancelled_lets_go_of_all():
    """A server that stops leaves no task behind."""
    waiting = asyncio.create_task(first_of(asyncio.Event().wait(), asyncio.Event().wait()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
