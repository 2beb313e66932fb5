import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handfast.app.server.belonging import FILE, check_belonging, claim
from handfast.base.refusal import BadInput
from handfast.io.database import Database, step
from handfast.io.sqlite import SqliteDatabase


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    """Give an empty ledger's database."""
    database = await SqliteDatabase.open(tmp_path / "db")
    yield database
    await database.close()


async def made(db: Database, folder: Path) -> Path:
    """Make an authority as a first start does."""
    await check_belonging(db, folder)
    folder.mkdir()
    await claim(db, folder, made=True)
    return folder


async def test_a_ledger_and_its_authority_find_each_other_again(db: Database, tmp_path: Path):
    """A later start with the same two is fine, and so is one with a copy of the authority."""
    first = await made(db, tmp_path / "first")
    shutil.copytree(first, tmp_path / "copy")
    for authority in (first, tmp_path / "copy"):
        await check_belonging(db, authority)
        await claim(db, authority, made=False)
    assert (first / FILE).read_text() == (tmp_path / "copy" / FILE).read_text()
    assert (first / FILE).stat().st_mode & 0o777 == 0o600


async def test_no_second_authority_is_made(db: Database, tmp_path: Path):
    """A server that has none, at a ledger that has one, is told what to copy."""
    await made(db, tmp_path / "first")
    with pytest.raises(BadInput, match="has an authority already") as caught:
        await check_belonging(db, tmp_path / "second")
    assert "copy" in caught.value.hint


async def test_another_authority_is_refused(db: Database, tmp_path: Path):
    """An authority that was used with another ledger is not used with this one."""
    await made(db, tmp_path / "first")
    other_db = await SqliteDatabase.open(tmp_path / "other-db")
    other = await made(other_db, tmp_path / "other")
    with pytest.raises(BadInput, match="another authority"):
        await check_belonging(db, other)
    await other_db.close()


async def test_of_two_that_make_one_at_the_same_time_one_is_refused(db: Database, tmp_path: Path):
    """Both saw an empty ledger; the second to come is told to take the first one's."""
    outcomes = await asyncio.gather(
        *(made(db, tmp_path / name) for name in ("first", "second")), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["BadInput", type(tmp_path).__name__]


async def test_an_authority_from_before_ids_is_taken_in(db: Database, tmp_path: Path):
    """One that has no id gets the ledger's, also where the ledger has one: nothing says that they do not belong together."""
    (tmp_path / "old").mkdir()
    await check_belonging(db, tmp_path / "old")
    await claim(db, tmp_path / "old", made=False)
    (tmp_path / "older").mkdir()
    await claim(db, tmp_path / "older", made=False)
    assert (tmp_path / "older" / FILE).read_text() == (tmp_path / "old" / FILE).read_text()


async def test_an_authority_may_move_to_an_empty_ledger(db: Database, tmp_path: Path):
    """Who begins anew with the same authority keeps its id."""
    first = await made(db, tmp_path / "first")
    await db.write(step("delete from meta"))
    kept = (first / FILE).read_text()
    await check_belonging(db, first)
    await claim(db, first, made=False)
    assert await db.fetch("select value from meta") == [(kept,)]
