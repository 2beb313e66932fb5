"""The lists that strangers fetch, as two servers over one ledger serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.io.database import step
from handfast.io.ledger.lists import SharedLists
from handfast.io.lists import CHANGES_EVERY, LATE, LIST_EVERY, LIST_LIFE, LOOK_EVERY, RevocationLists
from handfast.trust.addresses import crl_path, delta_path
from tests.io.status_parts import Parts, parts

MOMENT = timedelta(seconds=1)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Parts]:
    """Give an authority with its ledger."""
    async with parts(tmp_path) as made:
        yield made


def server(here: Parts, name: str, shards: int = 1) -> RevocationLists:
    (here.directory / name).mkdir()
    lists = here.lists(shards)
    return replace(
        lists,
        directory=here.directory / name,
        shared=SharedLists(here.database),
        revision=lambda: here.ledger.changes.value,
        _state=[],
        published={},
    )


def served(lists: RevocationLists) -> dict[str, tuple[bytes, str, int]]:
    """Give all that a server serves: octets, ETag and number, by path."""
    return {path: (one.file.read_bytes(), one.etag, one.number) for path, one in lists.published.items()}


def serials(lists: RevocationLists, path: str) -> set[str]:
    listed = x509.load_der_x509_crl(lists.published[path].file.read_bytes())
    return {f"{one.serial_number:040x}" for one in listed}


def paths(here: Parts) -> tuple[str, str]:
    key_id = here.authority.issuer_facts.key_id.hex()
    return crl_path(key_id, 0), delta_path(key_id, 0)


async def refreshed(*servers: RevocationLists) -> None:
    for one in servers:
        await one.refresh()


async def test_two_servers_serve_the_same_octets(here: Parts):
    """From the start on, and after a revocation that either hears of first: lists, ETags, numbers."""
    one, other = server(here, "one"), server(here, "other")
    await refreshed(one, other)
    assert served(one) == served(other)
    assert served(one).keys() == set(paths(here))
    for first, second in ((one, other), (other, one)):
        issued = await here.issue()
        await here.revoke(issued.serial)
        await refreshed(first, second, first)
        assert served(first) == served(second)
        assert issued.serial in serials(second, paths(here)[0]) & serials(second, paths(here)[1])


async def test_of_two_that_sign_at_once_one_wins(here: Parts):
    """Both saw that something was revoked, and both have signed: the second serves the first one's, with the lower number."""
    one, other = server(here, "one"), server(here, "other")
    await refreshed(one, other)
    for first, second in ((one, other), (other, one)):
        await here.revoke((await here.issue()).serial)
        await _between(second, first)
        assert served(one) == served(other)


async def _between(slow: RevocationLists, quick: RevocationLists) -> None:
    """Let one find out what to do, and sign only after the other has done it."""
    next_number = slow.next_number

    async def late() -> int:
        slow.next_number = next_number
        await quick.refresh()
        return await next_number()

    slow.next_number = late
    await slow.refresh()
    assert slow.next_number is next_number


async def test_each_shard_is_shared_by_itself(here: Parts):
    """What is revoked in one is no reason to sign the others."""
    one, other = server(here, "one", shards=4), server(here, "other", shards=4)
    await refreshed(one, other)
    before = served(other)
    here.clock.set(here.clock.now() + LATE + MOMENT)
    await refreshed(one, other)
    issued = await here.issue()
    await here.revoke(issued.serial)
    await refreshed(one, other)
    assert served(one) == served(other)
    changed = {path for path, found in served(one).items() if found != before[path] and "delta" not in path}
    assert len(changed) == 1


async def test_a_server_that_starts_later_serves_what_there_is(here: Parts):
    """It signs nothing, unless something was revoked since."""
    one = server(here, "one")
    await one.refresh()
    late = server(here, "late")
    await late.refresh()
    assert served(late) == served(one)
    issued = await here.issue()
    await here.revoke(issued.serial)
    later = server(here, "later")
    await later.refresh()
    assert issued.serial in serials(later, paths(here)[0])
    await one.refresh()
    assert served(one) == served(later)


async def test_one_of_them_makes_the_next_on_schedule(here: Parts):
    """Each six hours one complete list, and each twenty minutes one of changes; the ledger remembers each schedule once."""
    one, other = server(here, "one"), server(here, "other")
    await refreshed(one, other)
    for every, path in ((CHANGES_EVERY, paths(here)[1]), (LIST_EVERY, paths(here)[0])):
        before = one.published[path].number
        here.clock.set(here.clock.now() + every)
        await refreshed(other, one)
        assert served(one) == served(other)
        assert one.published[path].number > before
    ((count,),) = await here.database.fetch("select count(*) from status_lists")
    assert count == 2


async def test_revocations_all_day_do_not_keep_the_schedule_from_being_kept(here: Parts):
    """A list that is always young would never be one that was scheduled, and expired entries would stay for ever."""
    one, other = server(here, "one"), server(here, "other")
    for _ in range(14):
        await here.revoke((await here.issue()).serial)
        await refreshed(one, other, one)
        assert served(one) == served(other)
        here.clock.set(here.clock.now() + timedelta(hours=1))
    rows = await here.database.fetch("select made_at from status_lists order by made_at")
    assert len(rows) == 3


async def test_a_server_looks_every_few_seconds(here: Parts):
    """So it has what another one signed also where nobody told it."""
    one, other = server(here, "one"), server(here, "other")
    await refreshed(one, other)
    assert one.due() <= here.clock.now() + LOOK_EVERY


@pytest.mark.parametrize(
    "spoil",
    [
        "update shared_lists set content = $1",
        "update shared_lists set number = number + 1000, content = $1",
        "update shared_lists set number = number + 1000, revision = 1000, scheduled_at = scheduled_at + 360000000000, content = $1",
    ],
)
async def test_what_the_issuer_did_not_sign_is_not_served(here: Parts, spoil: str):
    """Whoever writes the database can keep servers from agreeing, and not from saying what is revoked."""
    one = server(here, "one")
    await one.refresh()
    issued = await here.issue()
    await here.revoke(issued.serial)
    await here.database.write(step(spoil, b"\x30\x00"))
    other = server(here, "other")
    await refreshed(one, other)
    for path in paths(here):
        assert issued.serial in serials(one, path) & serials(other, path)


async def test_a_list_of_changes_is_not_taken_for_a_complete_one(here: Parts):
    """Both are the issuer's; one in the other's place would take back what was revoked."""
    one = server(here, "one")
    issued = await here.issue()
    await here.revoke(issued.serial)
    await one.refresh()
    here.clock.set(here.clock.now() + timedelta(days=30))
    await here.database.write(step("delete from status_lists"))
    complete, changes = paths(here)
    await one.refresh()
    swap = """update shared_lists set content = (select content from shared_lists where path = $1),
        number = (select number from shared_lists where path = $1) where path = $2"""
    await here.database.write(step(swap, changes, complete))
    other = server(here, "other")
    await other.refresh()
    listed = x509.load_der_x509_crl(other.published[complete].file.read_bytes())
    assert not [found for found in listed.extensions if isinstance(found.value, x509.DeltaCRLIndicator)]


async def test_a_list_that_has_ended_is_not_served_again(here: Parts):
    """After days without any server the next one signs its own."""
    one = server(here, "one")
    await one.refresh()
    here.clock.set(here.clock.now() + LIST_LIFE + MOMENT)
    late = server(here, "late")
    await late.refresh()
    assert late.published[paths(here)[0]].number > one.published[paths(here)[0]].number
    assert late.published[paths(here)[0]].window.contains(here.clock.now())


async def test_a_list_that_is_too_long_is_each_servers_own(here: Parts, monkeypatch: pytest.MonkeyPatch):
    """The ledger is not filled with it, and everybody serves one."""
    monkeypatch.setattr("handfast.io.lists.MAX_BYTES", 10)
    one, other = server(here, "one"), server(here, "other")
    await refreshed(one, other)
    assert await here.database.fetch("select path from shared_lists") == []
    assert served(one).keys() == served(other).keys() == set(paths(here))
