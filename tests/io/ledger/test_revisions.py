import asyncio
import hashlib

import pytest

from handfast.base.refusal import BadInput
from handfast.io.ledger import Revision, SqlLedger
from handfast.io.ledger.revisions import MAX_DOCUMENT_BYTES
from tests.io.ledger.builders import NOW, applied


async def apply(ledger: SqlLedger, document: str, event_id: str = "") -> int:
    """Apply a document under its own digest."""
    digest = hashlib.sha256(document.encode()).hexdigest()
    event = applied(digest, id=event_id or f"applied-{digest[:8]}")
    return await ledger.apply(document, digest, "operator/ann", NOW, event)


async def test_a_revision_is_kept_as_it_was_written(ledger: SqlLedger):
    """Document, digest, time and requester come back, with a number and an event that has it."""
    document = "# who may come\ntrust_domain: example.org  # ü\n"
    assert await ledger.latest_revision() is None
    assert await apply(ledger, document, "e1") == 1
    digest = hashlib.sha256(document.encode()).hexdigest()
    wanted = Revision(number=1, digest=digest, document=document, applied_at=NOW, requester="operator/ann")
    assert await ledger.latest_revision() == await ledger.revision(1) == wanted
    assert await ledger.event("e1") == applied(digest, id="e1", revision=1)
    assert await ledger.revision(2) is None


async def test_applying_the_same_again_is_a_no_op(ledger: SqlLedger):
    """The latest digest again gives the latest number, no event, and wakes nobody."""
    await apply(ledger, "one")
    generation, head = ledger.changes.value, ledger.event_head.value
    assert await apply(ledger, "one", "again") == 1
    assert (ledger.changes.value, ledger.event_head.value) == (generation, head)


async def test_an_older_document_comes_back_as_a_new_revision(ledger: SqlLedger):
    """Going back is a step forward: history is not rewritten."""
    numbers = [await apply(ledger, text, f"e{turn}") for turn, text in enumerate(["one", "two", "one"])]
    assert numbers == [1, 2, 3]
    kept = [await ledger.revision(number) for number in numbers]
    assert [one.document for one in kept if one] == ["one", "two", "one"]
    assert [
        (one.number, one.digest, one.applied_at, one.requester) for one in reversed(kept) if one
    ] == await ledger.applied()
    assert [one.number for one in await ledger.applied(limit=1, before=3)] == [2]
    assert await ledger.applied(before=0) == []


async def test_revisions_applied_at_the_same_time_get_numbers_without_a_gap(ledger: SqlLedger):
    """Each gets its own number, and its event says the same number."""
    numbers = await asyncio.gather(*(apply(ledger, f"world {number}") for number in range(8)))
    assert sorted(numbers) == list(range(1, 9))
    told = {event.digest: event.revision for _, event in await ledger.page(kinds=["world.applied"])}  # type: ignore[attr-defined]
    assert told == {one.digest: one.number for one in await ledger.applied()}


async def test_the_same_document_applied_at_the_same_time_is_one_revision(ledger: SqlLedger):
    """Two operators who press the button together make one revision."""
    assert await asyncio.gather(*(apply(ledger, "one", f"e{turn}") for turn in range(4))) == [1] * 4
    assert len(await ledger.page()) == 1


async def test_a_document_is_bounded(ledger: SqlLedger):
    """A world of more than 4 MiB, or with a digest that is none, is not kept."""
    with pytest.raises(BadInput):
        await apply(ledger, "x" * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(BadInput):
        await ledger.apply("{}", "nonsense", "test", NOW, applied("nonsense"))
    assert await ledger.applied() == []
