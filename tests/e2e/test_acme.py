import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from tests.e2e.clients import curl
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Platform, serial_of, wait_for
from tests.support.names import Names
from tests.support.pki import Files
from tests.support.ports import free_port

HOST = "api.example.org"
REGISTERED = ("--eab", "--kid", "any", "--hmac", "AAAA")
"""Lego wants a key named also where it has its account, and does not use it."""
HOOK = """#!/bin/sh
# What lego runs for dns-01: one file a record.
mkdir -p {records}
if [ "$1" = present ]; then printf '%s' "$3" > "{records}/$2"; else rm -f "{records}/$2"; fi
"""


def world(gateway: int, service: str) -> str:
    return f"""\
trust_domain: example.org
workloads:
  certbot: {{dns: [certbot.internal]}}
  lego: {{dns: [lego.internal, www.lego.internal], ttl: 2h}}
  caddy: {{dns: [caddy.internal]}}
  acmesh: {{dns: [acmesh.internal]}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: required}}
    routes: [{{path: /, upstream: "{service}", allow: [certbot, acmesh]}}]
"""


@dataclass
class Site:
    """A platform that looks for challenges on ports of its own, and asks a resolver of the test."""

    platform: Platform
    names: Names
    http_port: int
    tls_port: int

    @property
    def directory(self) -> str:
        """Where ACME clients begin."""
        return f"https://localhost:{self.platform.api_port}/acme/example.org/directory"

    def key(self, name: str, *words: str) -> tuple[str, str]:
        """Make a key for external account binding, as an operator types it."""
        plain = json.loads(self.platform.run("acme", "key", name, "--json", *words).stdout)
        return plain["key_id"], plain["hmac_key"]

    def run(self, *command: str | Path, expect: int = 0, **environment: str) -> str:
        """Run a client."""
        own = {"REQUESTS_CA_BUNDLE": str(self.platform.ca), "LEGO_CA_CERTIFICATES": str(self.platform.ca)}
        home = {"HOME": str(self.platform.directory), "XDG_DATA_HOME": str(self.platform.directory / "xdg")}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=90, env={**os.environ, **own, **home, **environment}
        )  # fmt: skip
        assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Site]:
    """Give a platform whose resolver says that the workloads' names are here."""
    gateway, http_port, tls_port, names = free_port(), free_port(), free_port(), Names()
    for name in ("certbot", "lego", "www.lego", "caddy", "acmesh"):
        names.records[f"{name}.internal", "A"] = [LOOPBACK]
    running = Platform(tmp_path_factory.mktemp("acme"), world(gateway, echo.url), gateway)
    host, port = names.address
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HANDFAST_ACME", f"http-port={http_port} tls-port={tls_port} resolver={host}:{port}")
        running.start()
    try:
        yield Site(running, names, http_port, tls_port)
    finally:
        running.close()
        names.close()


def leaf_of(chain: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.read_bytes())[0]


def sans(leaf: x509.Certificate) -> tuple[list[str], list[str]]:
    names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(names, x509.SubjectAlternativeName)
    return names.get_values_for_type(x509.UniformResourceIdentifier), names.get_values_for_type(x509.DNSName)


def state_of(site: Site, leaf: x509.Certificate) -> str:
    return next(row["state"] for row in site.platform.inventory() if row["serial"] == serial_of(leaf))


def opens(site: Site, chain: Path, key: Path) -> int:
    return curl(site.platform, f"{HOST}/", files=Files(chain, key)).status


@pytest.mark.debian("certbot")
def test_certbot_obtains_renews_and_revokes(site: Site, tmp_path: Path):
    """Over http-01. What it obtains opens the gateway as the workload, until it is revoked by certbot; its renewal goes on."""
    key_id, hmac_key = site.key("certbot")
    places = [word for part in ("config", "work", "logs") for word in (f"--{part}-dir", str(tmp_path / part))]
    where = ["--server", site.directory, *places, "-n"]
    standalone = ["--standalone", "--http-01-port", str(site.http_port), "--http-01-address", LOOPBACK]
    account = ["--agree-tos", "--register-unsafely-without-email", "--eab-kid", key_id, "--eab-hmac-key", hmac_key]
    site.run("certbot", "certonly", *where, *standalone, *account, "-d", "certbot.internal")
    live = tmp_path / "config" / "live" / "certbot.internal"
    first = leaf_of(live / "fullchain.pem")
    assert sans(first) == (["spiffe://example.org/certbot"], ["certbot.internal"])
    assert opens(site, live / "fullchain.pem", live / "privkey.pem") == 200
    old = {name: (live / f"{name}.pem").read_bytes() for name in ("fullchain", "privkey")}
    for name, content in old.items():
        (tmp_path / name).write_bytes(content)
    site.run("certbot", "renew", *where, "--force-renewal", "--no-random-sleep-on-renew")
    second = leaf_of(live / "fullchain.pem")
    assert second.serial_number != first.serial_number
    site.run(
        "certbot",
        "revoke",
        *where,
        "--cert-path",
        tmp_path / "fullchain",
        "--reason",
        "superseded",
        "--no-delete-after-revoke",
    )
    assert (state_of(site, first), state_of(site, second)) == ("revoked", "issued")
    wait_for("refusal", lambda: _refused(site, tmp_path / "fullchain", tmp_path / "privkey"))
    assert opens(site, live / "fullchain.pem", live / "privkey.pem") == 200


def _refused(site: Site, chain: Path, key: Path) -> bool:
    """Tell whether the gateway refuses the certificate, be it in the handshake or with a 403."""
    try:
        return opens(site, chain, key) == 403
    except AssertionError:  # curl got no answer
        return True


def lego(site: Site, directory: Path, *words: str, names: tuple[str, ...] = ("lego.internal",)) -> list[str]:
    domains = [word for name in names for word in ("-d", name)]
    return [
        "lego",
        "--server",
        site.directory,
        "--path",
        str(directory),
        "-m",
        "ops@example.org",
        "-a",
        *words,
        *domains,
    ]


def eab(site: Site) -> list[str]:
    key_id, hmac_key = site.key("lego")
    return ["--eab", "--kid", key_id, "--hmac", hmac_key]


@pytest.mark.debian("lego")
def test_lego_obtains_renews_and_revokes_over_http(site: Site, tmp_path: Path):
    """Two names in one certificate; renewed and revoked by its account."""
    names = ("lego.internal", "www.lego.internal")
    how = ["--http", "--http.port", f"{LOOPBACK}:{site.http_port}"]
    site.run(*lego(site, tmp_path, *how, *eab(site), names=names), "run")
    chain = tmp_path / "certificates" / "lego.internal.crt"
    first = leaf_of(chain)
    assert sans(first) == (["spiffe://example.org/lego"], list(names))
    assert (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() <= 2 * 3600 + 60
    site.run(*lego(site, tmp_path, *how, *REGISTERED, names=names), "renew", "--days", "90", "--no-random-sleep")
    second = leaf_of(chain)
    assert second.serial_number != first.serial_number
    site.run(*lego(site, tmp_path, *REGISTERED), "revoke")
    assert (state_of(site, first), state_of(site, second)) == ("issued", "revoked")


@pytest.mark.debian("lego")
def test_lego_obtains_over_tls(site: Site, tmp_path: Path):
    """With tls-alpn-01, and an ECDSA P-384 key."""
    how = ["--tls", "--tls.port", f"{LOOPBACK}:{site.tls_port}", "-k", "ec384"]
    site.run(*lego(site, tmp_path, *how, *eab(site)), "run")
    assert sans(leaf_of(tmp_path / "certificates" / "lego.internal.crt"))[1] == ["lego.internal"]


@pytest.mark.debian("lego")
def test_lego_obtains_over_dns(site: Site, tmp_path: Path):
    """With dns-01: a program that lego runs puts the record where the server's resolver sees it. An RSA key is served too."""
    hook, records = tmp_path / "hook", tmp_path / "records"
    hook.write_text(HOOK.replace("{records}", str(records)))
    hook.chmod(0o755)
    host, port = site.names.address
    site.names.more = lambda: {
        (file.name.rstrip("."), "TXT"): [f'"{file.read_text()}"'] for file in (records.iterdir() if records.exists() else ())
    }  # fmt: skip
    how = ["--dns", "exec", "--dns.disable-cp", "--dns.resolvers", f"{host}:{port}", "-k", "rsa2048"]
    site.run(*lego(site, tmp_path, *how, *eab(site)), "run", EXEC_PATH=str(hook))
    assert sans(leaf_of(tmp_path / "certificates" / "lego.internal.crt"))[1] == ["lego.internal"]
    assert ("_acme-challenge.lego.internal", "TXT") in site.names.asked


@pytest.mark.debian("lego")
def test_lego_is_told_why_not(site: Site, tmp_path: Path):
    """A name that the workload is not granted, a spent key, and a challenge that nobody meets."""
    how = ["--http", "--http.port", f"{LOOPBACK}:{site.http_port}"]
    key = eab(site)
    said = site.run(*lego(site, tmp_path, *how, *key, names=("certbot.internal",)), "run", expect=1)
    assert "rejectedIdentifier" in said
    said = site.run(*lego(site, tmp_path / "other", *how, *key), "run", expect=1)
    assert "the external account binding does not count" in said or "has ended, or was used" in said
    elsewhere = ["--http", "--http.port", f"{LOOPBACK}:{free_port()}"]
    said = site.run(*lego(site, tmp_path, *elsewhere, *REGISTERED), "run", expect=1)
    assert "urn:ietf:params:acme:error:connection" in said
    told = site.platform.events("acme.validation.failed")[-1]
    assert (told["dns"], told["reason"]) == ("lego.internal", "acme.unreachable")


@pytest.mark.skipif(
    shutil.which("acme.sh") is None, reason="acme.sh is not installed; Debian has it from version 13 on"
)
@pytest.mark.parametrize("challenge", ["standalone", "alpn"])
def test_acme_sh_obtains_renews_and_revokes(challenge: str, site: Site, tmp_path: Path):
    """The client in shell, with a profile and with renewal information (RFC 9773): its renewal names what it replaces."""
    key_id, hmac_key = site.key("acmesh")
    where = ["acme.sh", "--home", str(tmp_path), "--server", site.directory, "--ca-bundle", str(site.platform.ca)]
    ports = ["--httpport", str(site.http_port), "--tlsport", str(site.tls_port), "--local-address", LOOPBACK]
    site.run(*where, "--register-account", "--eab-kid", key_id, "--eab-hmac-key", hmac_key)
    site.run(*where, "--issue", "-d", "acmesh.internal", f"--{challenge}", *ports, "--cert-profile", "short")
    live = tmp_path / "acmesh.internal_ecc"
    chain, key = live / "fullchain.cer", live / "acmesh.internal.key"
    first = leaf_of(chain)
    assert sans(first) == (["spiffe://example.org/acmesh"], ["acmesh.internal"])
    assert opens(site, chain, key) == 200
    assert (first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() <= 3600 + 60
    said = site.run(*where, "--renew", "-d", "acmesh.internal", "--ecc", "--force", "--debug", *ports)
    assert "Adding ARI replaces" in said
    assert "rejected by CA" not in said
    second = leaf_of(chain)
    assert second.serial_number != first.serial_number
    site.run(*where, "--revoke", "-d", "acmesh.internal", "--ecc", "--revoke-reason", "4")
    assert (state_of(site, first), state_of(site, second)) == ("issued", "revoked")
    wait_for("refusal", lambda: _refused(site, chain, key))


@pytest.fixture
def caddy(site: Site, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Give a function that starts Caddy, and its certificate once it has one."""
    running: list[subprocess.Popen[bytes]] = []

    def start(challenge: str) -> Path:
        key_id, hmac_key = site.key("caddy")
        off = {"http": "disable_tlsalpn_challenge", "tls": "disable_http_challenge"}[challenge]
        config, log = tmp_path / "Caddyfile", tmp_path / "caddy.log"
        config.write_text(f"""{{
  admin off
  auto_https disable_redirects
  http_port {site.http_port}
  https_port {site.tls_port}
  storage file_system {tmp_path / "storage"}
}}
caddy.internal {{
  bind {LOOPBACK}
  tls {{
    issuer acme {{
      dir {site.directory}
      trusted_roots {site.platform.ca}
      eab {key_id} {hmac_key}
      {off}
    }}
  }}
  respond "from caddy"
}}
""")
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_DATA_HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
        }
        with log.open("wb") as words:
            command = ["caddy", "run", "--adapter", "caddyfile", "--config", config]
            running.append(subprocess.Popen(command, stdout=words, stderr=words, env=environment))

        def certificate() -> list[Path]:
            assert running[-1].poll() is None, log.read_text()
            return list((tmp_path / "storage").rglob("caddy.internal.crt"))

        try:
            return Path(wait_for("certificate of Caddy's", certificate, 60)[0])
        except AssertionError as error:
            raise AssertionError(log.read_text()) from error

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.debian("caddy")
@pytest.mark.parametrize("challenge", ["http", "tls"])
def test_caddy_obtains_and_serves(challenge: str, site: Site, caddy: Callable[[str], Path]):
    """Caddy gets its certificate by itself, over either challenge, and serves with it."""
    leaf = leaf_of(caddy(challenge))
    assert sans(leaf) == (["spiffe://example.org/caddy"], ["caddy.internal"])
    place = f"caddy.internal:{site.tls_port}"
    command = ["curl", "-q", "-sS", "--max-time", "10", "--cacert", str(site.platform.ca)]
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(
            [*command, "--resolve", f"{place}:{LOOPBACK}", f"https://{place}/"], check=False, capture_output=True, text=True
        )  # fmt: skip
        if done.stdout == "from caddy":
            return
        assert time.monotonic() < deadline, done.stderr


def test_an_operator_sees_who_came(site: Site):
    """'handfast acme' makes keys, lists accounts and keys, and says when there is nothing to close."""
    said = site.platform.run(
        "acme", "key", "wiki", "--domains", "wiki.internal,www.wiki.internal", "--ttl", "1h"
    ).stdout
    assert "/acme/example.org/directory" in said
    assert "shown again" in said
    key_id = said.split("key id")[1].split()[0]
    assert f"key     {key_id}  wiki  1 x" in site.platform.run("acme", "list").stdout
    hmac_key = said.split("HMAC key")[1].split()[0]
    assert hmac_key not in site.platform.run("acme", "list", "--json").stdout
    assert "there is no such thing" in site.platform.run("acme", "deactivate", "nobody", expect=1).stderr
