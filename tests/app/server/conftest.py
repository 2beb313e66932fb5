from __future__ import annotations

import pytest

from tests.app import sites
from tests.app.issuers import timeless
from tests.stories.telling import without_machine_time


@pytest.fixture
def timeless_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's time out of TLS: here it is a matter of years."""
    without_machine_time(monkeypatch)
    for name in ("client_context", "anonymous_context"):
        inner = getattr(sites, name)
        monkeypatch.setattr(sites, name, lambda *args, _inner=inner: timeless(_inner(*args)))
