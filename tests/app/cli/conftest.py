"""A control plane where the commands look for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.sites import Site, site


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Give a running control plane over the data directory that the commands look for in the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".handfast").mkdir(0o700)
    async with site(tmp_path / ".handfast") as running:
        yield running
