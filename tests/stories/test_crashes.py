"""What a process that dies in the midst of something leaves behind, and what the next one makes of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.app.server.build import INTERRUPTED_AFTER
from handfast.app.server.messages import CertificateList, EventList
from handfast.app.server.platform import Platform
from handfast.base.refusal import Unavailable
from handfast.io.credentials import new_key
from handfast.io.issuance import Issuance
from tests.app.sites import Site, site
from tests.stories.telling import HOUR
from tests.support.clock import FakeClock
from tests.support.ledger import Crash, FaultySigner, Seams, revoked_live


async def rows(here: Site, **query: str) -> list[tuple[str, str]]:
    page = await here.operator.call("GET", "/v1/certificates", CertificateList, **query)
    return [(row.name, row.state) for row in page.certificates if row.name != "handfast/server"]


def dying(platform: Platform, crash_at: int) -> Platform:
    """Give the platform of a process that dies at the signature."""
    signer = FaultySigner(platform.authority.signer, Seams(crash_at=crash_at))
    return replace(
        platform, issuance=Issuance(replace(platform.authority, signer=signer), platform.ledger, platform.clock)
    )


@pytest.mark.parametrize("crash_at", [0, 1], ids=["before the signature", "after it"])
async def test_a_crash_between_record_and_delivery_is_listed_and_settled(crash_at: int, tmp_path: Path):
    """The row says ``intended``; nobody was given anything; the next start that comes late enough revokes it."""
    clock = FakeClock()
    async with site(tmp_path, clock) as here:
        from handfast.app.server.certificates import issue  # noqa: PLC0415

        platform = dying(here.server.platform, crash_at)
        caller = here.server._admit({"extensions": {"handfast.peer": {"uid": 0}}})
        with pytest.raises(Crash):
            await issue(platform, caller, platform.trust_domain.id("payments"), new_key().csr_pem)
        assert await rows(here, state="intended") == [("payments", "intended")]
        assert here.server.platform.slices.denied == frozenset()
    clock.set(clock.now() + INTERRUPTED_AFTER / 2)
    async with site(tmp_path, clock) as soon:
        assert await rows(soon) == [("payments", "intended")]
    clock.set(clock.now() + INTERRUPTED_AFTER)
    async with site(tmp_path, clock) as later:
        assert await rows(later) == [("payments", "revoked")]
        events = (await later.operator.call("GET", "/v1/events", EventList, kind="certificate.revoked")).events
        assert [event["requester"] for event in events] == ["server: its issuance was interrupted"]
        listed = await revoked_live(later.server.platform.ledger, clock.now())
        assert [one.serial for one in listed] == [events[0]["serial"]]
    clock.set(clock.now() + timedelta(days=2))
    async with site(tmp_path, clock) as much_later:
        assert await revoked_live(much_later.server.platform.ledger, clock.now()) == []


async def test_an_interrupted_issuance_is_settled_while_the_server_runs(tmp_path: Path):
    """However many they are, and not before they are old enough; what is left holds up no rotation."""
    async with site(tmp_path, FakeClock()) as here:
        from handfast.app.server.certificates import issue  # noqa: PLC0415

        platform, look = here.server.platform, INTERRUPTED_AFTER.total_seconds()
        await here.issue("good")
        (generation,) = platform.rotation.rows
        held = (await platform.rotation.leaves_of(generation)).count
        caller = here.server._admit({"extensions": {"handfast.peer": {"uid": 0}}})
        for _ in range(101):
            with pytest.raises(Crash):
                await issue(dying(platform, 0), caller, platform.trust_domain.id("payments"), new_key().csr_pem)
        await here.clock.advance(look)
        await asyncio.sleep(0.2)
        assert (await platform.rotation.leaves_of(generation)).count == held + 101
        await here.clock.advance(look)
        async with asyncio.timeout(10):
            while (await platform.rotation.leaves_of(generation)).count > held:
                await asyncio.sleep(0.02)
        states = await rows(here, name="payments", limit="200") + await rows(here, name="good")
        assert states == [("payments", "revoked")] * 101 + [("good", "issued")]


async def test_a_ledger_that_fails_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What could not be recorded as issued is not delivered, and the caller is told to come again."""
    async with site(tmp_path, FakeClock()) as here:

        async def full(*_: object) -> None:
            raise Unavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(here.server.platform.ledger, "record_issued", full)
            with pytest.raises(Unavailable, match="the disk is full"):
                await here.issue("payments")
        assert await rows(here) == [("payments", "intended")]
        assert (await here.issue("payments")).leaf.serial
        assert await rows(here) == [("payments", "issued"), ("payments", "intended")]
        await here.clock.advance(HOUR.total_seconds())
