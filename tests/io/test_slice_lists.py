"""The lists in slices, as two servers over one ledger make them."""

import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.windows import to_unix
from handfast.io import slice_lists
from handfast.io.database import step
from handfast.io.ledger.lists import SharedLists
from handfast.io.slice_lists import ANEW, KEPT, PREFIX, SliceLists
from handfast.trust.revocation import Entry, RevocationReason
from tests.io.status_parts import Parts, parts

MOMENT = timedelta(seconds=1)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Parts]:
    """Give an authority with its ledger."""
    async with parts(tmp_path) as made:
        yield made


def server(here: Parts, *, alone: bool = False) -> SliceLists:
    shared = None if alone else SharedLists(here.database)
    return SliceLists(lambda: here.ledger.next_counter("crl"), shared)


def revoked(here: Parts, *serials: str) -> list[Entry]:
    return [(one, to_unix(here.clock.now()), RevocationReason.SUPERSEDED.value) for one in serials]


async def listed(lists: SliceLists, here: Parts, *serials: str, revision: int = 1) -> str:
    return await lists.list_of(here.authority, revoked(here, *serials), revision, here.clock.now())


def serials(text: str) -> set[str]:
    return {f"{one.serial_number:040x}" for one in x509.load_pem_x509_crl(text.encode())}


ONE, TWO = "0a" * 20, "0b" * 20


@pytest.mark.parametrize("alone", [True, False])
async def test_a_list_is_signed_once_a_revision(here: Parts, alone: bool):
    """Again and again the same octets; anew with what is revoked next."""
    lists = server(here, alone=alone)
    first = await listed(lists, here, ONE)
    assert await listed(lists, here, ONE) == first
    second = await listed(lists, here, ONE, TWO, revision=2)
    assert serials(first) == {ONE}
    assert serials(second) == {ONE, TWO}


async def test_all_servers_have_the_one_that_came_first(here: Parts):
    """Also one that starts later, and one that does not know of the newest revocation yet."""
    one, other = server(here), server(here)
    first = await listed(one, here, ONE)
    assert await listed(other, here, ONE) == first
    newest = await listed(other, here, ONE, TWO, revision=2)
    assert await listed(server(here), here, ONE) == newest
    assert await listed(one, here, ONE, TWO, revision=2) == newest


async def test_of_two_that_sign_at_once_one_wins(here: Parts, monkeypatch: pytest.MonkeyPatch):
    """Both saw that there is none, and both signed: the second serves the first one's."""
    one, other = server(here), server(here)
    look, looked = SliceLists._look, []

    async def late(self: SliceLists, *args: object) -> None:
        if not looked:
            looked.append(await listed(one, here, ONE))  # it comes in between, after the look
            return
        await look(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(other.__class__, "_look", lambda self, *args: (late if self is other else look)(self, *args))
    assert await listed(other, here, ONE) == looked[0]


async def test_a_list_is_made_anew_by_the_hour_by_one(here: Parts):
    """Its number grows, and both have the new one."""
    one, other = server(here), server(here)
    first = await listed(one, here, ONE)
    here.clock.set(here.clock.now() + ANEW - MOMENT)
    assert await listed(other, here, ONE) == first
    here.clock.set(here.clock.now() + MOMENT)
    second = await listed(other, here, ONE)
    assert second != first
    assert await listed(one, here, ONE) == second


@pytest.mark.parametrize(
    "spoil", ["update shared_lists set content = $1", "update shared_lists set number = 99, content = $1"]
)
async def test_what_the_issuer_did_not_sign_is_not_given_out(here: Parts, spoil: str):
    """A server that finds rubbish in the ledger serves its own."""
    await listed(server(here), here, ONE)
    await here.database.write(step(spoil, b"-----BEGIN X509 CRL-----"))
    assert serials(await listed(server(here), here, ONE, TWO, revision=2)) == {ONE, TWO}


async def test_the_ledger_does_not_keep_the_lists_of_who_is_over(here: Parts):
    """What nobody made anew for two days goes."""
    await listed(server(here), here, ONE)
    await here.database.write(step("update shared_lists set path = 'slice/gone'"))
    here.clock.set(here.clock.now() + KEPT + MOMENT)
    await listed(server(here), here, ONE, revision=2)
    (path,) = await SharedLists(here.database).heads(PREFIX)
    assert path == PREFIX + here.authority.issuer_facts.key_id.hex()


async def test_a_long_list_is_read_back_in_a_thread(here: Parts, monkeypatch: pytest.MonkeyPatch):
    """What another server signed; a short one is read at once."""
    threads, inner = list[int](), slice_lists._is_good
    monkeypatch.setattr(
        slice_lists, "_is_good", lambda *given: (threads.append(threading.get_ident()), inner(*given))[1]
    )
    many = [f"{number:040x}" for number in range(6000)]
    for revision, all_of_them in ((1, many[:10]), (2, many)):
        text = await listed(server(here), here, *all_of_them, revision=revision)
        assert await listed(server(here), here, revision=revision) == text
    assert threads[0] == threading.get_ident() != threads[-1]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_list_of_the_future_is_not_given(here: Parts, alone: bool):
    """Where the clock was set back, a list of before does not count yet, and every client would be refused with it."""
    lists, day = server(here, alone=alone), timedelta(days=1)
    right = here.clock.now()
    here.clock.set(right + day)
    await listed(lists, here, ONE)
    here.clock.set(right)
    given = x509.load_pem_x509_crl((await listed(lists, here, ONE)).encode())
    assert given.last_update_utc <= right
