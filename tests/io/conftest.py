"""The two stores. A test that asks for ``store`` runs on both."""

from pathlib import Path

import pytest

from tests.support.postgres_fixtures import own_server, postgres, postgres_store
from tests.support.stores import PostgresStore, SqliteStore, Store

__all__ = ["own_server", "postgres", "postgres_store"]


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Give an empty database of each kind."""
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "store.db")
    server = request.getfixturevalue("postgres")
    return PostgresStore(server, await server.create_database())
