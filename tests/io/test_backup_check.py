import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.backup_check import check_together
from handfast.io.generations import Generations, place_of
from handfast.io.ledger.rotation import Rotations
from handfast.io.sqlite import SqliteDatabase
from handfast.trust import rotation
from handfast.trust.rotation import Step, Verb
from tests.support.clock import START, FakeClock

DOMAIN = TrustDomain("example.org")


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Give a ledger and an authority with a second generation that is published."""
    authority = tmp_path / "authority"
    create_authority(authority, DOMAIN, FakeClock(), None)
    (authority / "ledger-id").write_text("abc")
    database = await SqliteDatabase.open(tmp_path / "ledger")
    generations, rotations = Generations(authority, DOMAIN, None), Rotations(database)
    rows = generations.first(START)
    generations.settle(rows)
    begun = rotation.begin(rows, START, root=False)
    assert isinstance(begun, tuple)
    made = generations.make(begun[-1], begun, START)
    assert await rotations.save((), rotation.taken(made, Step(Verb.PUBLISH, 2), START))
    await database.close()
    with closing(sqlite3.connect(tmp_path / "ledger")) as ledger:
        ledger.execute("insert into meta values ('ledger-id', 'abc')")
        ledger.commit()
    return tmp_path


def kept(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes() for path in (data / "authority").rglob("*") if path.is_file()
    }


def test_what_belongs_together_passes(data: Path):
    """Both generations are there, and both have the id."""
    check_together(data / "ledger", kept(data))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place: (place / "ledger-id").write_text("other"), "another authority"),
        (lambda place: (place / "ledger-id").unlink(), "another authority"),
        (shutil.rmtree, "another authority"),
        (lambda place: shutil.rmtree(place_of(place, 2)), "generation 2 that is not here"),
        (lambda place: shutil.copy(place / "issuing.pem", place_of(place, 2)), "generation 2 that is not here"),
    ],
)
def test_what_does_not_is_refused(data: Path, spoil: Callable[[Path], object], said: str):
    """The other platform's database, or a server that lacks an issuing authority."""
    spoil(data / "authority")
    with pytest.raises(BadInput, match=said):
        check_together(data / "ledger", kept(data))


def test_a_generation_that_is_over_may_be_missing(data: Path):
    """Nothing depends on it."""
    with closing(sqlite3.connect(data / "ledger")) as ledger:
        ledger.execute("update generations set stage = 'retired' where number = 2")
        ledger.commit()
    shutil.rmtree(place_of(data / "authority", 2))
    check_together(data / "ledger", kept(data))
