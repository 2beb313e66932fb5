import contextlib
import json
import re
import socket
import stat
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.clients import Connection, curl
from tests.e2e.echo import LOOPBACK
from tests.e2e.platform import Client, Platform, wait_for
from tests.e2e.world import COUNTED
from tests.support.pki import Files

VERBS = (
    ("up",), ("apply",), ("diff",), ("export",), ("status",), ("events",), ("explain",),
    ("cert", "issue"), ("cert", "list"), ("cert", "show"), ("cert", "revoke"),
)  # fmt: skip


def openssl(*words: str | Path) -> str:
    """Run openssl; it succeeds."""
    done = subprocess.run(["openssl", *words], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def issued(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory that 'handfast cert issue --p12' fills."""
    directory = tmp_path_factory.mktemp("issued") / "ledger"
    words = ("--dns", "ledger.internal", "--dns", "ledger.example.org", "--ttl", "2h", "--p12", "--out", directory)
    (directory.parent / "said").write_text(platform.run("cert", "issue", "ledger", *words).stdout)
    return directory


def test_issued_files_are_for_their_owner(issued: Path):
    """'handfast cert issue' writes chain, key, roots and PKCS#12, all with mode 0600, and says where."""
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in issued.iterdir()} == dict.fromkeys(
        ("cert.pem", "key.pem", "ca.pem", "client.p12"), 0o600
    )
    said = (issued.parent / "said").read_text()
    assert [path.name for path in issued.iterdir() if str(path) not in said] == []


@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_accepts_the_chain(issued: Path, purpose):
    """'openssl verify' builds the chain from the files, for a client and for a server of that name."""
    chain, ca = issued / "cert.pem", issued / "ca.pem"
    name = ("-verify_hostname", "ledger.internal")
    said = openssl("verify", "-x509_strict", "-purpose", purpose, *name, "-CAfile", ca, "-untrusted", chain, chain)
    assert said == f"{chain}: OK\n"


def test_openssl_opens_the_p12(issued: Path):
    """'openssl pkcs12' opens the file with the password that was printed, and finds key and chain; another fails."""
    (password,) = re.findall(r"client\.p12, password (\S+) ", (issued.parent / "said").read_text())
    text = openssl("pkcs12", "-in", issued / "client.p12", "-passin", f"pass:{password}", "-nodes")
    assert text.count("BEGIN CERTIFICATE") >= 2
    assert text.count("BEGIN PRIVATE KEY") == 1
    assert (issued / "key.pem").read_text().split() == text[
        text.index("-----BEGIN PRIVATE") : text.index("END PRIVATE KEY-----") + 20
    ].split()
    command = ["openssl", "pkcs12", "-in", issued / "client.p12", "-passin", "pass:other", "-nokeys"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=20).returncode == 1


def test_the_certificate_says_what_was_asked_for(issued: Path):
    """The leaf has the names and the life that were asked for, and 'handfast' and OpenSSL read the same."""
    text = openssl(
        "x509", "-in", issued / "cert.pem", "-noout", "-ext", "subjectAltName,extendedKeyUsage,basicConstraints"
    )
    assert "URI:spiffe://example.org/ledger" in text
    assert "DNS:ledger.internal" in text
    assert "DNS:ledger.example.org" in text
    assert "TLS Web Client Authentication" in text
    assert "CA:FALSE" in text
    leaf = Client(Files(issued / "cert.pem", issued / "key.pem")).leaf
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert 2 * 3600 <= life.total_seconds() <= 2 * 3600 + 120


def test_list_and_show_find_what_was_issued(platform: Platform, issued: Path):
    """The inventory has the certificate with its serial, and shows it as the file is shown."""
    client = Client(Files(issued / "cert.pem", issued / "key.pem"))
    lines = platform.run("cert", "list", "--name", "ledger").stdout.splitlines()
    assert len([line for line in lines if line.startswith(client.serial[:16]) and "ledger.example.org" in line]) == 1
    rows = json.loads(platform.run("cert", "list", "--name", "ledger", "--state", "issued", "--json").stdout)
    (row,) = [row for row in rows if row["serial"] == client.serial]
    assert row["identity"] == "spiffe://example.org/ledger"
    assert row["dns"] == ["ledger.internal", "ledger.example.org"]
    from_file = platform.run("cert", "show", issued / "cert.pem")
    from_server = platform.run("cert", "show", client.serial)
    assert client.serial in from_file.stdout
    assert client.fingerprint in from_server.stdout


def test_revoking_twice_is_refused_with_a_hint(platform: Platform):
    """The first revocation is told, the second refused with exit code 1 and what to do."""
    client = platform.issue("staff/twice")
    assert (
        f"serial {client.serial}, keyCompromise"
        in platform.run("cert", "revoke", client.serial, "--reason", "keyCompromise").stdout
    )
    error, hint = platform.run("cert", "revoke", client.serial, expect=1).stderr.splitlines()
    assert error.startswith("handfast: error: it is revoked already")
    assert hint.startswith("handfast: hint: ")


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_shows_an_example(platform: Platform, verb):
    """Every command's help has an example of the command itself."""
    text = platform.run(*verb, "--help").stdout
    examples = text.partition("Examples")[2].partition("╭")[0]
    assert f"handfast {' '.join(verb)}" in examples


def test_the_shell_completes(platform: Platform, tmp_path: Path):
    """What '--show-completion bash' prints is bash, and completes the commands when bash runs it."""
    script = tmp_path / "completion.bash"
    script.write_text(platform.run("--show-completion", "bash").stdout)
    subprocess.run(["bash", "-n", script], check=True, timeout=20)
    environment = {"COMP_WORDS": "handfast ce", "COMP_CWORD": "1", "_HANDFAST_COMPLETE": "complete_bash"}
    assert platform.run(environment=environment).stdout.split() == ["cert"]


def test_an_unknown_id_is_told_with_a_hint(platform: Platform):
    """'handfast explain' of nothing is a refusal with words, not a traceback."""
    error, hint = platform.run("explain", "0" * 8, expect=1).stderr.splitlines()
    assert error.startswith("handfast: error: there is no such thing")
    assert "handfast events" in hint


# Metrics


def counted(platform: Platform) -> dict[tuple[str, ...], float]:
    """Give the platform's own counters, by name and labels."""
    with urllib.request.urlopen(platform.metrics_url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("handfast_")]
    return {(sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value for sample in samples}


def test_metrics_count_what_happened(platform: Platform, payments: Client):
    """Handshakes by reason, requests by decision, certificates issued and revoked: each by as many as there were."""
    with Connection(platform, COUNTED, payments.files) as connection:
        assert [connection.request().status for _ in range(5)] == [200] * 5
    assert [curl(platform, f"{COUNTED}/").status for _ in range(3)] == [403] * 3
    speak_plainly(platform)
    platform.run("cert", "revoke", platform.issue("staff/counted").serial, "--reason", "cessationOfOperation")
    expected = {
        ("handfast_requests_total", "allowed", "local", COUNTED): 5,
        ("handfast_requests_total", "client.no-certificate", "local", COUNTED): 3,
        ("handfast_handshakes_total", "local", "tls.plaintext-on-tls-port"): 1,
        ("handfast_certificates_issued_total",): len(platform.inventory()),
        ("handfast_certificates_revoked_total", "cessationOfOperation"): 1,
    }
    seen: dict[tuple[str, ...], float] = {}
    until = time.monotonic() + 10.0
    while seen != expected and time.monotonic() < until:
        now = counted(platform)
        seen = {key: now.get(key, 0) for key in expected}
    assert seen == expected


def speak_plainly(platform: Platform) -> None:
    """Send plain HTTP to the gateway, and wait until it hangs up."""
    with socket.create_connection((LOOPBACK, platform.gateway), 5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP/" not in plain.recv(1024)


def test_metrics_show_how_things_stand(platform: Platform):
    """Gauges tell ends of authorities, certificates by state, and that the agent is current."""
    wait_for("the agent to be current", lambda: counted(platform)["handfast_agent_current", "local"] == 1, 5.0)
    now = counted(platform)
    assert now["handfast_certificates", "issued"] >= 3
    assert now["handfast_authority_expiry_seconds", "root"] > now["handfast_authority_expiry_seconds", "issuing"]
