import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from handfast.app.server.discovery import Discovery, discovered
from handfast.app.server.inventory_messages import InventoryList, InventoryRow
from handfast.base.events import Event, HandshakeRefused, OfferedCertificate, RequestDenied, RequestReported
from handfast.base.reasons import Reason
from handfast.io.ledger import inventory
from tests.app.sites import DOMAIN, Site
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
    """By its identity, and where that says nothing by its fingerprint."""
    held = (await here.issue("a")).leaf
    named = replace(OFFERED, uri_sans=(f"spiffe://{DOMAIN}/a",))
    await tell(here, denied(1, named), denied(2, replace(OFFERED, fingerprint=held.fingerprint)))
    assert await listed(here) == []


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
