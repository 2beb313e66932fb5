import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import audit
from handfast.io.audit import Trust, Verdict
from handfast.io.authorities import Authority, create_authority
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.chain import Chain
from handfast.io.sqlite import SqliteDatabase
from handfast.io.sqlite_file import SqliteFile
from handfast.trust.audit import Damage, Statement
from tests.io.ledger.builders import DAY, NOW, joined
from tests.support.clock import FakeClock

DOMAIN = "example.org"
COUNT = 12


@dataclass
class Place:
    """A ledger of twelve events in a file, which a test may write to as an attacker would."""

    file: Path
    ledger: SqlLedger
    authority: Authority

    @property
    def trust(self) -> Trust:
        """Trust this place's own authority."""
        return Trust(trust_domain=DOMAIN, roots=[self.authority.root_der])

    def tamper(self, *statements: str) -> None:
        """Write to the file past the ledger."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    async def verify(self, checkpoint: Statement | None = None) -> Verdict:
        """Walk the chain."""
        return await audit.verify(self.ledger, self.trust, checkpoint)

    async def found(self, checkpoint: Statement | None = None) -> list[tuple[Damage, int]]:
        """Give what is wrong, and at which link."""
        return [(fault.damage, fault.number) for fault in (await self.verify(checkpoint)).faults]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Give a sealed ledger."""
    authority = create_authority(tmp_path / "authority", TrustDomain(DOMAIN), FakeClock(NOW), None)
    database = await SqliteDatabase.open(tmp_path / "ledger.sqlite")
    ledger = await SqlLedger.open(database)
    await ledger.append([joined(f"e{n}") for n in range(1, COUNT + 1)])
    assert await audit.seal_all(ledger, NOW) == COUNT
    yield Place(tmp_path / "ledger.sqlite", ledger, authority)
    await database.close()


async def test_what_nobody_touched_holds(place: Place):
    """Every event is checked, and the checkpoint fits."""
    said = await audit.checkpoint(place.ledger, place.authority, NOW)
    verdict = await place.verify(said)
    assert (verdict.first, verdict.last, verdict.checked, verdict.faults) == (1, COUNT, COUNT, ())
    assert verdict.hash == said.hash


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["update events set body = replace(body, 'e5', 'e6') where seq = 5"], [(Damage.CHANGED, 5)]),
        (["update events set kind = 'agent.left' where seq = 5"], [(Damage.CHANGED, 5)]),
        (["update events set at = at + 1 where seq = 5"], [(Damage.CHANGED, 5)]),
        (["update audit_links set hash = upper(hash) where number = 5"], [(Damage.CHANGED, 5), (Damage.CHANGED, 6)]),
        (["delete from events where seq = 5"], [(Damage.REMOVED, 5)]),
        (
            ["delete from events where seq between 5 and 7", "delete from audit_links where number between 5 and 7"],
            [(Damage.UNLINKED, 5)],
        ),
        (
            [
                "update events set seq = 100 where seq = 5",
                "update events set seq = 5 where seq = 8",
                "update events set seq = 8 where seq = 100",
            ],
            [(Damage.MOVED, 5), (Damage.MOVED, 8)],
        ),
        (["delete from audit_links where number = 5"], [(Damage.UNLINKED, 5), (Damage.ADDED, COUNT)]),
        (["delete from events where seq <= 4", "delete from audit_links where number <= 4"], [(Damage.BEGINNING, 5)]),
        (["delete from events where seq > 9"], [(Damage.REMOVED, 10), (Damage.REMOVED, 11), (Damage.REMOVED, 12)]),
    ],
)
async def test_a_file_that_was_written_to_is_found_out(
    place: Place, statements: list[str], expected: list[tuple[Damage, int]]
):
    """Changed, removed, reordered or cut at its beginning: each is found, and where."""
    place.tamper(*statements)
    assert await place.found() == expected


async def test_a_missing_end_is_found_with_a_checkpoint_alone(place: Place):
    """The chain without its newest part holds by itself; whoever kept a checkpoint knows better."""
    said = await audit.checkpoint(place.ledger, place.authority, NOW)
    place.tamper("delete from events where seq > 9", "delete from audit_links where number > 9")
    assert await place.found() == []
    assert await place.found(said) == [(Damage.TRUNCATED, 9)]


async def test_a_chain_made_anew_is_found_with_a_checkpoint_alone(place: Place):
    """Whoever knows the algorithm can link what he changed; he cannot give it the hash that was signed."""
    said = await audit.checkpoint(place.ledger, place.authority, NOW)
    place.tamper("update events set body = replace(body, 'e5', 'e6') where seq = 5", "delete from audit_links")
    await audit.seal_all(place.ledger, NOW)
    assert await place.found() == []
    assert await place.found(said) == [(Damage.REWRITTEN, COUNT)]


async def test_pruning_keeps_the_chain_and_old_checkpoints(place: Place):
    """From the signed anchor on it holds; a checkpoint from before the anchor is no fault, one from after it still counts."""
    old = await audit.checkpoint(place.ledger, place.authority, NOW)
    assert await audit.prune(place.ledger, place.authority, NOW + DAY, NOW) == COUNT
    await place.ledger.append([joined("new")])
    new = await audit.checkpoint(place.ledger, place.authority, NOW)
    for said in (None, old, new):
        verdict = await place.verify(said)
        assert (verdict.first, verdict.last, verdict.faults) == (COUNT + 1, COUNT + 1, ())
    assert await audit.prune(place.ledger, place.authority, NOW, NOW) == 0


@pytest.mark.parametrize("column", ["number", "hash", "seq"])
async def test_a_forged_anchor_excuses_nothing(place: Place, column: str):
    """Who removes a beginning cannot sign that it was pruned."""
    await place.ledger.append([joined("late")])
    await audit.seal_all(place.ledger, NOW + DAY)
    await audit.prune(place.ledger, place.authority, NOW + DAY, NOW)
    seventh = '"a"' if column == "hash" else 11
    place.tamper(f"update audit_anchor set statement = json_set(statement, '$.{column}', {seventh})".replace('"', "'"))
    assert (await place.found())[0][0] is Damage.BEGINNING


async def test_a_checkpoint_does_not_serve_as_an_anchor(place: Place):
    """An attacker who has a checkpoint cannot cut the chain up to it."""
    said = await audit.checkpoint(place.ledger, place.authority, NOW)
    await audit.prune(place.ledger, place.authority, NOW + DAY, NOW)
    kept = await place.ledger.chain_anchor()
    assert kept is not None
    place.tamper(f"update audit_anchor set statement = json_set(statement, '$.signature', '{said.signature}')")
    assert (await place.found())[0][0] is Damage.BEGINNING


@pytest.mark.parametrize(
    "spoil", [lambda said: replace(said, number=3), lambda said: replace(said, trust_domain="example.net")]
)
async def test_a_checkpoint_that_was_touched_is_refused(place: Place, spoil: Callable[[Statement], Statement]):
    """Before anything is compared with it."""
    said = await audit.checkpoint(place.ledger, place.authority, NOW)
    with pytest.raises(BadInput):
        await place.verify(spoil(said))


async def test_pruning_while_somebody_verifies_is_no_fault(place: Place, monkeypatch: pytest.MonkeyPatch):
    """The walk finds a new anchor, and begins again from there."""
    page = place.ledger.chain_page

    async def pruned_meanwhile(after: int = 0, after_seq: int = 0, limit: int = 3) -> object:
        if after == 3:
            await audit.prune(place.ledger, place.authority, NOW + timedelta(seconds=1), NOW)
            await place.ledger.append([joined("new")])
            await audit.seal_all(place.ledger, NOW + DAY)
        return await page(after, after_seq, 3)

    monkeypatch.setattr(place.ledger, "chain_page", pruned_meanwhile)
    verdict = await place.verify()
    assert (verdict.first, verdict.last, verdict.faults) == (COUNT + 1, COUNT + 1, ())


async def test_many_faults_are_told_up_to_a_bound(place: Place):
    """Someone who breaks a million links does not fill the terminal."""
    await place.ledger.append([joined(f"more-{n}") for n in range(500)])
    await audit.seal_all(place.ledger, NOW)
    place.tamper("update events set at = at + 1")
    assert len(await place.found()) == audit.MOST_FAULTS


async def test_a_file_is_verified_without_a_server_and_without_writing(place: Place):
    """The walk over a closed file finds the same, and its bytes stay as they are."""
    place.tamper("delete from events where seq = 5", "pragma user_version = 1")
    database = SqliteFile(place.file)
    before = place.file.read_bytes()
    verdict = await audit.verify(Chain(database), place.trust)
    assert [(fault.damage, fault.number) for fault in verdict.faults] == [(Damage.REMOVED, 5)]
    with pytest.raises(Unavailable):
        await database.write()
    await database.close()
    assert place.file.read_bytes() == before


async def test_a_file_that_is_no_ledger_is_named(tmp_path: Path):
    """What cannot be opened or read says which file it is."""
    with pytest.raises(BadInput, match="none"):
        SqliteFile(tmp_path / "none")
    (tmp_path / "other").write_text("no database at all, and long enough to be looked at")
    database = SqliteFile(tmp_path / "other")
    with pytest.raises(BadInput, match="other"):
        await Chain(database).chain_head()
    await database.close()
