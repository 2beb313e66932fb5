from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.sites import Site, site


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a running control plane."""
    async with site(tmp_path) as running:
        yield running
