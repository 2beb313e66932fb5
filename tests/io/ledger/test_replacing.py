"""What replaced what: a promise, its proof, and what speaks against it."""

from datetime import datetime, timedelta

import pytest

from handfast.io.database import Database, step
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.replacing import CHUNK
from handfast.io.ledger.rotation import Rotations
from handfast.trust.rotation import Holder
from tests.io.ledger.test_rotation import HOUR, leaf
from tests.support.clock import START

GRACE = timedelta(seconds=10)
GATEWAY = "handfast/gateway/edge"


@pytest.fixture
async def rotations(db: Database) -> Rotations:
    """Give the rotation's part of an empty ledger."""
    return Rotations(db)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def counting(rotations: Rotations, now: datetime = START) -> dict[str, int]:
    """Give the names that leaves of the first issuer are waited for, and how many."""
    return {one.name: one.count for one in (await rotations.leaves_of("01", now, {})).holders}


async def renewed(rotations: Rotations, ledger: SqlLedger, *serials: str, name: str = "payments") -> None:
    """Give a name its first leaf, and each next one to a holder of the first; all but the first are of another issuer."""
    first, *others = serials
    await leaf(ledger, first, name)
    for serial in others:
        await leaf(ledger, serial, name, issuer="02")
        await rotations.note_successor(serial, first, START + HOUR, START)


async def test_a_leaf_counts_until_its_successor_was_seen_in_use(rotations: Rotations, ledger: SqlLedger):
    """Until then the answer may have been lost, and the holder is named as one that got another leaf and was not seen to use it."""
    await renewed(rotations, ledger, "a1", "a2")
    (held,) = (await rotations.leaves_of("01", START, {})).holders
    assert held == Holder("payments", 1, START + HOUR, renewed=1)
    await rotations.note_seen({"a1": after(1), "b7": after(1)}, GRACE)
    assert await counting(rotations) == {"payments": 1}
    await rotations.note_seen({"a2": after(2)}, GRACE)
    assert await counting(rotations) == {}
    assert (await rotations.leaves_from_before(after(1000), 2, START, {})).count == 1  # the successor's


async def test_who_lost_the_answer_renews_with_the_old_one(rotations: Rotations, ledger: SqlLedger):
    """The next successor counts as the lost one would have. The lost one itself is waited for: somebody may have it."""
    await renewed(rotations, ledger, "a1", "lost", "a3")
    await rotations.note_seen({"a3": after(5)}, GRACE)
    assert await counting(rotations) == {}
    assert (await rotations.leaves_of("02", START, {})).count == 2


async def test_a_copy_that_is_seen_again_counts_again(rotations: Rotations, ledger: SqlLedger):
    """What was under way when the new one came is none. Once the copy's holder has renewed and uses that, it is over."""
    await renewed(rotations, ledger, "a1", "a2")
    await rotations.note_seen({"a2": after(0)}, GRACE)
    await rotations.note_seen({"a1": after(10)}, GRACE)
    assert await counting(rotations) == {}
    await rotations.note_seen({"a1": after(11), "a2": after(11)}, GRACE)
    assert await counting(rotations) == {"payments": 1}
    await rotations.note_seen({"a2": after(12)}, GRACE)
    assert await counting(rotations) == {"payments": 1}
    await leaf(ledger, "a4", "payments", issuer="02")
    await rotations.note_successor("a4", "a1", START + HOUR, after(13))
    await rotations.note_seen({"a4": after(14)}, GRACE)
    assert await counting(rotations) == {}


async def test_many_are_seen_at_once(rotations: Rotations, ledger: SqlLedger):
    """More than one statement can name."""
    await renewed(rotations, ledger, "a1", "a2")
    others = {f"0{number:04x}": after(1) for number in range(CHUNK + 1)}
    await rotations.note_seen({**others, "a2": after(1)}, GRACE)
    assert await counting(rotations) == {}


async def test_a_copy_that_a_gateway_sees_counts_again(rotations: Rotations, ledger: SqlLedger):
    """A connection from before the successor was used says nothing, and neither does the successor's own: time decides there."""
    await renewed(rotations, ledger, "a1", "a2")
    await rotations._db.write(step("update certificates set fingerprint = 'f' || serial where name = 'payments'"))
    await rotations.note_at_gateways({"fa1": after(1), "fa2": after(1)}, GRACE)
    await rotations.note_seen({"a2": after(2)}, GRACE)
    assert await counting(rotations) == {}
    others = {f"0{number:04x}": after(50) for number in range(CHUNK + 1)}
    await rotations.note_at_gateways({**others, "fa1": after(12), "": after(50)}, GRACE)
    assert await counting(rotations) == {}
    assert await rotations.copies("01", START) == 0
    await rotations.note_at_gateways({**others, "fa1": after(13)}, GRACE)
    (held,) = (await rotations.leaves_of("01", START, {})).holders
    assert held == Holder("payments", 1, START + HOUR, copies=1)
    assert await rotations.copies("01", START) == 1
    assert await rotations.copies("01", START + HOUR) == await rotations.copies("02", START) == 0


async def test_what_a_gateway_serves_replaces_what_it_got_before_for_the_same_names(
    rotations: Rotations, ledger: SqlLedger
):
    """Not what another gateway has, nor what is for another host, nor what came since and is not served yet."""
    for serial, name in (("a1", GATEWAY), ("b1", "handfast/gateway/west"), ("a2", GATEWAY), ("a3", GATEWAY)):
        await leaf(ledger, serial, name)
    await rotations._db.write(step("update certificates set dns = $1 where serial = 'a3'", '["web"]'))
    await leaf(ledger, "a4", GATEWAY)
    await rotations.note_served(GATEWAY, {"a2", "b1", "00"}, START)
    assert await counting(rotations) == {"handfast/gateway/west": 1, GATEWAY: 3}
    await rotations.note_served(GATEWAY, {"a4"}, START)
    assert await counting(rotations) == {"handfast/gateway/west": 1, GATEWAY: 2}


async def test_nothing_is_kept_of_what_has_ended(rotations: Rotations, ledger: SqlLedger):
    """Whatever was noted."""
    await renewed(rotations, ledger, "a1", "a2")
    await rotations.note_aware("a1", 2, START + HOUR, START)
    await rotations.note_successor("c2", "c1", START + 2 * HOUR, START + HOUR)
    assert await rotations._db.fetch("select successor from replacing") == [("c2",)]
    assert await rotations._db.fetch("select serial from aware") == []
