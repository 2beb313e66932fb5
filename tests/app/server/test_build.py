import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from handfast.access.world_file import digest
from handfast.app.server.build import AGAIN_S, INTERRUPTED_AFTER, KEEP_EVENTS, SERVER_TTL, ServerConfig, build_server
from handfast.app.server.callers import Role
from handfast.app.server.messages import CertificateList, CertificateRow, EventList, TrafficRow
from handfast.base.events import WorldApplied
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import new_key
from handfast.io.issuance import Issuance
from handfast.sdk.contexts import client_context
from handfast.trust.csr import read_csr
from handfast.trust.facts import facts
from handfast.trust.plan import LeafRequest
from tests.app.server.test_agents import tell
from tests.app.sites import DOMAIN, WORLD, Site, raw, site
from tests.support.clock import FakeClock
from tests.support.ledger import Crash, FaultySigner, Seams, revoked_live
from tests.support.pki import Pki


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await look():
            await asyncio.sleep(0.01)


async def scraped(here: Site, path: str = "/metrics") -> str:
    host, port = here.server.admin_address
    async with httpx2.AsyncClient() as client:
        return (await client.get(f"http://{host}:{port}{path}")).text


async def test_a_second_start_finds_what_the_first_one_left(tmp_path: Path):
    """Authority, world, inventory and the server's own certificate outlive a restart."""
    async with site(tmp_path) as first:
        await first.apply()
        held, bundle = await first.issue("payments"), first.bundle
        slice_ = first.server.platform.slices.current.value
    async with site(tmp_path, FakeClock(first.clock.now())) as second:
        assert second.bundle == bundle
        assert second.server.platform.slices.current.value == slice_
        page = await second.operator.call("GET", "/v1/certificates", CertificateList)
        assert [row.name for row in page.certificates] == ["payments", "handfast/server"]
        assert (await raw(second.holder(held), "POST", "/v1/certificates/renew")).status_code == 400


async def test_another_trust_domain_does_not_start_here(tmp_path: Path):
    """A directory belongs to one trust domain."""
    async with site(tmp_path):
        pass
    config = ServerConfig(
        directory=tmp_path, trust_domain=TrustDomain("example.com"), api=("127.0.0.1", 0), admin=("127.0.0.1", 0)
    )
    with pytest.raises(BadInput):
        await build_server(config, FakeClock())


async def test_an_address_that_is_taken_is_said(here: Site, tmp_path: Path):
    """The message names the address."""
    config = ServerConfig(
        directory=tmp_path / "b", trust_domain=TrustDomain(DOMAIN), api=here.server.api_address, admin=("127.0.0.1", 0)
    )
    (tmp_path / "b").mkdir()
    server = await build_server(config, here.clock)
    try:
        with pytest.raises(BadInput, match=str(here.server.api_address[1])):
            await server.start()
    finally:
        await server.stop(0)


@pytest.mark.usefixtures("here")
async def test_what_lies_on_disk_is_for_its_owner_alone(tmp_path: Path):
    """Keys, ledger and socket cannot be opened by others."""
    secret = ["server.pem", "server.sock", "ledger.sqlite", "authority/issuing-key.pem", "authority/root-key.pem"]
    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in secret} == dict.fromkeys(secret, 0o600)
    assert (tmp_path / "authority").stat().st_mode & 0o777 == 0o700


async def test_an_interrupted_issuance_is_revoked_at_the_next_start(tmp_path: Path):
    """What may have been signed when something died is listed as intended, and counts as revoked after a restart."""
    clock = None
    async with site(tmp_path) as first:
        clock, platform = first.clock, first.server.platform
        authority = replace(platform.authority, signer=FaultySigner(platform.authority.signer, Seams(crash_at=1)))
        asked = read_csr(new_key().csr_pem.encode())
        request = LeafRequest(identity=platform.trust_domain.id("payments"), csr=asked)  # type: ignore[arg-type]
        with pytest.raises(Crash):
            await Issuance(authority, platform.ledger, clock).issue(request, workload=None, requester="test")
        page = await first.operator.call("GET", "/v1/certificates", CertificateList, state="intended")
        assert [(row.name, row.state, row.certificate) for row in page.certificates] == [("payments", "intended", "")]
    async with site(tmp_path, FakeClock(clock.now())) as soon:
        page = await soon.operator.call("GET", "/v1/certificates", CertificateList, name="payments")
        assert [row.state for row in page.certificates] == ["intended"]
    async with site(tmp_path, FakeClock(clock.now() + INTERRUPTED_AFTER + timedelta(seconds=1))) as later:
        page = await later.operator.call("GET", "/v1/certificates", CertificateList, name="payments")
        assert [(row.state, row.revocation_reason) for row in page.certificates] == [("revoked", "unspecified")]
        events = await later.operator.call("GET", "/v1/events", EventList, kind="certificate.revoked")
        assert [event["serial"] for event in events.events] == [page.certificates[0].serial]
        assert len(await revoked_live(later.server.platform.ledger, later.clock.now())) == 1


async def test_a_failed_handshake_is_an_event_with_its_reason(here: Site):
    """A stranger's certificate is refused in the handshake, and recorded as at a gateway."""
    stranger = Pki("Stranger").leaf("eve", san_uris=[f"spiffe://{DOMAIN}/handfast/operator/eve"])
    context = client_context(stranger.chain_pem, stranger.key_pem, here.bundle.encode())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await _speak(here, context)

    async def told() -> bool:
        return bool((await here.operator.call("GET", "/v1/events", EventList, kind="handshake.refused")).events)

    await eventually(told)
    event = (await here.operator.call("GET", "/v1/events", EventList, kind="handshake.refused")).events[0]
    assert (event["gateway"], event["reason"]) == ("server", Reason.CHAIN_UNKNOWN_AUTHORITY)
    assert event["certificate"]["subject"] == "CN=eve"
    assert event["server_name"] == "localhost"

    async def counted() -> bool:
        return 'handfast_handshakes_total{gateway="server",reason="chain.unknown-authority"} 1.0' in await scraped(here)

    await eventually(counted)


async def _speak(here: Site, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(*here.server.api_address, ssl=context, server_hostname="localhost")
    writer.write(b"GET /v1/authority HTTP/1.1\r\nhost: localhost\r\n\r\n")
    try:
        if not await reader.read(1):
            raise ConnectionError
    finally:
        writer.transport.abort()


async def test_metrics_are_what_the_ledger_says(here: Site):
    """Inventory, authorities and agents are read as they are at that moment."""
    await here.apply()
    await here.issue("payments", ttl_seconds=600)
    api = await here.being(Role.AGENT)
    await tell(api, traffic=[TrafficRow(host=f"api.{DOMAIN}", route="/", identity="", method="GET", code="", count=4)])
    here.clock.set(here.clock.now() + timedelta(seconds=30))
    here.server.more_metrics.append(_more)
    text = await scraped(here)
    assert 'handfast_certificates{state="issued"} 3.0' in text
    assert 'handfast_authority_expiry_seconds{authority="root"}' in text
    assert 'handfast_agent_snapshot_age_seconds{agent="edge"} 30.0' in text
    assert 'handfast_agent_current{agent="edge"} 0.0' in text
    assert 'handfast_requests_total{decision="allowed",gateway="edge",host="api.example.org"} 4.0' in text
    assert text.endswith("more 1\n")
    assert await scraped(here, "/ready") == "ready\n"


async def _more() -> bytes:
    return b"more 1\n"


async def test_what_is_old_is_forgotten_by_the_hour(here: Site):
    """Events, tokens and counts leave the ledger; certificates stay."""
    await here.apply()
    ledger, api = here.server.platform.ledger, await here.being(Role.AGENT)
    await tell(api, traffic=[TrafficRow(host="h", route="/", identity="", method="GET", code="", count=4)])
    await here.clock.advance(60)
    begin = here.clock.now()
    here.clock.set(begin + KEEP_EVENTS + timedelta(hours=1))
    await here.clock.advance(3600)

    async def forgotten() -> bool:
        old = [event for _, event in await ledger.page() if event.at <= begin]
        return not old and not await ledger.traffic(begin - timedelta(days=1))

    await eventually(forgotten)
    assert not await ledger._db.fetch("select 1 from join_tokens")
    page = await here.operator.call("GET", "/v1/certificates", CertificateList)
    assert {row.name for row in page.certificates} == {"handfast/server", "handfast/agent/edge"}


async def test_the_servers_own_certificate_is_renewed_and_served(here: Site):
    """Past two thirds of its life and a twentieth, at the latest, another one is served to new connections, with nothing restarted."""
    first = await _served(here)
    here.clock.set(
        here.clock.now() + timedelta(days=4)
    )  # at once, as nothing is due yet, and each step of the way takes its time
    await here.clock.advance((SERVER_TTL * (2 / 3 + 1 / 20) - timedelta(days=4)).total_seconds())

    async def another_is_served() -> bool:
        return await _served(here) in {row.serial for row in await _named(here, "handfast/server")} - {first}

    await eventually(another_is_served)
    assert len(await _named(here, "handfast/server")) == 2


async def _named(here: Site, name: str) -> list[CertificateRow]:
    return (await here.operator.call("GET", "/v1/certificates", CertificateList, name=name)).certificates


async def _served(here: Site) -> str:
    """Give the serial of the server's certificate, as a stranger sees it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(*here.server.api_address, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return facts(der).serial


async def test_work_in_the_background_goes_on_after_a_fault(here: Site, monkeypatch: pytest.MonkeyPatch):
    """A ledger that is away for a moment must not end renewals, pruning, the journal or the slices for good."""
    ledger, faults = here.server.platform.ledger, iter([Unavailable("away"), ValueError("odd")])
    pruned = ledger.prune_join_tokens

    async def faulty(before: datetime) -> int:
        if fault := next(faults, None):
            raise fault
        return await pruned(before)

    await here.token(ttl=10)
    monkeypatch.setattr(ledger, "prune_join_tokens", faulty)
    await here.clock.advance((KEEP_EVENTS + timedelta(hours=2)).total_seconds() % 7200)
    here.clock.set(here.clock.now() + KEEP_EVENTS + timedelta(hours=1))
    await here.clock.advance(3600 + 3 * AGAIN_S)
    assert not await ledger._db.fetch("select 1 from join_tokens")


async def test_a_world_that_another_process_applied_reaches_agents(here: Site):
    """The slices follow the ledger, not the endpoint that wrote to it."""
    ledger, slices = here.server.platform.ledger, here.server.platform.slices
    event = WorldApplied(id="w", at=here.clock.now(), revision=1, digest=digest(WORLD), requester="another")
    await ledger.apply(WORLD, event.digest, "another", event.at, event)
    async with asyncio.timeout(5):
        await slices.current.wait_for_change(slices.current.value)
    assert set(slices.world.hosts) == {f"api.{DOMAIN}"}
