"""Authorities that follow one another under real processes, while a customer sends requests all the time."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.trust.facts import facts, pem_certificates
from tests.e2e.customer import Customer
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Platform, wait_for
from tests.support.clock import FakeClock
from tests.support.ports import free_port

HOST, SETTLE_S = "api.example.org", 0.5
STEP_S = 25.0
"""Renewals of this pace come within four seconds of a step; a shared machine may be slow."""


@pytest.fixture
def site(tmp_path: Path, echo: Echo) -> Iterator[Platform]:
    """Give a platform of its own, not started yet, in which a step settles within half a second: all of it is on this host."""
    gateway = free_port()
    world = f"""\
trust_domain: example.org
workloads: {{payments: {{dns: [payments.internal], ttl: 2h}}}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: required}}
    routes: [{{path: /, upstream: "{echo.url}", allow: [payments]}}]
"""
    made = Platform(tmp_path, world, gateway, "--settle", str(SETTLE_S))
    yield made
    made.close()


def stages(site: Platform) -> list[str]:
    """Give the stage of each generation."""
    return [row.stage for row in site.authorities().generations]


def reached(site: Platform, *wanted: str) -> None:
    """Wait until the generations are in these stages; where they are not in time, say who holds them up."""
    try:
        wait_for(f"state {wanted}", lambda: stages(site) == list(wanted), STEP_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.run('ca', 'status').stdout}") from error


def killed(site: Platform, customer: Customer) -> None:
    """Kill the platform with SIGKILL, and start it again."""
    with customer.resting():
        site.stop(signal.SIGKILL)
        site.start()


def issuers_of(site: Platform) -> set[str]:
    """Give the issuers of unexpired certificates."""
    return {row["issuer"] for row in site.inventory() if row["state"] == "issued"}


def shown_issuer(site: Platform, file: str) -> str:
    """Give the issuer of a certificate that the platform keeps for people."""
    return facts(pem_certificates((site.data / file).read_text())[0]).aki


@pytest.mark.timeout(180)
def test_a_root_is_replaced_with_the_platform_killed_between_the_steps_and_with_a_way_back(site: Platform):
    """From prepare to retired: no request fails, nobody is cut off, and nobody waits for a certificate that was replaced."""
    site.start()
    old_root = site.ca.read_bytes()
    with Customer(site, HOST, "payments", SETTLE_S, senders=4).at_work() as customer:
        site.run("ca", "rotate", "--root")
        reached(site, "retiring", "issuing")
        between = site.issue("staff/brief", ttl_seconds=6)  # nobody renews it, so it is waited for
        site.go_back()
        reached(site, "issuing", "retired")
        assert old_root.decode().strip() == site.authorities().bundle.strip()
        assert datetime.now(UTC) >= between.leaf.not_valid_after_utc

        site.run("ca", "rotate", "--root")
        reached(site, "issuing", "retired", "published")
        killed(site, customer)
        reached(site, "retiring", "retired", "issuing")
        killed(site, customer)
        reached(site, "retired", "retired", "issuing")

        bundle = pem_certificates(site.authorities().bundle)
        assert len(bundle) == 1
        assert old_root.decode().strip() != site.authorities().bundle.strip()
        wait_for("customer who knows the new root alone", lambda: pem_certificates(customer.held.bundle_pem) == bundle)
        sent = customer.statuses[200]
        wait_for("more requests", lambda: customer.statuses[200] > sent + 20)
    first, _, newest = (row.issuer for row in site.authorities().generations)
    assert customer.held.leaf.aki == shown_issuer(site, "operator/cert.pem") == newest
    assert issuers_of(site) >= {
        first,
        newest,
    }  # the old ones would have lived on for up to a week, and nobody waited for them
    steps = [(event["step"], event["generation"], event["stranded"]) for event in site.events("rotation.stepped")]
    there = [("begin", 2, 0), ("make", 2, 0), ("publish", 2, 0), ("switch", 2, 0), ("back", 2, 0), ("retire", 2, 0)]
    assert steps[:6] == there
    assert steps[6:] == [("begin", 3, 0), ("make", 3, 0), ("publish", 3, 0), ("switch", 3, 0), ("retire", 1, 0)]
    assert sent > 200


@pytest.mark.timeout(120)
def test_host_certificates_are_replaced_under_load(site: Platform):
    """Open connections, new connections and requests go on while Envoy gets one host certificate after the other."""
    site.start()
    with Customer(site, HOST, "payments", SETTLE_S, senders=8).at_work() as customer:
        for number in (1, 2, 3):
            site.run("ca", "rotate")
            reached(site, *["retired"] * number, "issuing")
            newest = site.authorities().generations[-1].issuer
            hosts = [row for row in site.inventory() if row["name"].startswith("handfast/gateway/")]
            (serial,) = [row["serial"] for row in hosts if row["issuer"] == newest]
            wait_for("new connections with the newest", lambda serial=serial: int(serial, 16) in customer.served)
    assert len(customer.served) == 4
    assert customer.statuses[200] > 500


@pytest.mark.timeout(120)
def test_everything_is_renewed_early_where_its_issuer_is_near_its_end(site: Platform):
    """Of the issuing CA less than a third is left: the next one comes as soon as somebody brings the root's key, and all follows it."""
    begun = datetime.now(UTC) - timedelta(days=250)
    site.data.mkdir(mode=0o700)
    create_authority(site.data / "authority", TrustDomain("example.org"), FakeClock(begun), None)
    near_its_end = facts(pem_certificates((site.data / "authority" / "issuing.pem").read_text())[0])
    assert near_its_end.window.not_after - datetime.now(UTC) < timedelta(days=122)
    key = site.data / "authority" / "root-key.pem"
    safe = key.rename(site.directory / "safe.pem")
    site.start()
    assert "stuck: " in site.run("ca", "status", expect=1).stdout
    with Customer(site, HOST, "payments", SETTLE_S).at_work() as customer:
        assert issuers_of(site) == {near_its_end.ski}
        safe.rename(key)
        reached(site, "retired", "issuing")
        newest = site.authorities().generations[-1].issuer
        assert customer.held.leaf.aki == newest
        assert shown_issuer(site, "operator/cert.pem") == newest
    names = {row["name"] for row in site.inventory()}
    assert names > {"handfast/server", "handfast/agent/local", "handfast/gateway/local", "payments"}
    for name in names:
        rows = [row for row in site.inventory() if row["name"] == name]
        assert newest in {row["issuer"] for row in rows}, name
        # Each was replaced long before it had lived for two thirds of its life, and ends before its issuer.
        assert near_its_end.ski in {row["issuer"] for row in rows}, name
        ends = {newest: site.authorities().generations[-1].ends, near_its_end.ski: near_its_end.window.not_after}
        assert all(datetime.fromisoformat(row["not_after"]) <= ends[row["issuer"]] for row in rows)
    (begin, *_) = site.events("rotation.stepped")
    assert begin["requester"] == "server: a third of the issuing authority's life was left"
