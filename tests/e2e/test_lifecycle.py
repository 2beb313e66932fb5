import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.clients import GONE, Connection
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import HANDFAST, Platform, wait_for
from tests.e2e.processes import Process, below
from tests.support.pki import Files
from tests.support.ports import free_port

HOST = "api.example.org"
BACK_S = 2.0
"""How soon the gateway serves again after its Envoy was killed."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Platform]:
    """Give a platform that may be stopped and started."""
    gateway = free_port()
    world = f"""\
trust_domain: example.org
workloads: {{payments: {{}}}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    routes: [{{path: /, upstream: "{echo.url}", allow: [payments]}}]
"""
    made = Platform(tmp_path_factory.mktemp("lifecycle"), world, gateway)
    yield made
    made.close()


@pytest.fixture
def site(installation: Platform) -> Platform:
    """Give it running."""
    if not installation.running:
        installation.start()
    return installation


def envoys(platform: Platform) -> list[Process]:
    """Give the Envoys that run below a platform."""
    return [one for one in below(platform.pid) if one.name == "envoy"]


def answers(platform: Platform, files: Files) -> bool:
    """Tell whether the gateway serves a client."""
    try:
        with Connection(platform, HOST, files) as connection:
            return connection.request().status == 200
    except GONE:
        return False


def is_listening(port: int) -> bool:
    """Tell whether anybody listens on a port."""
    try:
        socket.create_connection((LOOPBACK, port), 1).close()
    except OSError:
        return False
    return True


def check_all_gone(processes: list[Process], platform: Platform) -> None:
    """Check that nothing is left of a platform that was stopped."""
    wait_for("end of all processes", lambda: not any(one.alive for one in processes), BACK_S)
    # The kernel closes a process's sockets a moment after it counts as dead.
    wait_for("end of the listening", lambda: not is_listening(platform.gateway), BACK_S)


def test_a_restart_finds_its_state(site: Platform):
    """Authority, certificates, revocations, events and the world are the same after a restart."""
    kept, revoked = site.issue("payments"), site.issue("payments")
    site.revoke(revoked)
    with Connection(site, HOST, site.issue("stranger").files) as connection:
        id_ = connection.request().plain["request_id"]
    wait_for("record", lambda: [one for one in site.events("request.denied") if one["id"] == id_])
    explained, ca, before = site.explanation(id_), site.ca.read_bytes(), site.status()
    events, inventory = site.events(), site.inventory()
    assert site.stop() == 0
    site.start()
    assert site.ca.read_bytes() == ca
    assert [event for event in site.events() if event in events] == events
    assert [row for row in site.inventory() if row in inventory] == inventory
    assert site.explanation(id_) == explained
    after = site.status()
    assert (after["revision"], after["authority"]) == (before["revision"], before["authority"])
    assert answers(site, kept.files)
    assert not answers(site, revoked.files)


def test_the_world_that_was_applied_last_counts_after_a_restart(site: Platform):
    """A start without --config goes on with the world that was applied while it ran."""
    written, clerk = site.world_file.read_text(), site.issue("clerk")
    site.apply(written.replace("[payments]", "[payments, clerk]"))
    assert answers(site, clerk.files)
    site.stop()
    site.start(configured=False)
    assert answers(site, clerk.files)
    site.apply(written)


def test_envoy_comes_back_when_it_is_killed(site: Platform):
    """Killed with SIGKILL, Envoy is replaced and serves again within two seconds, with a finding that says so."""
    client = site.issue("payments")
    (first,) = envoys(site)
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    wait_for("gateway that serves", lambda: answers(site, client.files), BACK_S + 5)
    assert time.monotonic() - killed < BACK_S
    (second,) = envoys(site)
    assert second.pid != first.pid

    def findings() -> list[str]:
        return [event["evidence"]["how"] for event in site.events("finding.raised") if event["reason"] == "envoy.died"]

    assert wait_for("finding", findings) == ["signal SIGKILL"]


def test_no_envoy_outlives_a_platform_that_is_killed(site: Platform):
    """Killed with SIGKILL, the program takes its Envoy along, and a new start finds everything in order."""
    client = site.issue("payments")
    processes = below(site.pid)
    assert envoys(site)
    site.stop(signal.SIGKILL)
    check_all_gone(processes, site)
    site.start()
    assert answers(site, client.files)
    assert site.run("status").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(site: Platform, number):
    """Ctrl-C, and what service managers send, end the program well, with every process that it started."""
    processes, api = below(site.pid), site.api_port
    assert envoys(site)
    assert site.stop(number) == 0
    check_all_gone(processes, site)
    assert not is_listening(api)
    assert (site.directory / "up.err").read_text().splitlines()[-1] == "stopped"
    assert "no server runs" in site.run("status", expect=2).stderr


def test_ctrl_c_of_a_terminal_ends_open_connections_in_time(site: Platform):
    """Ctrl-C reaches the whole foreground group, and an idle connection does not hold the program up for long."""
    with Connection(site, HOST, site.issue("payments").files) as connection:
        assert connection.request().status == 200
        processes, began = below(site.pid), time.monotonic()
        os.killpg(site.pid, signal.SIGINT)
        assert site.wait() == 0
    assert time.monotonic() - began < 8.0
    check_all_gone(processes, site)


@pytest.mark.parametrize("after", [0.5, 1.0])
def test_ctrl_c_while_starting_leaves_nothing_behind(site: Platform, after):
    """Ctrl-C at any moment of the start ends it, and the next start works."""
    site.stop()
    site.launch()
    time.sleep(after)
    processes = below(site.pid)
    site.stop()
    check_all_gone(processes, site)
    site.start()
    assert answers(site, site.issue("payments").files)


def test_two_do_not_share_a_directory(site: Platform):
    """A second start with the same data directory is refused, and does the first no harm."""
    done = site.run("up", "--config", site.world_file, "--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0", expect=3)
    assert "another 'handfast up' runs" in done.stderr
    assert answers(site, site.issue("payments").files)


def test_a_taken_port_is_told(site: Platform, tmp_path):
    """A start whose API port is taken ends with words that name it, and leaves no process."""
    command = [HANDFAST, "up", "--config", site.world_file, "--data", tmp_path / "second", "--admin", f"{LOOPBACK}:0"]
    done = subprocess.run(
        [*command, "--api", f"{LOOPBACK}:{site.api_port}"], check=False, capture_output=True, text=True, timeout=40
    )
    assert done.returncode == 2
    assert str(site.api_port) in done.stderr
    assert "handfast: hint: " in done.stderr
