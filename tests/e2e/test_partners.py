"""A partner's clients, from the files beside a world file to what the service is told; and what a partner cannot do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from handfast.base.reasons import Reason
from tests.e2e.clients import GONE, Connection, Response, Seen, curl
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Event, Platform, wait_for
from tests.envoy_real.forging import CN, FOR_CLIENTS, NOT_CA, URI, UTF8, Draft, forge, names, subject
from tests.support.partners import crl, partner, roots_pem
from tests.support.pki import Files
from tests.support.ports import free_port

HOST, OTHER = "api.example.org", "inside.example.org"
ACME = partner("Acme")
ORGANIZATION = "2.5.4.10"


def world(gateway: int, service: Echo, crl_url: str) -> str:
    return f"""\
trust_domain: example.org
authorities:
  acme-partner:
    roots: partners/acme.pem   # root and issuing CA
    hosts: [{HOST}]
    revocation: {{crl: "{crl_url}"}}
    identities:
      - {{match: {{organization: Acme, common_name: "*"}}, identity: "acme/{{common_name}}"}}
workloads:
  payments: {{}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{trust: [example.org, acme-partner], certificate: optional}}
    routes:
      - {{path: /, upstream: "{service.url}", allow: ["acme/*"]}}
      - {{path: /own, upstream: "{service.url}", allow: [payments]}}
  {OTHER}:
    listen: {LOOPBACK}:{gateway}
    clients: {{certificate: optional}}
    routes:
      - {{path: /, upstream: "{service.url}", allow: any-certificate}}
"""


@pytest.fixture(scope="module")
def list_url() -> Iterator[str]:
    """Serve the partner's list, in which 13 is revoked."""
    body = crl(ACME.issuing, (13,))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{LOOPBACK}:{server.server_port}/ca.crl"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, echo: Echo, list_url: str) -> Iterator[Platform]:
    """Give a platform that was started with a world that names a file beside it."""
    directory, gateway = tmp_path_factory.mktemp("partners"), free_port()
    (directory / "partners").mkdir()
    (directory / "partners" / "acme.pem").write_text(roots_pem(ACME))
    running = Platform(directory, world(gateway, echo, list_url), gateway)
    try:
        running.start()
        wait_for("list", lambda: list(running.data.rglob("acme-partner.crl.pem")))
        running.settled()
        yield running
    finally:
        running.close()


def shown(directory: Path, common_name: str, *more: bytes, serial: int = 0) -> Files:
    """Give a client's certificate of the partner's, in files."""
    who = subject((ORGANIZATION, UTF8, b"Acme"), (CN, UTF8, common_name.encode()))
    draft = Draft((NOT_CA, FOR_CLIENTS, *more), subject=who, serial=serial)
    made = forge(ACME, draft)
    files = Files(directory / f"{common_name}.pem", directory / f"{common_name}.key")
    files.chain.write_text(made.chain_pem)
    files.key.write_bytes(made.key_pem)
    return files


def test_a_partners_client_gets_its_name(site: Platform, tmp_path: Path):
    """The service is told the name that the rule gives, and the partner's routes are open to it alone."""
    bob = shown(tmp_path, "bob")
    response = wait_for("list in force", lambda: _passed(site, bob))
    assert Seen(response).named("x-client-identity") == ["spiffe://example.org/acme/bob"]
    assert curl(site, f"{HOST}/own", files=bob).plain["code"] == Reason.POLICY_NO_MATCH
    assert curl(site, f"{HOST}/", files=site.issue("payments").files).plain["code"] == Reason.POLICY_NO_MATCH


def test_who_was_let_in_stands_in_the_inventory(site: Platform, tmp_path: Path):
    """A partner's certificate, once, though nobody refused it; ours stand there already, and are told of by no event."""
    carol, ours = shown(tmp_path, "carol"), site.issue("payments").files
    for _ in range(6):
        wait_for("list in force", lambda: _passed(site, carol))
        assert curl(site, f"{HOST}/own", files=ours).status == 200
    rows = wait_for("discovery", lambda: [row for row in _watched(site) if row["subject"].startswith("CN=carol")])
    assert [(row["source"], row["state"], row["requester"]) for row in rows] == [
        ("discovered", "watched", "gateway:local")
    ]
    told = [event["certificate"]["subject"] for event in site.events("certificate.discovered")]
    assert told.count(rows[0]["subject"]) == 1
    assert all("payments" not in subject for subject in told)


def _watched(site: Platform) -> list[dict[str, Any]]:
    return list(json.loads(site.run("cert", "list", "--state", "watched", "--json").stdout))


def _passed(site: Platform, files: Files) -> Response | None:
    response = curl(site, f"{HOST}/", files=files)
    return response if response.status == 200 else None


def test_what_the_partner_revoked_is_refused_and_explained(site: Platform, tmp_path: Path):
    """The list was fetched from the URL of the world file."""
    wait_for("list in force", lambda: _passed(site, shown(tmp_path, "bob")))
    response = curl(site, f"{HOST}/", files=shown(tmp_path, "eve", serial=13))
    assert response.plain["code"] == Reason.REVOKED
    told = wait_for("record", lambda: _found(site, response.plain["request_id"]))
    assert told["reason"] == Reason.REVOKED


def _found(site: Platform, id_: str) -> Event | None:
    return next((event for event in site.events("request.denied") if event["id"] == id_), None)


def test_a_name_of_ours_does_not_help_a_partner(site: Platform, tmp_path: Path):
    """A SPIFFE id of our trust domain in its certificate is refused, and the record does not take it for its identity."""
    claims = names((URI, b"spiffe://example.org/payments"))
    response = curl(site, f"{HOST}/own", files=shown(tmp_path, "mallory", claims))
    assert response.plain["code"] == Reason.IDENTITY_SAN_NOT_ALLOWED
    told = wait_for("record", lambda: _found(site, response.plain["request_id"]))
    assert told["identity"] == ""
    assert told["certificate"]["subject"]


def test_a_partner_gets_no_further_than_its_host(site: Platform, tmp_path: Path):
    """At another host of the same port TLS knows nothing of it."""
    with pytest.raises(GONE), Connection(site, OTHER, files=shown(tmp_path, "bob")) as connection:
        connection.request("/")


def test_a_diff_tells_what_a_partner_would_lose(site: Platform, tmp_path: Path):
    """The file beside the world file is read for it too."""
    wait_for("list in force", lambda: _passed(site, shown(tmp_path, "bob")))
    narrower = site.directory / "narrower.yaml"
    narrower.write_text(site.world_file.read_text().replace("[example.org, acme-partner]", "[example.org]"))
    wait_for("count", lambda: "acme/bob loses GET" in site.run("diff", narrower, expect=1).stdout)


def test_a_missing_file_is_named(site: Platform):
    """With the world file's line, before anything is sent."""
    lost = site.directory / "lost.yaml"
    lost.write_text(site.world_file.read_text().replace("partners/acme.pem", "partners/gone.pem"))
    assert "lost.yaml:4: roots: partners/gone.pem" in site.run("apply", lost, expect=2).stderr


def test_the_exported_world_stands_alone(site: Platform, tmp_path: Path):
    """What counts has the certificates in it, and can be applied from anywhere."""
    text = site.run("export").stdout
    assert "roots_pem" in text
    assert "# root and issuing CA" in text
    alone = tmp_path / "alone.yaml"
    alone.write_text(text)
    assert "nothing changed" in site.run("apply", alone).stdout
