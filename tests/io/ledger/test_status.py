from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from handfast.io.ledger import status as status_module
from handfast.io.ledger.status import Entries, ListKey, StatusTable
from handfast.io.records import CertificateState
from tests.io.ledger.builders import DAY, HOUR, NOW, intent, issue

ISSUER = "5e"
SERIALS = ["4000", "5123", "6abc", "7fff"]  # one in each of four lists


@pytest.fixture
async def table(db: Database) -> StatusTable:
    return StatusTable(db)


def key(shard: int = 0, shards: int = 1) -> ListKey:
    return ListKey(issuer=ISSUER, shard=shard, shards=shards)


async def serials(parts: AsyncIterator[Entries]) -> list[str]:
    return [serial async for part in parts for serial, _, _ in part]


async def revoke(
    ledger: SqlLedger, serial: str, *, at: datetime = NOW, not_after: datetime = NOW + DAY, issuer: str = ISSUER
) -> None:
    await ledger.record_intent(replace(intent(serial), issuer=issuer, not_after=not_after))
    assert await ledger.revoke([serial], at, "superseded", []) == [serial]


async def test_a_standing_is_what_strangers_may_know(ledger: SqlLedger, table: StatusTable):
    """State, issuer, time and reason; what was never recorded is not there."""
    await issue(ledger, "0a")
    await revoke(ledger, "0b")
    found = await table.standing(["0a", "0b", "0c"])
    assert set(found) == {"0a", "0b"}
    assert (found["0a"].state, found["0a"].revoked_at) == (CertificateState.ISSUED, None)
    assert (found["0b"].state, found["0b"].issuer) == (CertificateState.REVOKED, ISSUER)
    assert (found["0b"].revoked_at, found["0b"].reason) == (NOW, "superseded")


async def test_the_number_of_lists_is_kept_for_ever(table: StatusTable):
    """Certificates name their list, so another number is refused, and names what to start with."""
    assert await table.shards(ISSUER) == 1
    assert await table.settle(ISSUER, 4) == 4
    assert await table.settle(ISSUER, 4) == await table.shards(ISSUER) == 4
    with pytest.raises(BadInput) as caught:
        await table.settle(ISSUER, 5)
    assert "--crl-shards 4" in caught.value.hint
    assert await table.shards("other") == 1


async def test_addresses_are_kept_newest_first(table: StatusTable):
    """An address that comes again keeps its place."""
    for age, url in ((3, "http://a"), (2, "http://b"), (1, "http://a")):
        await table.add_url(url, NOW - age * HOUR)
    assert await table.urls() == ["http://b", "http://a"]


@pytest.mark.parametrize("page", [1, 2, 3, 100])
async def test_each_list_holds_its_range_in_the_order_of_serials(
    ledger: SqlLedger, table: StatusTable, monkeypatch: pytest.MonkeyPatch, page: int
):
    """All entries are in exactly one list, also where they are read in many parts."""
    for name in ("_FROM", "_AFTER", "_SINCE"):
        text = getattr(status_module, name)
        monkeypatch.setattr(status_module, name, text.replace(f"limit {status_module.PAGE}", f"limit {page}"))
    for serial in reversed(SERIALS):
        await revoke(ledger, serial)
    await revoke(ledger, "5555", issuer="another")
    await issue(ledger, "5556")
    assert await serials(table.revoked(key(), NOW)) == SERIALS
    assert await serials(table.revoked_since(key(), NOW)) == SERIALS
    assert [await serials(table.revoked(key(at, 4), NOW)) for at in range(4)] == [[one] for one in SERIALS]
    assert [await serials(table.revoked_since(key(at, 4), NOW)) for at in range(4)] == [[one] for one in SERIALS]


async def test_an_entry_says_when_and_why(ledger: SqlLedger, table: StatusTable):
    """In whole seconds since 1970."""
    await revoke(ledger, "4000")
    parts = [part async for part in table.revoked(key(), NOW)]
    assert parts == [[("4000", int(NOW.timestamp()), "superseded")]]


async def test_an_expired_entry_stays_until_a_scheduled_list_has_said_it(ledger: SqlLedger, table: StatusTable):
    """RFC 5280 section 3.3: one list after the certificate's end, and then no more."""
    await revoke(ledger, "4000", not_after=NOW + HOUR)
    await table.scheduled(key(), 1, NOW, window(NOW))
    after = NOW + 2 * HOUR
    assert await serials(table.revoked(key(), after)) == ["4000"]
    await table.scheduled(key(), 2, after, window(after))
    assert await serials(table.revoked(key(), after + HOUR)) == []


async def test_what_expired_before_the_first_list_is_on_none(ledger: SqlLedger, table: StatusTable):
    """It is refused for its end alone."""
    await revoke(ledger, "4000", not_after=NOW + HOUR)
    assert await serials(table.revoked(key(), NOW + 2 * HOUR)) == []


async def test_changes_begin_at_a_moment_and_hold_what_expired_since(ledger: SqlLedger, table: StatusTable):
    """RFC 5280 section 5.2.4: an entry that no complete list has had yet stays among the changes."""
    await revoke(ledger, "4000", at=NOW)
    await revoke(ledger, "4001", at=NOW + HOUR, not_after=NOW + 2 * HOUR)
    assert await serials(table.revoked_since(key(), NOW + timedelta(microseconds=1))) == ["4001"]
    assert await serials(table.revoked_since(key(), NOW)) == ["4000", "4001"]


def window(moment: datetime) -> Window:
    return Window(moment, moment + DAY)


async def test_changes_are_told_against_the_oldest_list_that_counts(table: StatusTable):
    """Whoever holds that one or a later one can apply them."""
    assert await table.base(key(), NOW) is None
    for number, hours in ((3, 0), (7, 12), (9, 30)):
        moment = NOW + hours * HOUR
        await table.scheduled(key(), number, moment, window(moment))
    for hours, number in ((30, 7), (37, 9)):
        found = await table.base(key(), NOW + hours * HOUR)
        assert found is not None
        assert found.number == number
    assert await table.base(key(1, 2), NOW) is None
    assert await table.base(key(), NOW + 60 * HOUR) is None
