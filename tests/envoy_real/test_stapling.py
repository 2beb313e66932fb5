"""What Envoy makes of staples: those it is given by hand, and those that an agent gets for it while time passes."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.access.world_file import parse_world
from handfast.app.agent.build import Agent, AgentConfig, build_agent
from handfast.base.reasons import Reason
from handfast.base.spiffe import TrustDomain
from handfast.envoy.failures import FailureReport, recognise
from handfast.envoy.translate import Gateway, KeyPair, translate
from handfast.trust.staple import HASTE
from tests.app.sites import AGENT, DOMAIN, Site, site
from tests.envoy_real.lone import LOOPBACK, PROGRAM, checked, running, slice_of
from tests.support.clock import FakeClock
from tests.support.ocsp import Saying, answer
from tests.support.partners import authority
from tests.support.pki import SERVER, Pki
from tests.support.ports import free_port
from tests.support.static_envoy import static_bootstrap

pytestmark = pytest.mark.e2e

HOST = f"api.{DOMAIN}"
ROOT = authority("Root")
ISSUING = authority("Issuing", ROOT)
PKI = Pki("Test", issuing=ISSUING, root=ROOT.cert)
MINUTE = timedelta(minutes=1)
GOOD, ENDED = Saying(), Saying(since=-60 * MINUTE, until=-MINUTE)


def world(port: int, more: str = "") -> str:
    return f"""\
trust_domain: {DOMAIN}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{port}
    clients: {{certificate: "off"}}
{more}    routes: [{{path: /, upstream: "http://{LOOPBACK}:1", allow: anyone}}]
"""


def config(
    port: int, directory: Path, staple: Saying | None, *, demands: bool, of_another: bool = False
) -> dict[str, object]:
    """Give an Envoy's configuration with one host, as the translator makes it."""
    leaf = PKI.leaf(HOST, dns=[HOST], ips=[], eku=[SERVER], must_staple=demands)
    about = PKI.leaf() if of_another else leaf
    response = answer(about.cert, ISSUING, staple) if staple else b""
    gateway = Gateway(
        program=PROGRAM,
        by="spiffe://example.org/handfast/agent/test",
        certificates={HOST: KeyPair(leaf.cert_pem.decode(), leaf.key_pem.decode(), response)},
        jwks="{}",
        upstream_roots=PKI.roots_pem.decode(),
        agent_socket=str(directory / "nobody.sock"),
        access_log=str(directory / "rows.jsonl"),
    )
    return static_bootstrap(translate(slice_of(parse_world(world(port)), PKI), gateway))


def handshake(port: int, *more: str) -> str:
    """Give OpenSSL's words."""
    words = ("-connect", f"{LOOPBACK}:{port}", "-servername", HOST, *more)
    done = subprocess.run(
        ["openssl", "s_client", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip
    return done.stdout + done.stderr


def outcome(port: int, *more: str) -> str:
    """Say what became of a handshake."""
    said = handshake(port, *more)
    if "Cipher is (NONE)" in said:
        return "refused"
    return "stapled" if "Cert Status: good" in said else "bare"


@pytest.mark.parametrize(
    ("staple", "demands", "asked", "unasked"),
    [
        (None, False, "bare", "bare"),
        (GOOD, False, "stapled", "bare"),
        (ENDED, False, "bare", "bare"),
        (GOOD, True, "stapled", "bare"),
        (ENDED, True, "refused", "bare"),
    ],
)
def test_envoy_staples_what_has_not_ended(
    tmp_path: Path, staple: Saying | None, demands: bool, asked: str, unasked: str
):
    """By a certificate that demands a staple it refuses who asks for one that has ended, and it says why in words we know."""
    port = free_port()
    with running(config(port, tmp_path, staple, demands=demands), tmp_path):
        assert (outcome(port, "-status"), outcome(port)) == (asked, unasked)
        if asked == "refused":
            assert Reason.STAPLE_ENDED in reasons(tmp_path / "rows.jsonl")


def reasons(log: Path) -> list[Reason]:
    """Give what our tables make of each failed handshake in Envoy's log."""
    until = time.monotonic() + 10
    while not (failures := re.findall(r'"([^"]*CONNECTION_REJECTED[^"]*)"', log.read_text() if log.exists() else "")):
        assert time.monotonic() < until
        time.sleep(0.05)
    return [recognise(FailureReport(failure=json.loads(f'"{words}"'))) for words in failures]


def test_envoy_takes_no_staple_of_another_certificate(tmp_path: Path):
    """It would take nothing of the secret: that is why the agent looks first."""
    said = checked(config(free_port(), tmp_path, GOOD, demands=False, of_another=True), tmp_path, "another")
    assert "OCSP response does not match its TLS certificate" in said


def test_envoy_takes_no_certificate_that_demands_without_a_staple(tmp_path: Path):
    """That is why it is not put in service before."""
    said = checked(config(free_port(), tmp_path, None, demands=True), tmp_path, "none")
    assert "OCSP response is required for must-staple certificate" in said


# With an agent


@asynccontextmanager
async def gateway(directory: Path, here: Site) -> AsyncIterator[Agent]:
    """Run an agent with its Envoy."""
    config = AgentConfig(
        name=AGENT,
        directory=directory,
        server_url=here.server.url,
        bundle_pem=here.bundle,
        trust_domain=TrustDomain(DOMAIN),
        token=here.token,
        concurrency=1,
        drain_s=0,
    )
    agent = build_agent(config, here.clock)
    try:
        await agent.start()
        yield agent
    finally:
        await agent.stop()


async def next_update(port: int) -> datetime | None:
    """Give until when the staple counts that is shown to clients; None where there is none."""
    found = re.search(r"Next Update: (.*)", await asyncio.to_thread(handshake, port, "-status"))
    return datetime.strptime(found[1], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC) if found else None


async def shown(port: int, what: datetime | None) -> datetime | None:
    """Wait until another staple is shown than this one; give it."""
    async with asyncio.timeout(15):
        while (seen := await next_update(port)) == what:
            await asyncio.sleep(0.05)
    return seen


@pytest.mark.parametrize("more", ["", "    must_staple: true\n"], ids=["lenient", "must staple"])
async def test_clients_get_the_next_response_long_before_the_old_one_ends(tmp_path: Path, more: str):
    """Forty minutes on there is another, on a gateway whose open connections go on. With the server away it is dropped in time."""
    port, clock = free_port(), FakeClock(datetime.now(UTC))
    async with site(tmp_path / "server", clock) as here:
        await here.apply(world(port, more))
        async with gateway(tmp_path / "agent", here) as agent:
            current = here.server.platform.slices.current.value
            assert current
            assert await agent.ready(current.digest, 20)
            first = await shown(port, None)
            assert first
            assert abs(first - clock.now() - 60 * MINUTE) < MINUTE
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=unverified(), server_hostname=HOST)
            clock.set(clock.now() + 45 * MINUTE)
            await clock.advance(10)
            second = await shown(port, first)
            assert second
            assert second - first > 40 * MINUTE
            writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
            assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 503")
            writer.close()
            await here.stack.aclose()
            clock.set(second - HASTE)
            await clock.advance(10)
            if not more:
                assert await shown(port, second) is None


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
