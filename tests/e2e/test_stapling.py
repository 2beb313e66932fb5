"""What the gateway staples, as clients see it: curl and OpenSSL verify the response in the handshake."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import COMMAND_S, Platform, wait_for
from tests.support.ports import free_port

LENIENT, STRICT = "lenient.example.org", "strict.example.org"


def host(name: str, gateway: int, service: str, more: str = "") -> str:
    return f"""\
  {name}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: "off"}}
{more}    routes: [{{path: /, upstream: "{service}", allow: anyone}}]
"""


def world(gateway: int, service: str, demanding: tuple[str, ...] = (STRICT,)) -> str:
    """Give two hosts, of which some demand their staple."""
    more = {name: "    must_staple: true\n" if name in demanding else "" for name in (LENIENT, STRICT)}
    hosts = "".join(host(name, gateway, service, said) for name, said in more.items())
    return f"trust_domain: example.org\nhosts:\n{hosts}"


@pytest.fixture(scope="module")
def stapling(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Platform]:
    """Give a platform without a status listener: its gateway staples all the same."""
    gateway = free_port()
    running = Platform(tmp_path_factory.mktemp("stapling"), world(gateway, echo.url), gateway)
    try:
        running.start()
        yield running
    finally:
        running.close()


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )  # fmt: skip


def handshake(platform: Platform, name: str, *more: str) -> str:
    """Shake hands as OpenSSL does, asking for the status; the chain is verified by the root alone."""
    place = ("-connect", f"{LOOPBACK}:{platform.gateway}", "-servername", name, "-verify_hostname", name)
    done = run("openssl", "s_client", "-status", *place, "-CAfile", platform.ca, "-verify_return_error", *more)
    return done.stdout + done.stderr


def curl_verifies(platform: Platform, name: str) -> str:
    """Ask as curl does, which lets nobody pass whose staple it could not verify; give what it says."""
    place = ("--resolve", f"{name}:{platform.gateway}:{LOOPBACK}", f"https://{name}:{platform.gateway}/")
    words = ("-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cert-status", "--cacert", platform.ca)
    done = run("curl", *words, *place)
    return done.stdout if done.returncode == 0 else done.stderr


def leaf(platform: Platform, name: str) -> str:
    """Give the certificate that is shown, as OpenSSL describes it."""
    said = handshake(platform, name).partition("Server certificate")[2]  # what stands before is of the response
    shown = re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----", said, re.DOTALL)
    assert shown
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-text"], input=shown[0], capture_output=True, text=True, timeout=COMMAND_S, check=True
    )  # fmt: skip
    return done.stdout


def serial(platform: Platform, name: str) -> str:
    found = re.search(r"Serial Number:\s+([0-9a-f:]+)", leaf(platform, name))
    assert found
    return found[1].replace(":", "")


@pytest.mark.parametrize("name", [LENIENT, STRICT])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_given_a_good_response(stapling: Platform, name: str, version: str):
    """In the handshake, for the very certificate that is shown, until an hour from now."""
    said = handshake(stapling, name, version)
    assert "Verify return code: 0 (ok)" in said
    assert "OCSP Response Status: successful (0x0)" in said
    assert "Cert Status: good" in said
    assert f"Serial Number: {serial(stapling, name).upper()}" in said
    assert "Next Update: " in said


@pytest.mark.parametrize("name", [LENIENT, STRICT])
def test_curl_verifies_the_response(stapling: Platform, name: str):
    """Its signature, by a responder that the issuer certified, its certificate and its time."""
    assert curl_verifies(stapling, name) == "200"


def test_a_host_that_demands_says_so_in_its_certificate(stapling: Platform):
    """OpenSSL calls the extension TLS Feature; the other host has none."""
    assert re.search(r"TLS Feature:\s+status_request", leaf(stapling, STRICT))
    assert "TLS Feature" not in leaf(stapling, LENIENT)


def test_the_metrics_say_until_when(stapling: Platform):
    """By host, and what Envoy itself has."""
    with urllib.request.urlopen(stapling.metrics_url, timeout=COMMAND_S) as response:
        text = response.read().decode()
    ends = dict(re.findall(r'handfast_staple_next_update_seconds{host="([^"]+)"} (\S+)', text))
    assert set(ends) == {LENIENT, STRICT}
    (soonest,) = re.findall(r"envoy_server_seconds_until_first_ocsp_response_expiring{} (\d+)", text)
    assert 30 * 60 < int(soonest) <= 60 * 60


def test_a_revoked_host_gets_another_certificate_with_a_staple_of_its_own(stapling: Platform):
    """As soon as the gateway hears of it. Whoever insists on a staple is let in all the while, or refused: never told `good` of the old one."""
    before = serial(stapling, STRICT)
    stapling.run("cert", "revoke", before)
    wait_for("another certificate", lambda: serial(stapling, STRICT) != before)
    assert curl_verifies(stapling, STRICT) == "200"
    assert re.search(r"TLS Feature:\s+status_request", leaf(stapling, STRICT))


def test_a_world_may_begin_and_cease_to_demand(stapling: Platform, echo: Echo):
    """The certificate follows, with its staple there from the first moment; Envoy rejects nothing."""
    for demanding in ((LENIENT, STRICT), (), (STRICT,)):
        stapling.apply(world(stapling.gateway, echo.url, demanding))
        for name in (LENIENT, STRICT):
            assert ("TLS Feature" in leaf(stapling, name)) == (name in demanding)
            assert curl_verifies(stapling, name) == "200"
    assert [agent["findings"] for agent in stapling.status()["agents"]] == [[]]


def test_after_a_restart_there_is_a_staple_at_once(stapling: Platform):
    """It was kept, and nobody has to be asked: the response is the same."""
    before = {name: handshake(stapling, name) for name in (LENIENT, STRICT)}
    stapling.stop()
    stapling.start()
    for name, said in before.items():
        again = handshake(stapling, name)
        for field in ("Produced At", "Serial Number", "Next Update"):
            (one,), (other,) = (re.findall(rf"^ *{field}: (.*)$", text, re.MULTILINE)[:1] for text in (said, again))
            assert one == other
        assert curl_verifies(stapling, name) == "200"
