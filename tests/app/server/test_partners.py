from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from handfast.access.slice import Slice, parse_slice
from handfast.app.server.messages import EventList, StatusAnswer
from handfast.app.server.partners import PartnerSlices
from handfast.base.events import Event, FindingRaised
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Unavailable
from handfast.base.windows import from_unix
from handfast.trust.facts import pem, pem_certificates
from handfast.trust.foreign import read_ca
from tests.app.sites import Site, site
from tests.support.clock import FakeClock
from tests.support.partners import authority, crl, partner, roots_pem

ACME = partner("Acme")


@pytest.fixture
def lists() -> Iterator[list[bytes]]:
    """Serve the last of some lists at a port; the first item is its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served[-1])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = [f"http://127.0.0.1:{server.server_port}/".encode()]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def world(revocation: dict[str, str] | None = None, roots: str = "", more: str = "x") -> str:
    entry: dict[str, Any] = {
        "roots_pem": roots or roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
    } | ({"revocation": revocation} if revocation else {})
    clients = {"trust": ["example.org", "acme"]}
    host = {
        "listen": 8443,
        "clients": clients,
        "routes": [{"path": "/", "upstream": f"http://{more}", "allow": ["acme/*"]}],
    }
    return json.dumps({"trust_domain": "example.org", "authorities": {"acme": entry}, "hosts": {"a.test": host}})


def slice_of(site: Site) -> Slice:
    prepared = site.server.platform.slices.current.value
    assert prepared
    return parse_slice(prepared.body)


async def until(site: Site, serials: set[str]) -> None:
    async with asyncio.timeout(10):
        while {serial for one in slice_of(site).world.lists.get("acme", ()) for serial in one.serials} != serials:
            await asyncio.sleep(0.02)


async def test_a_list_reaches_the_slice(here: Site, lists: list[bytes]):
    """Soon after an apply that names its URL; and it stays when the next apply changes something else."""
    lists.append(crl(ACME.issuing, (0x0A,)))
    await here.apply(world({"crl": lists[0].decode()}))
    await until(here, {"0a"})
    seen = list[dict[str, Any]]()

    async def watch() -> None:
        async for prepared in here.server.platform.slices.current.subscribe():
            seen.append(json.loads(prepared.body)["lists"] if prepared else {})

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await here.apply(world({"crl": lists[0].decode()}, more="y"))
    await asyncio.sleep(0.1)
    watching.cancel()
    assert len(seen) >= 2
    assert all("acme" in one for one in seen)


async def test_a_list_in_the_world_is_in_its_first_slice(here: Site):
    """Nobody is refused between an apply and a look at the list that came with it."""
    text = pem(crl(ACME.issuing, (0x0B,)), "X509 CRL")
    seen = list[dict[str, Any]]()
    slices = here.server.platform.slices
    publish = slices.current.publish
    slices.current.publish = lambda prepared: (seen.append(json.loads(prepared.body)), publish(prepared))[1]  # type: ignore[method-assign,union-attr]
    async with slices._alone:  # one that began before the apply has only to be made
        late, applying = (asyncio.create_task(one) for one in (slices.refresh(), here.apply(world({"crl_pem": text}))))
        async with asyncio.timeout(5):
            while not await here.server.platform.ledger.latest_revision():
                await asyncio.sleep(0.01)
    await asyncio.gather(late, applying)
    made = [one["lists"] for one in seen if one["revision"]]
    assert made
    assert all("acme" in one for one in made)


async def test_the_status_has_each_with_its_dates(here: Site):
    """When its first CA ends, when its list grows old, and what is wrong with it."""
    text = pem(crl(ACME.issuing), "X509 CRL")
    nobody = "http://127.0.0.1:1/"
    ways = (
        ({"crl_pem": text}, "crl"),
        (None, ""),
        ({"ocsp": nobody}, "ocsp"),
        ({"ocsp": nobody, "crl_pem": text}, "ocsp+crl"),
    )
    for revocation, how in ways:
        await here.apply(world(revocation))
        (row,) = (await here.operator.call("GET", "/v1/status", StatusAnswer)).partners
        assert (row.name, row.revocation, row.fault) == ("acme", how, "")
        assert row.hosts
        assert row.ends == min(read_ca(der).window.not_after for der in pem_certificates(roots_pem(ACME)))
        (kept,) = slice_of(here).world.lists.get("acme", (None,))
        assert row.lists_until == (from_unix(kept.until) if kept else None)
        assert bool(kept) == ("crl" in how)
    await here.apply(world({"crl": "http://127.0.0.1:1/"}))
    async with asyncio.timeout(10):
        while not (row := (await here.operator.call("GET", "/v1/status", StatusAnswer)).partners[0]).fault:
            await asyncio.sleep(0.02)
    assert row.fault == Reason.REVOCATION_CRL_UNAVAILABLE


async def test_what_cannot_be_fetched_is_a_finding(here: Site):
    """Once, with the authority's name; without a list the slice says so by saying nothing."""
    await here.apply(world({"crl": "http://127.0.0.1:1/"}))
    async with asyncio.timeout(10):
        while not (found := await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised")).events:
            await asyncio.sleep(0.02)
    await here.apply(world({"crl": "http://127.0.0.1:1/"}, more="y"))
    assert [(one["reason"], one["evidence"]["authority"]) for one in found.events] == [
        ("revocation.crl-unavailable", "acme")
    ]
    assert slice_of(here).world.lists == {}


async def test_an_authority_that_ended_is_refused(here: Site):
    """So is a list that is not of its CAs."""
    ended = authority("Old", ends=timedelta(days=-1))
    with pytest.raises(BadInput, match="ended on"):
        await here.apply(world(roots=ended.cert_pem.decode()))
    with pytest.raises(BadInput, match="no CA of this authority signed it"):
        await here.apply(world({"crl_pem": pem(crl(authority("Acme Issuing")), "X509 CRL")}))
    assert here.server.platform.slices.revision == 0


async def test_an_authority_that_ended_since_is_a_caution(here: Site):
    """It must not stand in the way of other changes; one that is new in the file is refused all the same."""
    old, gone = authority("Old", ends=timedelta(days=1)), authority("Gone", ends=timedelta(hours=23))
    roots = old.cert_pem.decode()
    assert not any("ended" in one for one in (await here.apply(world(roots=roots))).warnings)
    here.clock.set(here.clock.now() + timedelta(days=1, minutes=1))
    for shown in (await here.apply(world(roots=roots, more="y")), await here.apply(world(roots=roots, more="y"))):
        assert [one for one in shown.warnings if "ended" in one] == [
            f"acme: CN=Old ended on {old.cert.not_valid_after_utc:%Y-%m-%d}, so it does not count"
        ]
    assert here.server.platform.slices.revision == 2
    with pytest.raises(BadInput, match="CN=Gone ended on"):
        await here.apply(world(roots=roots + gone.cert_pem.decode()))
    await here.apply(world(roots=authority("Next").cert_pem.decode()))
    with pytest.raises(BadInput, match="CN=Old ended on"):
        await here.apply(world(roots=roots))
    assert here.server.platform.slices.revision == 3


async def test_a_list_that_ended_since_is_a_finding(tmp_path: Path):
    """It must not stand in the way of other changes; its clients are not known, who stands in it stays revoked, also after a restart."""
    text = pem(crl(ACME.issuing, (0x0B,)), "X509 CRL")
    async with site(tmp_path) as before:
        assert not any("ended" in one for one in (await before.apply(world({"crl_pem": text}))).warnings)
        late = before.clock.now() + timedelta(days=2)
        before.clock.set(late)
        warnings = (await before.apply(world({"crl_pem": text}, more="y"))).warnings
        due = f"{x509.load_pem_x509_crl(text.encode()).next_update_utc:%Y-%m-%d}"
        (warning,) = (one for one in warnings if "ended" in one)
        assert warning == f"acme: its revocation list ended on {due}, so its clients are not known to be good by it"
        async with asyncio.timeout(10):
            while not (
                found := await before.operator.call("GET", "/v1/events", EventList, kind="finding.raised")
            ).events:
                await asyncio.sleep(0.02)
        assert [one["reason"] for one in found.events] == [Reason.REVOCATION_CRL_EXPIRED]
    async with site(tmp_path, FakeClock(late)) as after:
        (kept,) = slice_of(after).world.lists["acme"]
        assert kept.serials == ("0b",)
        assert kept.until < late.timestamp()
        await after.apply(world({"crl_pem": text, "ocsp": "http://127.0.0.1:1/"}, more="z"))
        (row,) = (await after.operator.call("GET", "/v1/status", StatusAnswer)).partners
        assert (row.revocation, row.fault) == ("ocsp+crl", Reason.REVOCATION_CRL_EXPIRED)


async def test_a_list_that_is_new_must_count(here: Site):
    """One that has ended is refused with its field, alone or beside one that is in force already, and so is one that was let go."""
    held, other = (pem(crl(ACME.issuing, (serial,)), "X509 CRL") for serial in (0x0B, 0x0C))
    await here.apply(world({"crl_pem": held}))
    here.clock.set(here.clock.now() + timedelta(days=2))
    for text in (other, held + other):
        with pytest.raises(BadInput, match=r"authorities\.acme\.revocation\.crl_pem: .*expired"):
            await here.apply(world({"crl_pem": text}))
    stranger = roots_pem(partner("Acme"))
    with pytest.raises(BadInput, match="no CA of this authority signed it"):
        await here.apply(world({"crl_pem": held}, roots=stranger))
    newest = pem(crl(ACME.issuing, (0x0B,), until=timedelta(days=9)), "X509 CRL")
    answer = await here.apply(world({"crl_pem": held + newest}))
    assert not any("list ended" in one for one in answer.warnings)
    await here.apply(world({"crl_pem": newest}))
    with pytest.raises(BadInput):
        await here.apply(world({"crl_pem": held}))


async def test_a_partner_cannot_bring_our_root(here: Site):
    """Nor a CA that has our name: no gateway could tell its leaves from ours."""
    ours = [read_ca(der) for der in here.server.platform.authorities.known_cas]
    assert isinstance(here.server.platform.slices, PartnerSlices)
    root = next(ca for ca in ours if ca.subject == ca.issuer)
    with pytest.raises(BadInput, match="of an authority of ours"):
        await here.apply(world(roots=pem(root.der)))
    assert pem_certificates(pem(root.der)) == (root.der,)


async def test_no_file_is_read_for_a_stranger(here: Site):
    """A path in a world that reaches the server is refused as what it is."""
    plain = json.loads(world())
    plain["authorities"]["acme"] |= {"roots": "/etc/passwd"}
    with pytest.raises(BadInput, match="names a file"):
        await here.apply(json.dumps(plain))


async def test_a_fault_that_could_not_be_recorded_is_told_later(here: Site, monkeypatch: pytest.MonkeyPatch):
    """The ledger may be away at that moment; nobody would ever hear of it."""
    ledger, failed = here.server.platform.ledger, asyncio.Event()
    append = ledger.append

    async def away(events: Sequence[Event]) -> None:
        if any(isinstance(one, FindingRaised) for one in events):
            failed.set()
            raise Unavailable("away")
        await append(events)

    monkeypatch.setattr(ledger, "append", away)
    await here.apply(world({"crl": "http://127.0.0.1:1/"}))
    await asyncio.wait_for(failed.wait(), 10)
    monkeypatch.setattr(ledger, "append", append)
    async with asyncio.timeout(10):
        while not (await here.operator.call("GET", "/v1/events", EventList, kind="finding.raised")).events:
            await here.clock.advance(5)
            await asyncio.sleep(0.05)
