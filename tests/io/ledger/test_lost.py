"""Answers that were lost: whose certificate nobody waits for, and whose stays."""

from datetime import datetime, timedelta

import pytest

from handfast.io.database import Database, step
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.rotation import Rotations
from handfast.io.records import CertificateRecord
from tests.io.ledger.test_rotation import HOUR
from tests.support.clock import START
from tests.support.pki import Pki

GRACE = timedelta(seconds=10)
PKI = Pki()
OLD, NEXT, OTHER = (PKI.leaf().cert.tbs_certificate_bytes for _ in range(3))  # a key of its own each
NONE = b""


@pytest.fixture
async def rotations(db: Database) -> Rotations:
    """Give the rotation's part of an empty ledger."""
    return Rotations(db)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def leaf(
    ledger: SqlLedger, serial: str, tbs: bytes, name: str = "payments", ends: datetime = START + HOUR
) -> None:
    """Record a leaf with the key that stands in ``tbs``. The issuer of the first ones is 01, and 02 that of all others."""
    record = CertificateRecord(
        serial=serial, issuer="01" if serial == "01d" else "02", identity=f"spiffe://example.org/{name}", name=name, dns=(),
        not_before=START, not_after=ends, requester="uid:0", recorded_at=START, tbs=tbs,
    )  # fmt: skip
    assert await ledger.record_intent(record) is None


async def renewed(rotations: Rotations, ledger: SqlLedger, old: bytes = OLD, **successors: bytes) -> None:
    """Give a holder the leaf 01d, and whoever holds that the successors."""
    await leaf(ledger, "01d", old)
    for serial, tbs in successors.items():
        await leaf(ledger, serial, tbs)
        await rotations.note_successor(serial, "01d", START + HOUR, START)


async def waited_for(rotations: Rotations, now: datetime = START) -> tuple[int, int]:
    """Give how many leaves of the old issuer and of the new one are waited for."""
    return (await rotations.leaves_of("01", now, {})).count, (await rotations.leaves_of("02", now, {})).count


@pytest.mark.parametrize("lost", [1, 3])
async def test_nobody_waits_for_what_was_lost_once_another_one_of_its_key_is_used(
    rotations: Rotations, ledger: SqlLedger, lost: int
):
    """However often the answer was lost. Before that use nothing follows."""
    await renewed(rotations, ledger, **{f"105{number}": NEXT for number in range(lost)}, a3=NEXT)
    assert await waited_for(rotations) == (1, lost + 1)
    await rotations.note_seen({"01d": after(1)}, GRACE)
    assert await waited_for(rotations) == (1, lost + 1)
    await rotations.note_seen({"a3": after(5)}, GRACE)
    assert await waited_for(rotations) == (0, 1)
    assert (await rotations.leaves_from_before(after(1000), 2, START, {})).count == 1


async def test_it_may_be_the_later_one_that_was_lost(rotations: Rotations, ledger: SqlLedger):
    """A request that took long was answered after the one that was sent because of it."""
    await renewed(rotations, ledger, a2=NEXT, a3=NEXT)
    await rotations.note_seen({"a2": after(5)}, GRACE)
    assert await waited_for(rotations) == (0, 1)


@pytest.mark.parametrize("lost", ["a1", "a2"])
async def test_what_is_seen_after_all_counts_again(rotations: Rotations, ledger: SqlLedger, lost: str):
    """At the API and at a gateway, as an old one does that was copied; and so does the old one itself."""
    await renewed(rotations, ledger, a1=NEXT, a2=NEXT, a3=NEXT)
    await rotations._db.write(step("update certificates set fingerprint = 'f' || serial"))
    await rotations.note_seen({"a3": after(0)}, GRACE)
    await rotations.note_seen({lost: after(10)}, GRACE)
    assert await waited_for(rotations) == (0, 1)
    await rotations.note_seen({lost: after(11)}, GRACE)
    assert await waited_for(rotations) == (0, 2)
    assert await rotations.copies("02", START) == 1
    await rotations.note_at_gateways({"f01d": after(11), "fa1": after(11), "fa2": after(11)}, GRACE)
    assert await waited_for(rotations) == (1, 3)


async def test_two_copies_that_renew_do_not_cut_one_another_off(rotations: Rotations, ledger: SqlLedger):
    """Each made a key of its own; and where they keep the old one's, that tells nobody from a copy."""
    await renewed(rotations, ledger, a2=NEXT, a3=OTHER, a4=OLD, a5=OLD)
    await rotations.note_seen({"a2": after(1), "a4": after(1)}, GRACE)
    assert await waited_for(rotations) == (0, 4)


async def test_what_is_in_use_is_not_lost(rotations: Rotations, ledger: SqlLedger):
    """Though it has the same key, whether it was seen before or at the same time."""
    await renewed(rotations, ledger, a2=NEXT, a3=NEXT, a4=NEXT)
    await rotations.note_seen({"a2": after(1), "a3": after(1)}, GRACE)
    assert await waited_for(rotations) == (0, 2)
    await leaf(ledger, "a5", NEXT)
    await rotations.note_successor("a5", "01d", START + HOUR, START)
    await rotations.note_seen({"a5": after(1)}, GRACE)
    assert await waited_for(rotations) == (0, 3)


@pytest.mark.parametrize(("old", "new"), [(OLD, NONE), (NONE, NEXT), (NONE, NONE)])
async def test_without_a_key_nothing_is_known(rotations: Rotations, ledger: SqlLedger, old: bytes, new: bytes):
    """Time decides."""
    await renewed(rotations, ledger, old, a2=new, a3=new)
    await rotations.note_seen({"a3": after(1)}, GRACE)
    assert await waited_for(rotations) == (0, 2)


async def test_what_was_lost_is_remembered_until_it_ends(rotations: Rotations, ledger: SqlLedger):
    """The old one ends before it."""
    await leaf(ledger, "01d", OLD)
    for serial in ("a2", "a3"):
        await leaf(ledger, serial, NEXT, ends=START + 2 * HOUR)
        await rotations.note_successor(serial, "01d", START + HOUR, START)
    await rotations.note_seen({"a3": after(5)}, GRACE)
    await rotations.note_successor("c2", "c1", START + 3 * HOUR, START + HOUR)  # what has ended is forgotten
    assert await waited_for(rotations, START + HOUR) == (0, 1)


async def test_a_keeper_never_had_what_else_has_its_key(rotations: Rotations, ledger: SqlLedger):
    """Whether a successor was noted or not, or there was none before it. Other names and keys are passed over."""
    await leaf(ledger, "a1", NEXT)
    await leaf(ledger, "a2", NEXT)
    await leaf(ledger, "b1", OTHER)
    await leaf(ledger, "b2", NONE)
    await leaf(ledger, "c1", NEXT, "web")
    await rotations.note_keeper("a2", START)
    assert (await rotations.leaves_of("02", START, {})).count == 4
    for serial in ("b2", "00"):
        await rotations.note_keeper(serial, START)
    assert (await rotations.leaves_of("02", START, {})).count == 4
