"""One platform for all tests of a worker that only ask it something; those that stop or change it have one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo import Echo
from tests.e2e.feed import Feed
from tests.e2e.platform import Client, Platform
from tests.e2e.world import wire_world
from tests.support.pki import Pki
from tests.support.ports import free_port

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.debian("curl", "openssl"))


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    """Give the service behind the gateway."""
    service = Echo()
    yield service
    service.close()


@pytest.fixture(scope="session")
def nothing() -> int:
    """Give a port where nobody listens."""
    return free_port()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory, echo: Echo, nothing: int) -> Iterator[Platform]:
    """Give the platform that runs for the whole session. Certificates may be issued and revoked; its world stays."""
    gateway = free_port()
    running = Platform(tmp_path_factory.mktemp("platform"), wire_world(gateway, echo.url, nothing), gateway)
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def feed(platform: Platform) -> Iterator[Feed]:
    """Give the platform's events, as they come."""
    following = Feed(platform)
    yield following
    following.close()


@pytest.fixture(scope="session")
def payments(platform: Platform) -> Client:
    """Give a client that may do anything on the routes of ``open``."""
    return platform.issue("payments")


@pytest.fixture(scope="session")
def reports(platform: Platform) -> Client:
    """Give a client that may read there."""
    return platform.issue("reports")


@pytest.fixture(scope="session")
def hostile(platform: Platform) -> Pki:
    """Give the platform's own issuing key, in the wrong hands."""
    return platform.hostile_pki()
