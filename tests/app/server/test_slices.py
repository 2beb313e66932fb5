"""The slice that agents get, while several want it anew at once."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509

from handfast.access.slice import Slice, parse_slice
from handfast.app.server.messages import RevocationAnswer, RevocationRequest
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
    asked = RevocationRequest(serial=leaf.serial)
    revoking = asyncio.create_task(here.operator.call("POST", "/v1/revocations", RevocationAnswer, asked))
    async with asyncio.timeout(5):
        while leaf.fingerprint not in current(here).denied:
            await asyncio.sleep(0.01)
    assert listed(here) == before
    back.set()
    await asyncio.gather(revoking, return_exceptions=True)
    await here.clock.advance(60)
    async with asyncio.timeout(5):
        while listed(here) != before + 1:
            await asyncio.sleep(0.01)
