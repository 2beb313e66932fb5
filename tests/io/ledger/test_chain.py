import asyncio
from datetime import timedelta

import pytest

from handfast.io.database import Conflict
from handfast.io.ledger import SqlLedger
from handfast.trust.audit import GENESIS, Link, Walk
from tests.io.ledger.builders import DAY, HOUR, NOW, anchor, ids, joined, prune
from tests.support.stores import Store


async def numbers(ledger: SqlLedger) -> list[int]:
    return [one.number for one in (await ledger.chain_page()).links]


async def holds(ledger: SqlLedger) -> bool:
    page, kept = await ledger.chain_page(), await ledger.chain_anchor()
    walk = Walk(kept.number, kept.hash) if kept else Walk()
    return not list(walk.page(page.links, page.entries))


async def test_each_event_gets_one_link_in_the_order_of_its_seq(ledger: SqlLedger):
    """Sealing binds what is new, as often as it is called, and nothing twice."""
    assert await ledger.seal(NOW) == 0
    assert await ledger.chain_head() == Link(0, 0, "", GENESIS)
    await ledger.append([joined(f"e{n}") for n in range(3)])
    assert await ledger.unsealed() == 3
    assert [await ledger.seal(NOW), await ledger.seal(NOW)] == [3, 0]
    await ledger.append([joined("late", at=NOW - DAY)])
    assert await ledger.seal(NOW) == 1
    page = await ledger.chain_page()
    assert [(one.number, one.id) for one in page.links] == [(1, "e0"), (2, "e1"), (3, "e2"), (4, "late")]
    assert [one.seq for one in page.links] == [one.seq for one in page.entries]
    assert await ledger.chain_head() == page.links[-1]
    assert await ledger.unsealed() == 0
    assert await holds(ledger)


async def test_a_seal_is_bounded(ledger: SqlLedger):
    """A long backlog is many units, none of them large."""
    await ledger.append([joined(f"e{n}") for n in range(7)])
    assert [await ledger.seal(NOW, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert await holds(ledger)


async def test_servers_that_seal_at_the_same_time_make_one_chain(ledger: SqlLedger, store: Store):
    """Two processes link as fast as they can while events come: no number twice, no gap, no event left."""
    db = await store.open()
    other = await SqlLedger.open(db)

    async def sealing(one: SqlLedger) -> None:
        for _ in range(60):
            await one.seal(NOW, 5)

    async def writing(one: SqlLedger, name: str) -> None:
        for n in range(40):
            await one.append([joined(f"{name}{n}")])

    await asyncio.gather(sealing(ledger), sealing(other), writing(ledger, "a"), writing(other, "b"), sealing(other))
    while await ledger.seal(NOW):
        pass
    await db.close()
    assert await numbers(ledger) == list(range(1, 81))
    assert await holds(ledger)


async def test_a_page_has_the_events_among_its_links(ledger: SqlLedger):
    """A walk by pages sees each link and each event once."""
    await ledger.append([joined(f"e{n}") for n in range(7)])
    await ledger.seal(NOW)
    walk, seq, seen = Walk(), 0, []
    while (page := await ledger.chain_page(walk.number, seq, 3)).links:
        assert not list(walk.page(page.links, page.entries))
        seq = page.links[-1].seq
        seen += [entry.id for entry in page.entries]
    assert seen == [f"e{n}" for n in range(7)]


async def test_pruning_cuts_the_beginning_and_leaves_an_anchor(ledger: SqlLedger):
    """What was sealed long ago goes with its links; the chain holds from the anchor on, and numbers go on."""
    for hour in range(3):
        await ledger.append([joined(f"{hour}-{n}") for n in range(2)])
        await ledger.seal(NOW + hour * HOUR)
    assert await prune(ledger, NOW + HOUR) == 2
    assert await ids(ledger) == ["1-0", "1-1", "2-0", "2-1"]
    assert await numbers(ledger) == [3, 4, 5, 6]
    assert await holds(ledger)
    assert await prune(ledger, NOW + DAY) == 4
    assert (await ledger.chain_head()).number == 6
    await ledger.append([joined("new")])
    await ledger.seal(NOW)
    assert await numbers(ledger) == [7]
    assert await holds(ledger)
    assert await prune(ledger, NOW) == 0


async def test_what_an_event_says_of_its_time_keeps_nothing_and_loses_nothing(ledger: SqlLedger):
    """An agent whose clock is wrong can neither have its events forgotten at once nor stop the pruning."""
    await ledger.append([joined("future", at=NOW + 400 * DAY), joined("past", at=NOW - 400 * DAY)])
    await ledger.seal(NOW)
    assert await prune(ledger, NOW) == 0
    assert await prune(ledger, NOW + timedelta(seconds=1)) == 2


async def test_an_unsealed_event_is_never_pruned(ledger: SqlLedger):
    """What has no link yet would be gone without a trace."""
    await ledger.append([joined("old", at=NOW - 400 * DAY)])
    assert await ledger.last_to_prune(NOW + DAY) is None
    assert await ids(ledger) == ["old"]


async def test_an_anchor_that_does_not_fit_prunes_nothing(ledger: SqlLedger):
    """The link must be there with this hash, and the anchor never goes back."""
    await ledger.append([joined(f"e{n}") for n in range(3)])
    await ledger.seal(NOW)
    first, second, _ = (await ledger.chain_page()).links
    for wrong in (Link(2, second.seq, "", first.hash), Link(9, 9, "", first.hash)):
        with pytest.raises(Conflict):
            await ledger.prune_chain(anchor(wrong))
    assert await ledger.prune_chain(anchor(second)) == 2
    with pytest.raises(Conflict):
        await ledger.prune_chain(anchor(first))
    assert await numbers(ledger) == [3]
