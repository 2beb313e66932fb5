import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import Raw

from handfast.app.server.build import build_server
from handfast.app.server.callers import Role
from handfast.app.server.discovery import Discovery, discovered
from handfast.app.server.inventory_messages import InventoryList, InventoryRow
from handfast.app.server.messages import AgentReport, EventList, Nothing
from handfast.base.events import (
    CertificateDiscovered,
    Event,
    HandshakeRefused,
    OfferedCertificate,
    RequestDenied,
    RequestReported,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.io.encoding import encode_event
from handfast.io.ledger import inventory
from tests.app.sites import AGENT, DOMAIN, Site
from tests.support.clock import START

OFFERED = OfferedCertificate(
    subject="CN=client", issuer="CN=Partner", serial="01", fingerprint="ab" * 32, uri_sans=(), dns_sans=("c.partner",),
    not_before=START, not_after=START + timedelta(days=36500), chain_length=2,
)  # fmt: skip


def denied(number: int, offered: OfferedCertificate | None = OFFERED) -> RequestDenied:
    what = RequestDenied if number % 2 else RequestReported
    return what(
        id=f"c{number}", at=START, gateway="edge", host="h", route="/", method="GET", path="/", peer="192.0.2.1:1", status=403,
        reason=Reason.POLICY_NO_MATCH, identity="", revision="1", certificate=offered,
    )  # fmt: skip


async def listed(site: Site) -> list[InventoryRow]:
    page = await site.operator.call("GET", "/v1/inventory", InventoryList, state="watched")
    return page.certificates


async def tell(site: Site, *events: Event) -> None:
    """Record events, and wait until somebody else would have looked at them."""
    follower = Discovery(site.server.platform)
    await site.server.platform.ledger.append(events)
    await follower.catch_up()


async def test_a_partner_s_client_is_discovered(here: Site):
    """By the platform itself, once, however often it comes."""
    await here.server.platform.ledger.append([denied(n) for n in range(3)])
    async with asyncio.timeout(5):
        while not (rows := await listed(here)):
            await asyncio.sleep(0.01)
    (row,) = rows
    assert (row.source, row.name, row.issuer, row.requester) == (
        "discovered",
        "c.partner",
        "CN=Partner",
        "gateway:edge",
    )
    await tell(here, denied(4))
    assert len(await listed(here)) == 1


async def test_what_a_stranger_shows_is_not(here: Site):
    """A refused handshake fills no inventory, and a request without a certificate neither."""
    refused = HandshakeRefused(
        id="r",
        at=START,
        gateway="edge",
        listener="l",
        peer="192.0.2.1:1",
        reason=Reason.CERT_EXPIRED,
        certificate=OFFERED,
    )
    await tell(here, refused, denied(1, None))
    assert await listed(here) == []


async def test_what_is_ours_is_in_the_list_already(here: Site):
    """By its fingerprint. One with our name that nobody issued here, or that a restore has lost, is not."""
    held = (await here.issue("a")).leaf
    await tell(here, denied(1, replace(OFFERED, fingerprint=held.fingerprint)))
    assert await listed(here) == []
    lost = replace(OFFERED, uri_sans=(f"spiffe://{DOMAIN}/a",), issuer="CN=Handfast issuing CA")
    await tell(here, denied(2, lost))
    assert [(row.name, row.issuer) for row in await listed(here)] == [
        (f"spiffe://{DOMAIN}/a", "CN=Handfast issuing CA")
    ]


def let_in(number: int, offered: OfferedCertificate = OFFERED, gateway: str = AGENT) -> CertificateDiscovered:
    return CertificateDiscovered(
        id=f"s{number}", at=START, gateway=gateway, host="h", peer="192.0.2.1:1", identity="", certificate=offered
    )


async def test_who_was_let_in_is_discovered_too(here: Site):
    """What an agent tells of: recorded once, and only of certificates that the inventory does not know."""
    held = (await here.issue("a")).leaf
    known = replace(OFFERED, fingerprint=held.fingerprint)
    agent = await here.being(Role.AGENT)
    for number, offered in enumerate((known, OFFERED)):
        events = [Raw(encode_event(let_in(number, offered)))]
        await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(events=events))
    async with asyncio.timeout(5):
        while not (rows := await listed(here)):
            await asyncio.sleep(0.01)
    again = [Raw(encode_event(let_in(7)))]
    await agent.call("POST", "/v1/agents/self/report", Nothing, AgentReport(events=again))
    told = await here.operator.call("GET", "/v1/events", EventList, kind="certificate.discovered")
    assert [event["id"] for event in told.events] == ["s1"]
    assert [(row.fingerprint, row.requester) for row in rows] == [(OFFERED.fingerprint, f"gateway:{AGENT}")]


async def test_what_a_server_was_killed_over_is_discovered_by_the_next(here: Site):
    """Gateways tell of a certificate once: what is recorded and was not looked at would never be."""
    await here.server.stop()
    following = await build_server(here.server.config, here.clock)
    here.stack.push_async_callback(following.stop)
    ledger = following.platform.ledger
    await ledger.append([let_in(1)])
    await following.start()
    async with asyncio.timeout(5):
        while not await ledger.knows(OFFERED.fingerprint):
            await asyncio.sleep(0.01)


async def test_what_the_ledger_did_not_take_is_looked_at_again(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A database that is away for a moment takes no certificate out of sight."""
    ledger, failed = here.server.platform.ledger, asyncio.Event()
    discover = ledger.discover

    async def away(_: object) -> bool:
        failed.set()
        raise Unavailable("away")

    monkeypatch.setattr(ledger, "discover", away)
    await ledger.append([let_in(1)])
    await asyncio.wait_for(failed.wait(), 5)
    monkeypatch.setattr(ledger, "discover", discover)
    await here.clock.advance(60)
    async with asyncio.timeout(5):
        while not await ledger.knows(OFFERED.fingerprint):
            await asyncio.sleep(0.01)


async def test_the_discovered_are_bounded_and_forgotten(here: Site, monkeypatch: pytest.MonkeyPatch):
    """An authority that is not ours cannot fill the disk; what was imported stays."""
    monkeypatch.setattr(inventory, "MOST_DISCOVERED", 2)
    await tell(here, *(denied(n, replace(OFFERED, fingerprint=f"{n:064}")) for n in range(4)))
    assert len(await listed(here)) == 2
    assert await here.server.platform.ledger.forget_discovered(START) == 0
    assert await here.server.platform.ledger.forget_discovered(START + timedelta(days=40000)) == 2
    assert await listed(here) == []


@pytest.mark.parametrize(
    "missing", [{"fingerprint": ""}, {"fingerprint": "x" * 64}, {"not_before": None}, {"not_after": None}]
)
def test_a_report_that_is_not_complete_is_passed_over(missing: dict[str, object]):
    """Without dates there is nothing to watch."""
    assert discovered(replace(OFFERED, **missing), "edge", START) is None
