"""A partner with a list and OpenSSL's responder, which signs with RSA-PSS: from the world file to the gateway, and over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from handfast.base.reasons import Reason
from handfast.trust.facts import pem
from tests.e2e.clients import Seen, curl
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Platform
from tests.support.ocsp import index, openssl
from tests.support.partners import authority, crl, roots_pem
from tests.support.pki import Issued, Pki
from tests.support.ports import free_port

HOST = "api.example.org"
PSS = ("-rsigopt", "rsa_padding_mode:pss", "-rmd", "sha256", "-nmin", "60")


def world(gateway: int, service: Echo, url: str) -> str:
    return f"""\
trust_domain: example.org
authorities:
  acme:
    roots: acme.pem
    hosts: [{HOST}]
    revocation: {{ocsp: "{url}", crl: acme.crl, when_unknown: refuse}}
    identities:
      - {{match: {{common_name: "*"}}, identity: "acme/{{common_name}}"}}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{trust: [example.org, acme], certificate: optional}}
    routes:
      - {{path: /, upstream: "{service.url}", allow: ["acme/*"]}}
"""


@dataclass
class Scene:
    """A platform, and what stops the partner's responder."""

    platform: Platform
    responder: ExitStack

    def code(self, leaf: Issued, name: str) -> object:
        """Give the code of a refusal, or the name that the service was told."""
        response = curl(self.platform, f"{HOST}/", files=leaf.write(self.platform.directory, name))
        if response.status != 200:
            return response.plain["code"]
        return Seen(response).named("x-client-identity")[0].rpartition("/")[2]


ROOT = authority("Acme Root")
ACME = Pki("Acme", issuing=authority("Acme Issuing", ROOT, key=rsa.generate_private_key(65537, 2048)), root=ROOT.cert)
LEAVES = {name: ACME.leaf(name, san_uris=()) for name in ("alice", "eve", "listed", "unheard", "later")}


@pytest.fixture
def scene(tmp_path: Path, echo: Echo) -> Iterator[Scene]:
    gateway = free_port()
    known = index(("V", LEAVES["alice"].cert), ("R", LEAVES["eve"].cert))
    known += index(("V", LEAVES["listed"].cert)).replace("/CN=x", "/CN=y")  # OpenSSL wants a name of its own for each
    (tmp_path / "acme.pem").write_text(roots_pem(ACME))
    (tmp_path / "acme.crl").write_text(pem(crl(ACME.issuing, [LEAVES["listed"].cert.serial_number]), "X509 CRL"))
    (tmp_path / "index.txt").write_text(known)
    with ExitStack() as responder:
        url = responder.enter_context(openssl(tmp_path, ACME.issuing, ACME.issuing, *PSS))
        running = Platform(tmp_path, world(gateway, echo, url), gateway)
        try:
            running.start()
            running.settled()
            yield Scene(running, responder)
        finally:
            running.close()


def test_either_may_say_revoked_and_a_restart_forgets_nothing(scene: Scene):
    """The list decides of whom the responder does not know, while it is there and when it is away; who was revoked stays so."""
    expected = {"alice": "alice", "eve": Reason.REVOKED, "listed": Reason.REVOKED, "unheard": "unheard"}
    assert {name: scene.code(LEAVES[name], name) for name in expected} == expected
    assert scene.platform.events("finding.raised") == []
    scene.responder.close()
    scene.platform.stop()
    scene.platform.start()
    scene.platform.settled()
    # The list knows nothing of eve: only what the responder said before the restart can refuse her.
    assert {name: scene.code(LEAVES[name], name) for name in LEAVES} == expected | {"later": "later"}
