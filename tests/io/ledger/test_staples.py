"""What agents say of their staples."""

from __future__ import annotations

from datetime import timedelta

from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.rotation import Rotations
from handfast.io.ledger.staples import StapleEnd
from tests.io.ledger.builders import HOUR, NOW, joined


async def test_an_agents_last_word_on_each_host_counts(ledger: SqlLedger):
    """By host and agent; to the microsecond, and of one host nothing changes another."""
    assert await ledger.staples() == []
    end = NOW + timedelta(microseconds=1)
    await ledger.note_staples("west", {"web": NOW, "api": NOW})
    await ledger.note_staples("east", {"api": NOW})
    await ledger.note_staples("west", {"api": end, "shop": None})
    await ledger.note_staples("west", {})
    assert await ledger.staples() == [
        StapleEnd("east", "api", NOW),
        StapleEnd("west", "api", end),
        StapleEnd("west", "web", NOW),
    ]
    await ledger.note_staples("west", {"api": None})
    assert [(one.agent, one.host) for one in await ledger.staples()] == [("east", "api"), ("west", "web")]


async def test_a_forgotten_agents_word_goes_with_it(ledger: SqlLedger, db: Database):
    """That of one whose name begins alike stays, and so do the ledger's other values."""
    numbered = await ledger.next_counter("staples")
    for name in ("web", "web-2"):
        await ledger.add_agent(joined(f"event-{name}", agent=name))
        await ledger.note_staples(name, {"api": NOW + HOUR})
    rotations = Rotations(db)
    assert await rotations.remove_agent("web")
    assert not await rotations.remove_agent("%")
    assert await ledger.staples() == [StapleEnd("web-2", "api", NOW + HOUR)]
    assert await ledger.next_counter("staples") == numbered + 1
