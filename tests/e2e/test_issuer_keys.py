"""The gateway and the API under authorities with each kind of key, one of them in a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.clients import GONE, TLS_1_2, TLS_1_3, Connection
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Client, Platform
from tests.support import tokens
from tests.support.ports import free_port

HOST = "api.example.org"


def platform_in(directory: Path, echo: Echo) -> Platform:
    gateway = free_port()
    world = f"""\
trust_domain: example.org
workloads: {{payments: {{}}, reports: {{}}}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    routes: [{{path: /, upstream: "{echo.url}", allow: [payments, reports]}}]
"""
    return Platform(directory, world, gateway)


def answer(platform: Platform, client: Client) -> int:
    """Give the status that a client gets, 0 where the gateway breaks off."""
    try:
        with Connection(platform, HOST, client.files) as connection:
            return connection.request("/").status
    except GONE:
        return 0


def check(platform: Platform) -> None:
    """Issue, be let in with both versions of TLS, be revoked, be refused; then start again."""
    platform.start()
    client = platform.issue("payments")
    for version in (TLS_1_2, TLS_1_3):
        with Connection(platform, HOST, client.files, version) as connection:
            assert connection.request("/").status == 200
    platform.revoke(client)
    assert answer(platform, client) != 200
    with Connection(platform, HOST, platform.issue("reports").files) as connection:
        assert connection.request("/").status == 200
    platform.run("cert", "issue", "reports", "--out", "reports")
    assert platform.stop() == 0


@pytest.mark.parametrize("kind", ["p384", "rsa2048", "ed25519"])
def test_envoy_takes_chains_of_each_kind(tmp_path: Path, echo: Echo, kind: str):
    """Root and issuing CA have keys of that kind, also when Envoy reads their revocation lists."""
    platform = platform_in(tmp_path, echo)
    platform.run("ca", "init", "--trust-domain", "example.org", "--root-key-type", kind, "--key-type", kind)
    try:
        check(platform)
    finally:
        platform.close()


@tokens.NEEDED
def test_the_issuing_key_lies_in_a_token(tmp_path: Path, echo: Echo, monkeypatch: pytest.MonkeyPatch):
    """No issuing key is in the data directory, and everything works as with one."""
    token = tokens.new_token(tmp_path / "token", monkeypatch)
    token.make("p256", "issuing")
    platform = platform_in(tmp_path, echo)
    platform.run("ca", "init", "--trust-domain", "example.org", "--key", token.uri("issuing"))
    assert not (platform.data / "authority" / "issuing-key.pem").exists()
    try:
        check(platform)
        assert tokens.PIN not in (platform.data / "handfast.log").read_text()
    finally:
        platform.close()
