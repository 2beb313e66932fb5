from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from handfast.base.events import AgentJoined, RotationStepped
from handfast.base.windows import Window
from handfast.io.database import Database, step
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.rotation import SHOWN, Rotations
from handfast.io.records import CertificateRecord
from handfast.trust.rotation import Generation, Leaves, Stage
from tests.support.clock import START

HOUR = timedelta(hours=1)
ONE = Generation(
    number=1, root=1, before=0, stage=Stage.ISSUING, since=START, issuer="01",
    window=Window(START, START + 100 * HOUR), root_window=Window(START, START + 1000 * HOUR),
)  # fmt: skip
TWO = Generation(number=2, root=1, before=1, stage=Stage.PREPARED, since=START + HOUR)


@pytest.fixture
async def rotations(db: Database) -> Rotations:
    """Give the rotation's part of an empty ledger."""
    return Rotations(db)


def step_event(number: str = "e1") -> RotationStepped:
    return RotationStepped(id=number, at=START, step="begin", generation=2, root=1, requester="uid:0")


async def leaf(
    ledger: SqlLedger,
    serial: str,
    name: str,
    *,
    issuer: str = "01",
    at: datetime = START,
    ends: datetime = START + HOUR,
) -> None:
    record = CertificateRecord(
        serial=serial, issuer=issuer, identity=f"spiffe://example.org/{name}", name=name, dns=(), not_before=at, not_after=ends,
        requester="uid:0", recorded_at=at,
    )  # fmt: skip
    assert await ledger.record_intent(record) is None


async def test_leaves_that_end_with_their_issuer_are_counted(rotations: Rotations, ledger: SqlLedger):
    """Those of this issuer alone, and those alone that end when it does."""
    for serial, issuer, ends in (("a1", "01", HOUR), ("a2", "01", HOUR), ("a3", "01", HOUR / 2), ("b1", "02", HOUR)):
        await leaf(ledger, serial, "payments", issuer=issuer, ends=START + ends)
    assert await rotations.cut_short("01", START + HOUR, START) == 2
    assert await rotations.cut_short("01", START + HOUR, START + HOUR) == 0


async def test_generations_come_back_as_they_were_kept(rotations: Rotations):
    """Made and not made yet, with their windows."""
    assert await rotations.generations() == ()
    assert await rotations.save((), (ONE, TWO))
    assert await rotations.generations() == (ONE, TWO)


async def test_a_step_is_written_over_the_states_that_it_was_decided_on(rotations: Rotations, ledger: SqlLedger):
    """Of two servers that take a step at once one does, and the other one is told; so is whoever comes late."""
    await rotations.save((), (ONE, TWO))
    made = (ONE, replace(TWO, issuer="02", window=ONE.window, root_window=ONE.root_window))
    assert await rotations.save((ONE, TWO), made, [step_event()])
    assert not await rotations.save((ONE, TWO), made, [step_event("e2")])
    assert await rotations.generations() == made
    assert [event.id for _, event in await ledger.page()] == ["e1"]
    assert not await rotations.save((), (ONE,))


async def test_the_switch_is_one_unit(rotations: Rotations):
    """At no time does nobody issue, or do two."""
    await rotations.save((), (ONE, replace(TWO, stage=Stage.PUBLISHED)))
    before = await rotations.generations()
    after = (replace(ONE, stage=Stage.RETIRING), replace(TWO, stage=Stage.ISSUING))
    assert await rotations.save(before, after)
    assert await rotations.generations() == after
    assert not await rotations.save(after, (replace(ONE, stage=Stage.ISSUING), after[1]))


async def test_a_compromise_that_another_server_noted_is_not_overwritten(rotations: Rotations):
    """The mark counts among the states that a step is decided on."""
    await rotations.save((), (ONE,))
    await rotations.save((ONE,), (replace(ONE, compromised=True),))
    assert not await rotations.save((ONE,), (replace(ONE, stage=Stage.RETIRING),))


async def test_an_agent_knows_what_is_in_the_slice_that_it_acknowledged(rotations: Rotations, ledger: SqlLedger):
    """By the slice's digest; an unknown slice has nothing of it."""
    for name in ("a", "b", "c"):
        await ledger.add_agent(AgentJoined(id=f"j{name}", at=START, agent=name, serial="00"))
    for digest in ("d1", "d2", "d2"):
        await rotations.note_slice(digest, 2)
    await rotations.note_slice("d3", 1)
    for name, digest in (("a", "d2"), ("b", "d3"), ("c", "")):
        await ledger.agent_reported(name, START + HOUR, digest, [])
    seen = await rotations.agents_seen(2)
    assert [(one.name, one.aware, one.last_seen) for one in seen] == [
        ("a", True, START + HOUR), ("b", False, START + HOUR), ("c", False, START + HOUR),
    ]  # fmt: skip
    await rotations.forget_slices(2)
    assert not any(one.aware for one in await rotations.agents_seen(2))


async def test_an_agent_that_is_forgotten_is_unknown(rotations: Rotations, ledger: SqlLedger):
    """Its reports are refused from then on; it may join again."""
    joined = AgentJoined(id="j1", at=START, agent="a", serial="00")
    await ledger.add_agent(joined)
    assert await rotations.remove_agent("a")
    assert not await rotations.remove_agent("a")
    assert not await ledger.agent_seen("a", START)
    await ledger.add_agent(replace(joined, id="j2"))
    assert await ledger.agent_seen("a", START)


async def test_live_leaves_of_an_issuer_are_counted_and_some_are_named(rotations: Rotations, ledger: SqlLedger):
    """Intents count, as they may become certificates; the expired, the failed and others' do not."""
    for number in range(SHOWN + 5):
        await leaf(ledger, f"{number:04}", f"w{number:02}", ends=START + HOUR + timedelta(seconds=number))
    await leaf(ledger, "a0", "other", issuer="02")
    await leaf(ledger, "a1", "gone", ends=START + timedelta(seconds=1))
    await leaf(ledger, "a2", "failed")
    await ledger.record_failed("a2", replace(step_event("f1")))
    seen = await rotations.leaves_of("01", START + timedelta(seconds=1), {})
    assert (seen.count, seen.until) == (SHOWN + 5, START + HOUR + timedelta(seconds=SHOWN + 4))
    assert seen.names == tuple(f"w{number:02}" for number in range(SHOWN + 4, 4, -1))  # the last to end comes first
    assert await rotations.leaves_of("03", START, {}) == Leaves()


async def test_leaves_that_a_revocation_ended_are_no_longer_live(rotations: Rotations, ledger: SqlLedger):
    """Nobody depends on them."""
    await leaf(ledger, "a1", "payments")
    assert (await rotations.leaves_of("01", START, {})).count == 1
    await ledger.revoke(["a1"], START, "superseded", [])
    assert await rotations.leaves_of("01", START, {}) == Leaves()


async def test_leaves_from_before_a_moment(rotations: Rotations, ledger: SqlLedger):
    """By the time of the record; the moment itself is after it. What came with the new root all the same is not among them."""
    for serial, seconds in (("a1", 0), ("a2", 10), ("a3", 20)):
        await leaf(ledger, serial, serial, at=START + timedelta(seconds=seconds))
    seen = await rotations.leaves_from_before(START + timedelta(seconds=10), 2, START, {})
    assert seen.names == ("a1",)
    await rotations.note_aware("a1", 2, START + HOUR, START)
    assert await rotations.leaves_from_before(START + timedelta(seconds=10), 2, START, {}) == Leaves()
    assert (await rotations.leaves_from_before(START + timedelta(seconds=10), 3, START, {})).names == ("a1",)


async def test_an_agents_leaf_does_not_count_once_it_was_seen_with_a_newer_one(rotations: Rotations, ledger: SqlLedger):
    """An agent is one holder. Of a workload nobody knows how many there are, so what is said of one changes nothing."""
    later = START + timedelta(minutes=5)
    for serial, name in (("a1", "handfast/agent/edge"), ("a2", "payments")):
        await leaf(ledger, serial, name)
    in_use = {"handfast/agent/edge": later, "payments": later}
    assert (await rotations.leaves_of("01", START, in_use)).names == ("payments",)
    assert (await rotations.leaves_of("01", START, {"handfast/agent/edge": START})).count == 2
    await leaf(ledger, "a3", "handfast/agent/edge", at=later)
    assert (await rotations.leaves_of("01", START, in_use)).count == 3


async def test_a_leaf_that_its_holder_replaced_does_not_count(rotations: Rotations, ledger: SqlLedger):
    """Until it expires; then nothing is kept of it."""
    await leaf(ledger, "a1", "handfast/server")
    await rotations.note_replaced("a1", START + HOUR, START)
    await rotations.note_replaced("a1", START + HOUR, START)
    assert await rotations.leaves_of("01", START, {}) == Leaves()
    assert [serial for serial, _, _ in await rotations.serials_of("01", START)] == ["a1"]
    await rotations.note_replaced("a2", START + 2 * HOUR, START + HOUR)
    assert await rotations._db.fetch("select serial from replaced") == [("a2",)]


async def test_names_that_have_not_renewed_are_found(rotations: Rotations, ledger: SqlLedger):
    """A new certificate counts once it has been there for a while, so that it was delivered."""
    for serial, name, issuer, minutes in (
        ("a1", "renewed", "01", 0), ("a2", "renewed", "02", 1), ("b1", "late", "01", 0), ("b2", "late", "02", 9),
        ("c1", "never", "01", 0),
    ):  # fmt: skip
        await leaf(ledger, serial, name, issuer=issuer, at=START + timedelta(minutes=minutes))
    seen = await rotations.leaves_not_renewed("01", "02", START + timedelta(minutes=5), START)
    assert (seen.count, seen.names) == (2, ("late", "never"))


async def test_who_follows_the_ledger_hears_of_a_step_at_once(db: Database):
    """Its event is told with the next turn of the loop, not with the next event of somebody else."""
    ledger = await SqlLedger.open(db)
    rotations = Rotations(db, ledger)
    assert await rotations.save((), (ONE,), [step_event()])
    assert ledger.event_head.value == 1


async def test_what_goes_with_a_step_is_written_with_it_or_not_at_all(rotations: Rotations, db: Database):
    """Of two servers the slower one writes nothing."""
    also = [step("insert into meta (key, value) values ('a', 'b')")]
    await rotations.save((), (ONE, TWO))
    made = (ONE, replace(TWO, issuer="02", window=ONE.window, root_window=ONE.root_window))
    assert await rotations.save((ONE, TWO), made, (), also)
    assert not await rotations.save((ONE, TWO), made, (), [step("insert into meta (key, value) values ('c', 'd')")])
    assert [key for (key,) in await db.fetch("select key from meta where key in ('a', 'c')")] == ["a"]
