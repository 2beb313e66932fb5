from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from handfast.access.authority import ForeignAuthority
from handfast.access.world_file import parse_world
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.io import foreign_status
from handfast.io.foreign_status import LATEST, SOONEST, ForeignStatus, fetch
from handfast.trust import foreign_crl
from handfast.trust.facts import pem
from handfast.trust.foreign_crl import MOST_REVOKED
from tests.support.partners import authority, crl, partner, roots_pem

ACME = partner("Acme")
DAY = timedelta(days=1)


@dataclass
class Site:
    """A web server that answers with what it is given: status, headers, body; and counts who asked."""

    server: ThreadingHTTPServer
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    stall: float = 0.0
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/ca.crl"


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            time.sleep(made.stall)
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(made.body)))
            self.end_headers()
            self.wfile.write(made.body)

        def log_message(self, *_: object) -> None:
            pass

    made = Site(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def acme(revocation: dict[str, str] | None, rule: str = "*", roots: str = "") -> dict[str, ForeignAuthority]:
    entry: dict[str, Any] = {
        "roots_pem": roots or roots_pem(ACME),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": rule}, "identity": "acme/{common_name}"}],
    }
    host = {"listen": 8443, "routes": [{"path": "/", "upstream": "http://a", "allow": []}]}
    authorities = {"acme": entry | ({"revocation": revocation} if revocation else {})}
    world = parse_world(
        json.dumps({"trust_domain": "example.org", "authorities": authorities, "hosts": {"a.test": host}})
    )
    return dict(world.authorities)


async def followed(directory: Path, authorities: dict[str, ForeignAuthority], now: datetime) -> ForeignStatus:
    status = ForeignStatus(directory)
    await status.follow(authorities, now)
    return status


def serials(status: ForeignStatus, authorities: dict[str, ForeignAuthority]) -> tuple[str, ...]:
    return tuple(serial for lists in status.lists_of(authorities).values() for one in lists for serial in one.serials)


async def test_a_list_is_fetched_kept_and_recalled(site: Site, tmp_path: Path):
    """After a restart the last good list counts before anything is fetched."""
    site.body, now, authorities = crl(ACME.issuing, (0x0A,)), datetime.now(UTC), acme({"crl": site.url})
    status = await followed(tmp_path / "p", authorities, now)
    assert [one.name for one in status.due(now)] == ["acme"]
    await status.renew(authorities["acme"], now)
    assert serials(status, authorities) == ("0a",)
    assert status.faults(now) == {}
    assert SOONEST.total_seconds() <= status.next_look(now) <= LATEST.total_seconds()
    (kept,) = (tmp_path / "p").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    again = await followed(tmp_path / "p", authorities, now)
    assert serials(again, authorities) == ("0a",)
    assert site.asked == ["/ca.crl"]


async def test_a_bad_list_does_not_replace_a_good_one(site: Site, tmp_path: Path):
    """Neither one that somebody else signed, nor no list, nor an older one that is played back."""
    now, authorities = datetime.now(UTC), acme({"crl": site.url})
    status = await followed(tmp_path, authorities, now)
    site.body = crl(ACME.issuing, (0x0A,))
    await status.renew(authorities["acme"], now)
    for bad in (
        crl(authority("Acme Issuing"), ()),
        b"<html>",
        crl(ACME.issuing, (), since=-2 * DAY),
        crl(ACME.issuing, (), until=-DAY, since=-2 * DAY),
    ):
        site.body = bad
        await status.renew(authorities["acme"], now)
        assert serials(status, authorities) == ("0a",)
        assert serials(await followed(tmp_path, authorities, now), authorities) == ("0a",)
    assert status.faults(now)["acme"].reason is Reason.REVOCATION_CRL_EXPIRED


async def test_a_server_that_is_away_is_a_finding_and_tried_again_soon(site: Site, tmp_path: Path):
    """What is known stays; when it has ended, that is the finding."""
    now, authorities = datetime.now(UTC), acme({"crl": site.url})
    status = await followed(tmp_path, authorities, now)
    site.body = crl(ACME.issuing, (0x0A,))
    await status.renew(authorities["acme"], now)
    site.status = 503
    await status.renew(authorities["acme"], now)
    assert status.faults(now)["acme"].reason is Reason.REVOCATION_CRL_UNAVAILABLE
    assert status.next_look(now) == SOONEST.total_seconds()
    assert status.faults(now + 2 * DAY)["acme"].reason is Reason.REVOCATION_CRL_EXPIRED
    assert serials(status, authorities) == ("0a",)


async def test_a_list_in_the_world_counts_at_once(tmp_path: Path):
    """It is read with the world, and never fetched."""
    now = datetime.now(UTC)
    authorities = acme({"crl_pem": pem(crl(ACME.issuing, (0x0B,)), "X509 CRL")})
    status = await followed(tmp_path, authorities, now)
    assert serials(status, authorities) == ("0b",)
    assert status.due(now) == []
    assert status.faults(now + 2 * DAY)["acme"].reason is Reason.REVOCATION_CRL_EXPIRED


@pytest.mark.parametrize("successor", [False, True])
async def test_a_list_in_the_world_that_ended_keeps_who_stands_in_it(tmp_path: Path, *, successor: bool):
    """Also for one who begins anew. It is what is wrong, unless a newer one of the same CA is beside it."""
    now, text = datetime.now(UTC), pem(crl(ACME.issuing, (0x0B,)), "X509 CRL")
    more = pem(crl(ACME.issuing, (0x0B, 0x0C), since=timedelta(minutes=-1), until=9 * DAY), "X509 CRL")
    authorities = acme({"crl_pem": text + (more if successor else "")})
    status = await followed(tmp_path, authorities, now + 2 * DAY)
    assert serials(status, authorities) == (("0b", "0c") if successor else ("0b",))
    found = {name: fault.reason for name, fault in status.faults(now + 2 * DAY).items()}
    assert found == ({} if successor else {"acme": Reason.REVOCATION_CRL_EXPIRED})


async def test_another_rule_keeps_the_list_and_another_chain_does_not(site: Site, tmp_path: Path):
    """What was learned belongs to CAs and to where it came from."""
    now, authorities = datetime.now(UTC), acme({"crl": site.url})
    status = await followed(tmp_path, authorities, now)
    site.body = crl(ACME.issuing, (0x0A,))
    await status.renew(authorities["acme"], now)
    ruled, other = acme({"crl": site.url}, rule="x"), acme(None)
    assert serials(status, ruled) == ("0a",)
    assert serials(status, other) == ()
    await status.follow(ruled, now)
    assert serials(status, ruled) == ("0a",)
    await status.follow({}, now)
    assert serials(status, ruled) == ()


# The network


async def test_a_redirect_is_not_followed(site: Site):
    """It could lead to where only the server gets."""
    site.status, site.headers = 302, {"location": f"{site.url}/elsewhere"}
    with pytest.raises(Unavailable, match="302"):
        await fetch(site.url)
    assert site.asked == ["/ca.crl"]


async def test_what_is_too_long_or_too_slow_is_given_up(site: Site):
    """A partner's server cannot fill ours, nor hold it."""
    site.body = b"x" * 2000
    with pytest.raises(Unavailable, match="larger"):
        await fetch(site.url, limit=1999)
    assert await fetch(site.url, limit=2000) == site.body
    site.stall = 1.0
    with pytest.raises(Unavailable):
        await fetch(site.url, seconds=0.2)


async def test_what_is_compressed_stays_as_it_is(site: Site):
    """So that a small answer cannot become a large one."""
    site.body, site.headers = b"\x1f\x8b", {"content-encoding": "gzip"}
    assert await fetch(site.url) == b"\x1f\x8b"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1", "https://127.0.0.1:1/a"])
async def test_nobody_there_is_unavailable(url: str):
    """Whatever is wrong with the way there."""
    with pytest.raises(Unavailable):
        await fetch(url)


async def test_https_is_verified(tmp_path: Path):
    """A server that cannot prove its name is not believed."""
    leaf = ACME.leaf("localhost").write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf.chain, leaf.key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await fetch(f"https://127.0.0.1:{server.server_port}/")
    finally:
        server.shutdown()
        server.server_close()


async def test_lists_are_bounded_together(tmp_path: Path):
    """A partner with many CAs cannot send more to every gateway than one with a single list."""
    root = authority("Two")
    issuing = authority("Two Issuing", root)
    texts = pem(crl(issuing, range(1, MOST_REVOKED + 1)), "X509 CRL") + pem(crl(root, (5,)), "X509 CRL")
    roots = root.cert_pem.decode() + issuing.cert_pem.decode()
    status = await followed(tmp_path, acme({"crl_pem": texts}, roots=roots), datetime.now(UTC))
    fault = status.faults(datetime.now(UTC))["acme"]
    assert (fault.reason, "20001 entries" in fault.evidence["list"]) == (Reason.REVOCATION_CRL_UNUSABLE, True)


async def test_a_clock_that_was_set_back_holds_up_no_look(site: Site, tmp_path: Path):
    """Who was revoked meanwhile would come in for as long as the clock is behind."""
    now, authorities = datetime.now(UTC), acme({"crl": site.url})
    site.body = crl(ACME.issuing, until=10 * DAY, since=-2 * DAY)
    status = await followed(tmp_path, authorities, now)
    await status.renew(authorities["acme"], now)
    assert status.due(now) == []
    assert [one.name for one in status.due(now - DAY)] == ["acme"]
    assert status.next_look(now - DAY) <= LATEST.total_seconds()


async def test_what_counts_of_several_lists_is_kept_whatever_the_others_are(site: Site, tmp_path: Path):
    """One CA's list that has ended, or is gone, must not undo at a restart what another's says."""
    root = authority("Acme Root")
    issuing = authority("Acme Issuing", root)
    now, chain = datetime.now(UTC), (root.cert_pem + issuing.cert_pem).decode()
    authorities = acme({"crl": site.url}, roots=chain)
    first = pem(crl(issuing, (0x0A,)), "X509 CRL") + pem(crl(root, (0x0C,)), "X509 CRL")
    ended = pem(crl(root, since=-2 * DAY, until=-DAY), "X509 CRL")
    for second in (ended, "", pem(b"0", "X509 CRL")):
        directory = tmp_path / str(len(second))
        status = await followed(directory, authorities, now)
        site.body = first.encode()
        await status.renew(authorities["acme"], now)
        newer = crl(issuing, (0x0A, 0x0B), since=timedelta(minutes=-30))
        site.body = (pem(newer, "X509 CRL") + second).encode()
        await status.renew(authorities["acme"], now)
        assert set(serials(status, authorities)) == {"0a", "0b", "0c"}
        assert set(serials(await followed(directory, authorities, now), authorities)) == {"0a", "0b", "0c"}


async def test_a_large_list_is_recalled_too(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As PEM it is larger than it came."""
    site.body = crl(ACME.issuing, range(1, 50))
    monkeypatch.setattr(foreign_crl, "MAX_LIST_BYTES", len(site.body))
    monkeypatch.setattr(foreign_status, "MAX_LIST_BYTES", len(site.body))
    now, authorities = datetime.now(UTC), acme({"crl": site.url})
    status = await followed(tmp_path, authorities, now)
    await status.renew(authorities["acme"], now)
    assert status.faults(now) == {}
    assert serials(await followed(tmp_path, authorities, now), authorities) == serials(status, authorities)
