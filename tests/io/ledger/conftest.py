"""A ledger on each kind of database."""

from collections.abc import AsyncIterator

import pytest

from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from tests.support.stores import Store


@pytest.fixture
async def db(store: Store) -> AsyncIterator[Database]:
    """Give an empty database with our schema."""
    database = await store.open()
    yield database
    await database.close()


@pytest.fixture
async def ledger(db: Database) -> SqlLedger:
    """Give an empty ledger."""
    return await SqlLedger.open(db)
