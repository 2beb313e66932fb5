"""A disk that takes long holds up what is kept on it, and nothing else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from handfast.io.files import write
from tests.app.sites import WORLD, site
from tests.stories.telling import eventually, host
from tests.support.clock import FakeClock

LONGEST_S = 5.0


async def test_a_slow_disk_keeps_no_slice_from_envoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whom a slice denies is refused while the agent still waits for its own copy to be durable."""
    freed = threading.Event()

    def slowly(path: Path, data: bytes, mode: int) -> None:
        freed.wait(LONGEST_S)
        write(path, data, mode)

    async with site(tmp_path / "data", FakeClock()) as here:
        await here.apply()
        async with host(tmp_path / "agent", here) as on:
            await on.current(here)
            kept = on.agent.paths.slice
            await eventually(kept.exists)
            before = kept.read_bytes()
            monkeypatch.setattr("handfast.app.agent.build.write", slowly)
            await here.apply(WORLD.replace("[GET]", "[POST]"))
            await on.current(here)
            newest = here.server.platform.slices.current.value
            assert newest
            assert newest.body != before
            assert kept.read_bytes() == before
            freed.set()
            await eventually(lambda: kept.read_bytes() == newest.body)
