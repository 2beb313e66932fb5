"""Fixtures around `tests.support.postgres`: a module that wants one imports it."""

from collections.abc import Iterator

import pytest

from tests.conftest import IN_CI
from tests.support.postgres import PostgresServer, binaries, postgres_server
from tests.support.stores import PostgresStore


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a running PostgreSQL."""
    programs = binaries()
    if programs is None:
        (pytest.fail if IN_CI else pytest.skip)("not installed: PostgreSQL")
    with postgres_server(programs) as server:
        yield server


@pytest.fixture
async def postgres_store(postgres: PostgresServer) -> PostgresStore:
    """Give an empty database."""
    return PostgresStore(postgres, await postgres.create_database())


@pytest.fixture
def own_server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Give a server that a test may stop."""
    with postgres_server(postgres.binaries) as server:
        yield server
