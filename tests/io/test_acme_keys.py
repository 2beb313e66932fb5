from pathlib import Path

import pytest

from handfast.base.refusal import Unavailable
from handfast.io.acme_keys import SECRET_BYTES, MacKeys
from handfast.io.ledger import SqlLedger
from handfast.io.sealed import Passphrase
from handfast.io.sqlite import SqliteDatabase

MAC = b"m" * SECRET_BYTES
PASSPHRASE = Passphrase(b"a long enough passphrase")


@pytest.fixture
async def ledger(tmp_path: Path):
    database = await SqliteDatabase.open(tmp_path / "db")
    yield await SqlLedger.open(database)
    await database.close()


async def test_a_sealed_key_comes_back(ledger: SqlLedger):
    """For another server with the same passphrase and database, too; what is kept shows nothing of it."""
    kept = await MacKeys(ledger, PASSPHRASE).seal("b", MAC)
    assert MAC not in kept
    assert await MacKeys(ledger, PASSPHRASE).unseal("b", kept) == MAC
    assert await MacKeys(ledger, PASSPHRASE).seal("b", MAC) != kept


async def test_a_seal_is_for_one_binding(ledger: SqlLedger):
    """Who can write the database cannot put one binding's key in another's place, nor change a bit of it."""
    keys = MacKeys(ledger, PASSPHRASE)
    kept = await keys.seal("b", MAC)
    for binding, wrong in (("c", kept), ("b", kept[:-1]), ("b", kept[:-1] + bytes([kept[-1] ^ 1]))):
        with pytest.raises(Unavailable):
            await keys.unseal(binding, wrong)


async def test_another_passphrase_opens_nothing(ledger: SqlLedger):
    """Nor does none."""
    kept = await MacKeys(ledger, PASSPHRASE).seal("b", MAC)
    for passphrase in (None, Passphrase(b"another long passphrase")):
        with pytest.raises(Unavailable) as caught:
            await MacKeys(ledger, passphrase).unseal("b", kept)
        assert "passphrase" in caught.value.hint or "passphrase" in caught.value.message


async def test_without_a_passphrase_a_key_lies_open(ledger: SqlLedger):
    """It is read back, by a server that has a passphrase meanwhile, too."""
    kept = await MacKeys(ledger, None).seal("b", MAC)
    assert MAC in kept
    assert await MacKeys(ledger, None).unseal("b", kept) == MAC
    assert await MacKeys(ledger, PASSPHRASE).unseal("b", kept) == MAC


async def test_a_key_that_is_gone_is_none(ledger: SqlLedger):
    """After its last use nothing is left of it."""
    assert await MacKeys(ledger, PASSPHRASE).unseal("b", b"") is None
