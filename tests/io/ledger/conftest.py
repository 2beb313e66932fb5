"""A ledger on a real file. A second kind of database joins these tests by one more parameter here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from handfast.io.sqlite import SqliteDatabase


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """Give an empty database with our schema."""
    database = await SqliteDatabase.open(tmp_path / "ledger.db")
    yield database
    await database.close()


@pytest.fixture
async def ledger(db: Database) -> SqlLedger:
    """Give an empty ledger."""
    return await SqlLedger.open(db)
