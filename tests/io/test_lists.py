from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.refusal import Unavailable
from handfast.base.windows import whole_second
from handfast.io import lists as lists_module
from handfast.io.lists import CHANGES_EVERY, CHANGES_LIFE, LIST_EVERY, LIST_LIFE, RevocationLists
from handfast.trust.addresses import crl_path, delta_path, shard_of
from tests.io.status_parts import Parts, parts
from tests.support.ledger import FaultySigner, Seams


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts(tmp_path) as made:
        yield made


def read(lists: RevocationLists, path: str) -> x509.CertificateRevocationList:
    """Read a list as it would be served, and check its signature."""
    found = lists.published[path]
    data = found.file.read_bytes()
    assert len(data) == found.size
    listed = x509.load_der_x509_crl(data)
    issuing = x509.load_der_x509_certificate(lists.authority.issuing_der)
    assert listed.is_signature_valid(issuing.public_key())  # type: ignore[arg-type]
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == found.number
    return listed


def complete(lists: RevocationLists, shard: int = 0) -> x509.CertificateRevocationList:
    return read(lists, crl_path(lists.authority.issuer_facts.key_id.hex(), shard))


def changes(lists: RevocationLists, shard: int = 0) -> x509.CertificateRevocationList:
    return read(lists, delta_path(lists.authority.issuer_facts.key_id.hex(), shard))


def serials(listed: x509.CertificateRevocationList) -> list[str]:
    return [f"{one.serial_number:040x}" for one in listed]


async def test_an_empty_list_is_made_at_once(here: Parts):
    """It counts for a day, from a minute ago, and names where its changes are."""
    lists = here.lists()
    await lists.refresh()
    listed, now = complete(lists), whole_second(here.clock.now())
    assert serials(listed) == []
    assert (listed.last_update_utc, listed.next_update_utc) == (now - timedelta(seconds=60), now + LIST_LIFE)
    (freshest,) = listed.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert freshest.full_name
    assert freshest.full_name[0].value == f"http://s{delta_path(lists.authority.issuer_facts.key_id.hex(), 0)}"
    kinds = {type(one.value) for one in listed.extensions}
    assert kinds == {x509.AuthorityKeyIdentifier, x509.CRLNumber, x509.FreshestCRL}


async def test_what_is_revoked_is_on_the_next_list(here: Parts):
    """With its time and reason, in the complete list and among the changes; numbers grow."""
    lists, issued = here.lists(), await here.issue()
    await lists.refresh()
    before = complete(lists)
    await here.revoke(issued.serial)
    await lists.refresh()
    (entry,) = listed = complete(lists)
    assert f"{entry.serial_number:040x}" == issued.serial
    assert entry.revocation_date_utc == whole_second(here.clock.now())
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.superseded
    assert serials(changes(lists)) == [issued.serial]
    numbers = [
        one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for one in (before, listed, changes(lists))
    ]
    assert numbers == sorted(set(numbers))


async def test_changes_are_told_against_a_list_that_was_made_on_schedule(here: Parts):
    """RFC 5280 section 5.2.4: the base is one that others may still hold, and the extension is critical."""
    lists = here.lists()
    await lists.refresh()
    base = complete(lists).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    await here.revoke((await here.issue()).serial)
    await lists.refresh()
    indicator = changes(lists).extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    assert (indicator.critical, indicator.value.crl_number) == (True, base)
    assert changes(lists).next_update_utc == whole_second(here.clock.now()) + CHANGES_LIFE
    with pytest.raises(x509.ExtensionNotFound):
        changes(lists).extensions.get_extension_for_class(x509.FreshestCRL)


async def test_nothing_is_made_while_nothing_changes(here: Parts):
    """Until the changes are due, and then the list itself."""
    lists = here.lists()
    await lists.refresh()
    first = dict(lists.published)
    assert lists.due() == here.clock.now() + CHANGES_EVERY
    await lists.refresh()
    assert lists.published == first
    await here.clock.advance(CHANGES_EVERY.total_seconds())
    await lists.refresh()
    changed = {path for path, found in lists.published.items() if first[path] != found}
    assert changed == {delta_path(lists.authority.issuer_facts.key_id.hex(), 0)}
    here.clock.set(here.clock.now() + LIST_EVERY - CHANGES_EVERY)
    await lists.refresh()
    assert {path for path, found in lists.published.items() if first[path] != found} == set(first)


async def test_an_expired_certificate_leaves_after_one_more_list(here: Parts):
    """RFC 5280 section 3.3; a list that was made for another revocation does not count as that one."""
    lists = here.lists()
    short, other = await here.issue(ttl=timedelta(hours=1)), await here.issue()
    await lists.refresh()
    await here.revoke(short.serial)
    await lists.refresh()
    here.clock.set(here.clock.now() + timedelta(hours=2))
    await here.revoke(other.serial)
    await lists.refresh()
    assert set(serials(complete(lists))) == {short.serial, other.serial}
    here.clock.set(here.clock.now() + LIST_EVERY)
    await lists.refresh()
    assert set(serials(complete(lists))) == {short.serial, other.serial}
    here.clock.set(here.clock.now() + LIST_EVERY)
    await lists.refresh()
    assert serials(complete(lists)) == [other.serial]


async def test_a_shard_says_which_one_it_is_and_holds_its_own(here: Parts):
    """Critical, with every address that certificates were given; a revocation touches its own shard alone."""
    lists = here.lists(4, ("http://new", "http://old"))
    issued = [await here.issue() for _ in range(8)]
    await lists.refresh()
    first = dict(lists.published)
    await here.revoke(issued[0].serial)
    await lists.refresh()
    issuer, shard = lists.authority.issuer_facts.key_id.hex(), shard_of(issued[0].serial, 4)
    touched = {path for path, found in lists.published.items() if first[path] != found}
    assert touched == {crl_path(issuer, shard), delta_path(issuer, shard)}
    for one in issued[1:]:
        await here.revoke(one.serial)
    await lists.refresh()
    for at in range(4):
        wanted = {one.serial for one in issued if shard_of(one.serial, 4) == at}
        assert set(serials(complete(lists, at))) == set(serials(changes(lists, at))) == wanted
        for listed in (complete(lists, at), changes(lists, at)):
            place = listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
            urls = [name.value for name in place.value.full_name or ()]
            assert place.critical
            assert urls == [f"{url}{crl_path(issuer, at)}" for url in ("http://new", "http://old")]


async def test_without_an_address_there_are_no_changes(here: Parts):
    """Nobody could find them, and nothing names them."""
    lists = here.lists(urls=())
    await lists.refresh()
    await here.revoke((await here.issue()).serial)
    await lists.refresh()
    assert list(lists.published) == [crl_path(lists.authority.issuer_facts.key_id.hex(), 0)]
    assert len(complete(lists)) == 1
    assert len(list(complete(lists).extensions)) == 2


async def test_a_long_list_rests_while_its_changes_go_on(here: Parts):
    """What took long is not made again at each revocation; the changes say it at once."""
    lists, issued = here.lists(), await here.issue()
    lists.stopwatch = count(step=600).__next__
    await lists.refresh()
    await here.revoke(issued.serial)
    await lists.refresh()
    assert (serials(complete(lists)), serials(changes(lists))) == ([], [issued.serial])
    here.clock.set(here.clock.now() + LIST_EVERY)
    await lists.refresh()
    assert serials(complete(lists)) == [issued.serial]


async def test_a_signature_of_another_key_is_not_published(here: Parts):
    """What was published stays."""
    lists = here.lists()
    await lists.refresh()
    first = dict(lists.published)
    spoilt = FaultySigner(here.authority.signer, Seams(), spoil_message=lambda message: message + b"x")
    lists.authority = replace(here.authority, signer=spoilt)
    await here.revoke((await here.issue()).serial)
    with pytest.raises(Unavailable, match="signature"):
        await lists.refresh()
    assert lists.published == first
    lists.authority = here.authority
    await lists.refresh()
    assert len(complete(lists)) == 1


async def test_the_list_before_is_removed(here: Parts):
    """No file is left of what nobody serves any more, and none that others can write."""
    lists = here.lists()
    for _ in range(3):
        await lists.refresh()
        await here.revoke((await here.issue()).serial)
    await lists.refresh()
    assert {path.name for path in here.directory.glob("*.crl")} == {one.file.name for one in lists.published.values()}
    assert not list(here.directory.glob("tmp*"))


async def test_others_get_their_turn_while_a_list_is_made(here: Parts, monkeypatch: pytest.MonkeyPatch):
    """A list is read in parts, and the loop runs between two of them."""
    lists, turns = here.lists(), 0

    async def many(*_: object) -> AsyncIterator[list[tuple[str, int, str]]]:
        for at in range(200):
            yield [(f"{0x4000 + at:04x}", 0, "unspecified")]

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(type(lists.table), "revoked", many)
    counting = asyncio.create_task(count())
    await lists.refresh()
    counting.cancel()
    assert len(complete(lists)) == 200
    assert turns >= 200


async def test_the_loop_has_no_part_in_writing_a_list(here: Parts, monkeypatch: pytest.MonkeyPatch):
    """A list may have a million entries: they are written, put together and signed elsewhere."""
    threads = dict[str, set[int]]()

    def elsewhere(name: str) -> None:
        inner = getattr(lists_module, name)
        seen = threads.setdefault(name, set())
        monkeypatch.setattr(lists_module, name, lambda *given: (seen.add(threading.get_ident()), inner(*given))[1])

    for name in ("entry", "around", "verify"):
        elsewhere(name)
    lists = here.lists()
    await here.revoke((await here.issue()).serial)
    await lists.refresh()
    assert len(complete(lists)) == 1
    for seen in threads.values():
        assert seen
        assert threading.get_ident() not in seen
