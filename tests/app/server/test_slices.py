"""The slice that agents get, while several want it anew at once."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path

import pytest

from handfast.access.slice import parse_slice
from handfast.io.authorities import Authority
from handfast.io.slice_lists import SliceLists
from handfast.trust.revocation import RevocationReason, Revoked
from tests.app.sites import WORLD, Site, site
from tests.support.clock import FakeClock


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a server on a clock that stands."""
    async with site(tmp_path, FakeClock()) as made:
        yield made


async def test_a_slow_list_does_not_bring_back_what_was(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A slice that was begun before an apply is not published after the one with that apply."""
    slices, ledger = here.server.platform.slices, here.server.platform.ledger
    await here.apply()
    serial = (await here.issue("payments")).leaf.serial
    began, go_on, inner, seen = asyncio.Event(), asyncio.Event(), SliceLists.list_of, list[int]()

    async def slow(
        self: SliceLists, issuer: Authority, revoked: Iterable[Revoked], revision: int, now: datetime
    ) -> str:
        if not began.is_set():
            began.set()
            await go_on.wait()
        return await inner(self, issuer, revoked, revision, now)

    async def watch() -> None:
        async for prepared in slices.current.subscribe():
            if prepared:
                seen.append(parse_slice(prepared.body).revision)

    monkeypatch.setattr(SliceLists, "list_of", slow)
    watching = asyncio.create_task(watch())
    await ledger.revoke([serial], here.clock.now(), RevocationReason.SUPERSEDED.value, [])
    await began.wait()
    applying = asyncio.create_task(here.apply(WORLD.replace("9000", "9001")))
    await asyncio.sleep(0.2)
    go_on.set()
    await applying
    await asyncio.sleep(0.2)
    watching.cancel()
    assert seen[-1] == 2
    assert seen == sorted(seen)
