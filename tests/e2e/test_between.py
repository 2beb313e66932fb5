"""A CA between root and issuing CA, in the hands of others: real Envoy, curl and openssl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo import LOOPBACK
from tests.e2e.platform import HANDFAST, wait_for
from tests.e2e.test_status import Published, addresses, key_id, run
from tests.support.offline_root import offline_root

pytestmark = pytest.mark.e2e
DOMAIN = "demo.localhost"


class Chained(Published):
    """``handfast up`` under a chain of three, whose upper two keepers used openssl."""

    def __init__(self, directory: Path) -> None:
        """Request, have it signed, install, start."""
        self.top = offline_root(directory / "safe")
        self.policy = self.top.below(directory / "policy")
        data, issuing, ocsp = directory / "data", directory / "issuing.csr", directory / "ocsp.csr"
        words = ["--trust-domain", DOMAIN, "--status-url", "http://status.example.org", "--data", data]
        self._handfast("ca", "csr", *words, "--out", issuing, "--ocsp-out", ocsp)
        self.policy.sign(ocsp, name="ocsp")
        chain = self.policy.sign(issuing)
        parts = (self.policy.directory / "ocsp.pem", chain, self.top.pem, self.policy.crl(), self.top.crl())
        whole = directory / "whole.pem"
        whole.write_text("".join(one.read_text() for one in parts))
        self._handfast("ca", "install", whole, "--root-fingerprint", self.top.fingerprint, "--data", data)
        (data / "demo").mkdir(0o700)  # where it is, the demo runs
        super().__init__(directory)

    def _handfast(self, *words: str | Path) -> None:
        done = run(HANDFAST, *words)
        assert done.returncode == 0, done.stderr

    @property
    def demo(self) -> str:
        """The address of the demo's page."""
        return next(line for line in self.greeting.splitlines() if "--cert" in line and "DELETE" not in line).split()[
            -1
        ]

    def get(self, chain: Path, key: Path) -> tuple[int, str]:
        """Ask the gateway as curl does: its exit code, and the status."""
        trust = ("--cacert", self.top.pem, "--cert", chain, "--key", key)
        done = run("curl", "-sS", *trust, "-o", "/dev/null", "-w", "%{http_code}", self.demo)
        return done.returncode, done.stdout.decode()

    def events(self) -> list[dict[str, str]]:
        """Give what was refused."""
        done = run(HANDFAST, "events", "--json", "--data", self.data)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chained]:
    """Give the platform."""
    running = Chained(tmp_path_factory.mktemp("between"))
    try:
        yield running
    finally:
        running.close()


def certificates(text: str) -> list[str]:
    end = "-----END CERTIFICATE-----\n"
    return [f"{part}{end}" for part in text.split(end) if "BEGIN" in part]


def test_the_gateway_sends_the_whole_chain_and_takes_it(up: Chained):
    """Both curl and openssl trust the root alone, and see leaf, issuing CA and the one between; so does Envoy of a client."""
    client = up.data / "demo" / "client.pem"
    sent = certificates(client.read_text())
    assert sent[1:] == [up.issuing.read_text(), up.policy.pem.read_text()]
    assert certificates((up.data / "demo" / "ca.pem").read_text()) == [up.top.pem.read_text()]
    assert up.get(client, up.data / "demo" / "client-key.pem") == (0, "200")
    host = up.demo.removeprefix("https://").partition(":")[0]
    where = ("-connect", f"{LOOPBACK}:{up.gateway}", "-servername", host)
    shown = run("openssl", "s_client", *where, "-CAfile", up.top.pem, "-verify_return_error", "-showcerts", input_=b"")
    assert b"Verify return code: 0 (ok)" in shown.stdout
    assert shown.stdout.count(b"BEGIN CERTIFICATE") == 3


def test_revocation_works_with_a_list_of_each_ca(up: Chained):
    """With lists in force Envoy takes who is good, and refuses who is not; openssl checks the same chain with what is published."""
    gone, stays = up.issue("gone"), up.data / "demo" / "client.pem"
    assert up.get(gone, gone.with_name("key.pem"))[1] == "403"  # known, and not allowed here
    up.revoke("gone")
    wait_for("the refusal", lambda: up.get(gone, gone.with_name("key.pem"))[0] != 0)
    assert up.get(stays, up.data / "demo" / "client-key.pem") == (0, "200")
    lists = [
        up.fetch(addresses(gone)["crl"]),
        up.fetch(f"{up.url}/crl/{key_id(up.policy.pem)}/0.crl"),
        up.fetch(f"{up.url}/crl/{key_id(up.top.pem)}/0.crl"),
    ]
    files = [word for one in lists for word in ("-CRLfile", str(one))]
    base = ("openssl", "verify", "-CAfile", up.top.pem, "-untrusted", gone, "-crl_check_all", *files)
    assert b"certificate revoked" in run(*base, gone).stderr
    assert b": OK" in run(*base, stays).stdout


def test_a_client_without_the_upper_one_is_told_what_is_missing(up: Chained):
    """It sends leaf and issuing CA, as with a chain of two: the operator reads which reason it is."""
    text = certificates((up.data / "demo" / "client.pem").read_text())
    short = up.directory / "short.pem"
    short.write_text("".join(text[:2]))
    assert up.get(short, up.data / "demo" / "client-key.pem")[0] != 0
    wait_for("the reason", lambda: "chain.missing-intermediate" in [one.get("reason") for one in up.events()])


def test_the_ca_between_answers_for_the_issuing_ca(up: Chained):
    """By a key that lies here; nobody here answers for the root."""
    url = f"{up.url}/ocsp"
    by = ("-CAfile", up.top.pem, "-issuer", up.policy.pem)
    done = run("openssl", "ocsp", "-url", url, *by, "-verify_other", up.policy.pem, "-cert", up.issuing)
    assert b": good" in done.stdout, done
    assert b"Response verify OK" in done.stdout + done.stderr, done
    others = run("openssl", "ocsp", "-url", url, "-CAfile", up.top.pem, "-issuer", up.top.pem, "-cert", up.policy.pem)
    assert b"unauthorized" in others.stdout + others.stderr


def test_show_draws_all_three(up: Chained):
    """With whose key lies elsewhere."""
    shown = run(HANDFAST, "ca", "show", "--data", up.data).stdout.decode()
    assert [line.split()[0] for line in shown.splitlines() if "CN=" in line] == ["root", "between", "issuing"]
    assert "its keeper has it (elsewhere)" in shown
