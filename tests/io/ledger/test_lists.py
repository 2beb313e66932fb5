from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from handfast.io.database import Database
from handfast.io.ledger.lists import ListHead, SharedLists
from tests.support.clock import START

HOUR = timedelta(hours=1)
HEAD = ListHead(path="/crl/aa/0.crl", number=10, revision=5, made_at=START, scheduled_at=START)
NEVER = START - 1000 * HOUR


@pytest.fixture
def lists(db: Database) -> SharedLists:
    """Give the lists of an empty ledger."""
    return SharedLists(db)


async def kept(lists: SharedLists, path: str = HEAD.path) -> tuple[ListHead, bytes | None]:
    head = (await lists.heads(path))[path]
    return head, await lists.content(head)


async def test_the_first_list_of_a_revision_counts(lists: SharedLists):
    """Who comes second is told, and finds the other's."""
    assert await lists.offer(HEAD, b"first", NEVER)
    assert not await lists.offer(replace(HEAD, number=11), b"second", NEVER)
    assert await kept(lists) == (HEAD, b"first")


async def test_a_list_that_knows_more_takes_its_place(lists: SharedLists):
    """Not so one that knows less, or has a lower number: numbers do not go back. When one was scheduled last is remembered."""
    await lists.offer(HEAD, b"first", NEVER)
    later = replace(HEAD, number=12, revision=6, made_at=START + HOUR, scheduled_at=START - HOUR)
    assert await lists.offer(later, b"more", NEVER)
    assert await kept(lists) == (replace(later, scheduled_at=START), b"more")
    assert not await lists.offer(replace(later, number=11, revision=7), b"lower", NEVER)
    assert not await lists.offer(replace(later, number=13, revision=5), b"less", NEVER)
    assert (await kept(lists))[1] == b"more"


async def test_a_list_that_is_due_takes_its_place_once(lists: SharedLists):
    """Of two servers that both find it due, one makes it."""
    await lists.offer(HEAD, b"first", NEVER)
    due = START + 3 * HOUR
    for number, counts in ((11, True), (12, False)):
        anew = replace(HEAD, number=number, made_at=START + 6 * HOUR, scheduled_at=START + 6 * HOUR)
        assert await lists.offer(anew, str(number).encode(), due) == counts
    assert (await kept(lists))[1] == b"11"


async def test_lists_are_found_by_the_beginning_of_their_path(lists: SharedLists):
    """Those of one issuer, all shards and changes; and none of another."""
    paths = ["/crl/aa/0.crl", "/crl/aa/0-delta.crl", "/crl/aa/11.crl", "/crl/ab/0.crl", "slice/aa"]
    for path in paths:
        await lists.offer(replace(HEAD, path=path), b"", NEVER)
    assert (await lists.heads("/crl/aa/")).keys() == set(paths[:3])
    assert (await lists.heads("slice/aa")).keys() == {"slice/aa"}


async def test_octets_are_those_of_the_number_that_was_asked_for(lists: SharedLists):
    """Where another one took its place meanwhile, there are none."""
    await lists.offer(HEAD, bytes(range(256)), NEVER)
    assert await lists.content(HEAD) == bytes(range(256))
    await lists.offer(replace(HEAD, number=11, revision=6), b"", NEVER)
    assert await lists.content(HEAD) is None


@pytest.mark.parametrize(("before", "left"), [(START, 1), (START + HOUR, 0)])
async def test_old_lists_are_forgotten(lists: SharedLists, before: datetime, left: int):
    """Those of an issuer that is over are never made anew."""
    await lists.offer(HEAD, b"", NEVER)
    await lists.forget(before)
    assert len(await lists.heads("/crl/")) == left
