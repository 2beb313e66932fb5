import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.platform import Platform, wait_for
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Give what a newcomer gets who types 'handfast up'."""
    running = Platform(tmp_path_factory.mktemp("demo"), "", free_port())
    try:
        running.start(configured=False)
        wait_for("lines to try", lambda: len(lines_to_try(running)) == 3)
        yield running
    finally:
        running.close()


def lines_to_try(platform: Platform) -> list[str]:
    """Give the lines that the greeting tells a newcomer to try."""
    return [line.strip() for line in platform.greeting if line.strip().startswith("curl ")]


def say(line: str, *more: str) -> str:
    """Type a line as it stands."""
    done = subprocess.run([*shlex.split(line), "-sS", *more], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout


def test_the_printed_lines_work(demo: Platform):
    """The three lines that the greeting prints show a refusal, an identity, and a method that is not allowed."""
    nobody, somebody, other_method = (say(line) for line in lines_to_try(demo))
    assert '"code":"client.no-certificate"' in nobody
    assert somebody.startswith("GET /: hello, spiffe://demo.localhost/demo-client.\n")
    assert "Handfast_Authorization=" in somebody
    assert '"code":"policy.no-match"' in other_method


def test_a_refusal_can_be_explained_at_once(demo: Platform):
    """The request id of a refusal leads to the rule that was missing."""
    (id_,) = re.findall(r'"request_id":"([0-9a-f-]+)"', say(lines_to_try(demo)[2]))
    wait_for("record", lambda: [one for one in demo.events("request.denied") if one["id"] == id_])
    told = demo.run("explain", id_).stdout
    assert "demo-client GET, HEAD, POST: identity matches; method DELETE is not among GET, HEAD, POST" in told


def test_a_browser_can_have_the_certificate(demo: Platform):
    """The greeting's password opens the PKCS#12 file, and a browser gets a page."""
    (password,) = re.findall(r"client\.p12 \(password: (\S+)\)", "\n".join(demo.greeting))
    file = demo.data / "demo" / "client.p12"
    command = ["openssl", "pkcs12", "-in", file, "-passin", f"pass:{password}", "-nokeys", "-clcerts"]
    assert "BEGIN CERTIFICATE" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    page = say(lines_to_try(demo)[1], "-H", "Accept: text/html")
    assert page.startswith("<!doctype html>")


def test_a_restart_goes_on_with_the_demo(demo: Platform):
    """A second start finds the same authority and client, and the printed lines work again."""
    ca, client = demo.ca.read_bytes(), (demo.data / "demo" / "client.pem").read_bytes()
    demo.stop()
    demo.start(configured=False)
    wait_for("lines to try", lambda: len(lines_to_try(demo)) == 3)
    assert (demo.ca.read_bytes(), (demo.data / "demo" / "client.pem").read_bytes()) == (ca, client)
    assert "hello, spiffe://demo.localhost/demo-client." in say(lines_to_try(demo)[1])
