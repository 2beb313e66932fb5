import pytest

from tests.app.conftest import _fast, _silent
from tests.stories.telling import without_machine_time

__all__ = ["_fast", "_silent"]


@pytest.fixture(autouse=True)
def _fake_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's time out of TLS, and the real Envoy out of the agent."""
    without_machine_time(monkeypatch)
