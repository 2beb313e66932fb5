import stat
from pathlib import Path

import pytest

from handfast.base.reasons import Reason
from tests.e2e.clients import Response, fetch
from tests.e2e.feed import Feed
from tests.e2e.platform import Client, Platform
from tests.support.pki import Files, Pki


@pytest.fixture(scope="session")
def operator(platform: Platform) -> Files:
    """Give the operator's certificate as 'handfast up' leaves it."""
    directory = platform.data / "operator"
    return Files(directory / "cert.pem", directory / "key.pem")


def call(platform: Platform, path: str, *options: str, files: Files | None = None) -> Response:
    """Call the API with curl, over mutual TLS."""
    ca = platform.data / "operator" / "ca.pem"
    return fetch(f"https://localhost:{platform.api_port}{path}", ca, *options, files=files)


def test_an_operator_may_do_all(platform: Platform, operator: Files):
    """With the operator's certificate curl reads the status, the world, the inventory and the events."""
    status = call(platform, "/v1/status", files=operator)
    assert (status.status, status.plain["trust_domain"]) == (200, "example.org")
    assert call(platform, "/v1/world", files=operator).body.decode() == platform.world_file.read_text()
    assert call(platform, "/v1/certificates", files=operator).plain["certificates"]
    assert call(platform, "/v1/events?last=1", files=operator).plain["events"]


@pytest.mark.parametrize("path", ["/v1/status", "/v1/world", "/v1/certificates", "/v1/events", "/v1/agents/self/world"])
def test_others_may_not(platform: Platform, payments: Client, path):
    """Without a certificate the caller is unknown (401); a workload's is known, and may not (403)."""
    nobody, workload = call(platform, path), call(platform, path, files=payments.files)
    assert (nobody.status, nobody.plain["code"]) == (401, Reason.CALLER_UNKNOWN)
    assert (workload.status, workload.plain["code"]) == (403, Reason.CALLER_NOT_ALLOWED)
    assert nobody.one("content-type") == workload.one("content-type") == "application/problem+json"


def test_a_workload_may_not_issue_or_revoke_or_apply(platform: Platform, payments: Client):
    """What changes something is refused to a workload, and changes nothing."""
    before = platform.status()["revision"]
    for method, path in (("POST", "/v1/certificates"), ("POST", "/v1/revocations"), ("PUT", "/v1/world")):
        answer = call(platform, path, "-X", method, "-d", "{}", files=payments.files)
        assert (answer.status, answer.plain["code"]) == (403, Reason.CALLER_NOT_ALLOWED)
    assert platform.status()["revision"] == before


def test_roots_are_public(platform: Platform):
    """Anyone may read the trust domain's roots: they are what a client needs before it has anything."""
    answer = call(platform, "/v1/authority")
    assert (answer.status, answer.plain["bundle"]) == (200, platform.ca.read_text())


def test_a_revoked_operator_is_nobody(platform: Platform, tmp_path: Path):
    """An operator's certificate opens the API until it is revoked."""
    platform.run("cert", "issue", "bob", "--operator", "--out", tmp_path)
    client = Client(Files(tmp_path / "cert.pem", tmp_path / "key.pem"))
    assert call(platform, "/v1/status", files=client.files).status == 200
    platform.revoke(client)
    answer = call(platform, "/v1/status", files=client.files)
    assert (answer.status, answer.plain["code"]) == (403, Reason.REVOKED)


def test_a_certificate_of_another_authority_fails_the_handshake(platform: Platform, feed: Feed, tmp_path: Path):
    """The server's own front refuses foreign certificates at TLS, and records them as a gateway does."""
    stranger = Pki("Elsewhere").leaf("handfast/operator/eve")
    files = stranger.write(tmp_path, "stranger")
    with pytest.raises(AssertionError, match=r"curl: \((35|55|56)\)"):
        call(platform, "/v1/status", files=files)
    event = feed.find(kind="handshake.refused", gateway="server")
    assert (event["reason"], event["certificate"]["issuer"]) == (Reason.CHAIN_UNKNOWN_AUTHORITY, "CN=Elsewhere Issuing")


def test_a_name_is_reserved(platform: Platform):
    """Nobody gets an identity below 'handfast/' by asking for its name."""
    done = platform.run("cert", "issue", "handfast/operator/eve", expect=1)
    assert Reason.ENTRY_RESERVED.summary in done.stderr


def test_the_command_line_works_from_elsewhere(platform: Platform, tmp_path: Path):
    """With --server and an operator's directory every command goes over mutual TLS; with a workload's it is refused."""
    server = ("--server", f"https://localhost:{platform.api_port}")
    done = platform.run("export", *server, "--identity", platform.data / "operator")
    assert done.stdout == platform.world_file.read_text()
    platform.run("cert", "issue", "reports", "--out", tmp_path)
    refused = platform.run("export", *server, "--identity", tmp_path, expect=1)
    assert Reason.CALLER_NOT_ALLOWED.summary in refused.stderr


def test_the_local_socket_is_the_owners(platform: Platform):
    """Whoever reaches the local socket is an operator, so nobody but its owner does; keys are read by nobody else either."""
    assert stat.S_IMODE(platform.data.stat().st_mode) == 0o700
    private = [path for path in platform.data.rglob("*") if path.suffix == ".sock" or "key" in path.name]
    assert len(private) >= 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
