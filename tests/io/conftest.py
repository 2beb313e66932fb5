"""The two stores, of which a test that asks for ``store`` gets each; and where an authority is made, with a root that is elsewhere."""

from pathlib import Path

import pytest

from handfast.io.authorities import Authority, create_authority
from handfast.io.authority_sources import Place
from tests.io.authority_parts import DOMAIN, PASSPHRASE
from tests.support.clock import FakeClock
from tests.support.offline_root import OfflineRoot, offline_root
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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority that was just made, in the directory ``ca``, sealed."""
    return create_authority(tmp_path / "ca", DOMAIN, FakeClock(), PASSPHRASE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give an empty data directory of a trust domain."""
    return Place(data=tmp_path / "data", trust_domain=DOMAIN)


@pytest.fixture
def root(tmp_path: Path) -> OfflineRoot:
    """Give a root in the hands of plain openssl."""
    return offline_root(tmp_path / "root")
