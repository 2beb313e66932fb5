from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from handfast.io import lists, sqlite
from tests.app.sites import Site, site


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Keep log lines off the terminal that tests read."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no disk: no test here cuts the power, and there are hundreds of platforms."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    pragmas = [pragma.replace("synchronous = full", "synchronous = off") for pragma in sqlite._PRAGMAS]
    monkeypatch.setattr(sqlite, "_PRAGMAS", pragmas)
    # A list that took long rests by the clock of the test, which stands still: on a machine under load for ever.
    monkeypatch.setattr(lists, "SHORT_S", float("inf"))


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a running control plane."""
    async with site(tmp_path) as running:
        yield running
