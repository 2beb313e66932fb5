"""The slice that agents get, while several want it anew at once."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509

from handfast.access.slice import Slice, parse_slice
from handfast.app.server.messages import RevocationAnswer, RevocationRequest
from handfast.app.server.slices import OLD, PATIENCE_S, PROMPT_S
from handfast.base.refusal import Unavailable
from handfast.io.authorities import Authority
from handfast.io.slice_lists import SliceLists
from handfast.trust.revocation import RevocationReason, Revoked
from tests.app.sites import WORLD, Site, site
from tests.support.clock import FakeClock


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a server on a clock that stands."""
    async with site(tmp_path, FakeClock()) as made:
        yield made


async def test_a_slow_list_does_not_bring_back_what_was(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A slice that was begun before an apply is not published after the one with that apply."""
    slices, ledger = here.server.platform.slices, here.server.platform.ledger
    await here.apply()
    serial = (await here.issue("payments")).leaf.serial
    began, go_on, inner, seen = asyncio.Event(), asyncio.Event(), SliceLists.list_of, list[int]()

    async def slow(
        self: SliceLists, issuer: Authority, revoked: Iterable[Revoked], revision: int, now: datetime
    ) -> str:
        if not began.is_set():
            began.set()
            await go_on.wait()
        return await inner(self, issuer, revoked, revision, now)

    async def watch() -> None:
        async for prepared in slices.current.subscribe():
            if prepared:
                seen.append(parse_slice(prepared.body).revision)

    monkeypatch.setattr(SliceLists, "list_of", slow)
    watching = asyncio.create_task(watch())
    await ledger.revoke([serial], here.clock.now(), RevocationReason.SUPERSEDED.value, [])
    await began.wait()
    applying = asyncio.create_task(here.apply(WORLD.replace("9000", "9001")))
    await asyncio.sleep(0.2)
    go_on.set()
    await applying
    await asyncio.sleep(0.2)
    watching.cancel()
    assert seen[-1] == 2
    assert seen == sorted(seen)


def current(here: Site) -> Slice:
    prepared = here.server.platform.slices.current.value
    assert prepared
    return parse_slice(prepared.body)


def listed(here: Site) -> int:
    """Count what the issuing authority's list has."""
    return sum(len(x509.load_pem_x509_crl(text.encode())) for text in current(here).crls)


async def test_a_revocation_waits_for_no_list_of_another(here: Site, monkeypatch: pytest.MonkeyPatch):
    """One after the other is denied while the key hangs; the last list, once the key is back, has them all."""
    held, back = [(await here.issue(f"w{n}")).leaf for n in range(3)], asyncio.Event()
    sign = Authority.crl

    async def away(self: Authority, revoked: Iterable[Revoked], number: int, now: datetime) -> str:
        await back.wait()
        return await sign(self, revoked, number, now)

    monkeypatch.setattr(Authority, "crl", away)
    revoking = []
    for leaf in held:
        asked = RevocationRequest(serial=leaf.serial)
        revoking.append(asyncio.create_task(here.operator.call("POST", "/v1/revocations", RevocationAnswer, asked)))
        async with asyncio.timeout(PATIENCE_S / 2):
            while leaf.fingerprint not in current(here).denied:
                await asyncio.sleep(0.01)
        assert listed(here) == 0
    back.set()
    late = [answer.late for answer in await asyncio.gather(*revoking)]
    assert late[-1] == ""
    assert set(late) <= {"", "another change came before"}
    assert listed(here) == 3


async def test_what_gateways_do_not_have_is_not_answered_as_done(here: Site, monkeypatch: pytest.MonkeyPatch):
    """That only lists are late is one thing; that nobody was told yet is an error, though the ledger has it."""
    leaf, ledger = (await here.issue("payments")).leaf, here.server.platform.ledger
    inner = type(ledger).revoked_live

    def away(*_: object) -> AsyncIterator[object]:
        raise Unavailable("the ledger is away")

    monkeypatch.setattr(type(ledger), "revoked_live", away)
    with pytest.raises(Unavailable, match="gateways do not have it yet: the ledger is away"):
        await here.operator.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=leaf.serial))
    assert leaf.fingerprint not in current(here).denied
    monkeypatch.setattr(type(ledger), "revoked_live", inner)
    await here.clock.advance(60)
    async with asyncio.timeout(5):
        while leaf.fingerprint not in current(here).denied:
            await asyncio.sleep(0.01)


async def test_lists_that_grow_old_give_way_to_nothing(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Gateways would refuse everybody once a list has ended, however many revocations came before the next one was made."""
    platform, began, back = here.server.platform, asyncio.Event(), asyncio.Event()
    old, new = [(await here.issue(f"w{n}")).leaf for n in range(2)]
    await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=old.serial))
    here.clock.set(here.clock.now() + OLD)
    sign = Authority.crl

    async def slow(self: Authority, revoked: Iterable[Revoked], number: int, now: datetime) -> str:
        began.set()
        await back.wait()
        return await sign(self, revoked, number, now)

    monkeypatch.setattr(Authority, "crl", slow)
    refreshing = asyncio.create_task(platform.slices.refresh())
    await began.wait()
    await asyncio.sleep(2 * PROMPT_S)
    revoking = asyncio.create_task(
        here.operator.call("POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=new.serial))
    )
    await asyncio.sleep(2 * PROMPT_S)
    assert not refreshing.done()
    back.set()
    assert await refreshing
    assert (await revoking).late == ""


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("before", [0, 1])
async def test_a_key_that_cannot_be_used_holds_no_revocation_up(
    here: Site, monkeypatch: pytest.MonkeyPatch, hangs: bool, before: int
):
    """Gateways refuse by fingerprint, without a list: the old one does until the key is back, and then comes the new one."""
    for _ in range(before):
        await here.operator.call(
            "POST", "/v1/revocations", RevocationAnswer, RevocationRequest(serial=(await here.issue("old")).leaf.serial)
        )
    leaf, back = (await here.issue("payments")).leaf, asyncio.Event()
    sign = Authority.crl

    async def away(self: Authority, revoked: Iterable[Revoked], number: int, now: datetime) -> str:
        if hangs:
            await back.wait()
        if not back.is_set():
            raise Unavailable("the token is away")
        return await sign(self, revoked, number, now)

    monkeypatch.setattr(Authority, "crl", away)
    monkeypatch.setattr("handfast.app.server.slices.PATIENCE_S", 0.4)
    asked = RevocationRequest(serial=leaf.serial)
    revoking = asyncio.create_task(here.operator.call("POST", "/v1/revocations", RevocationAnswer, asked))
    async with asyncio.timeout(5):
        while leaf.fingerprint not in current(here).denied:
            await asyncio.sleep(0.01)
    assert listed(here) == before
    if not hangs:
        back.set()
    answer = await revoking
    assert [one.serial for one in answer.revoked] == [leaf.serial]
    assert answer.late == ("it takes longer than 0.4 s" if hangs else "the token is away")
    back.set()
    await here.clock.advance(60)
    async with asyncio.timeout(5):
        while listed(here) != before + 1:
            await asyncio.sleep(0.01)


async def test_a_server_stops_while_its_work_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A failure at the moment of the end keeps no server alive: each piece of its work hears that it is over."""

    async def away(*_: object) -> str:
        raise Unavailable("the token is away")

    monkeypatch.setattr(Authority, "crl", away)
    for attempt in range(8):  # what is due at that moment differs from time to time
        async with asyncio.timeout(15), site(tmp_path / str(attempt), FakeClock()) as here:
            await here.issue("payments")
            body = RevocationRequest(name="payments", reason="superseded")
            assert (await here.operator.call("POST", "/v1/revocations", RevocationAnswer, body)).late
