"""Partners whose responders are asked: OpenSSL's, and one that answers in every wrong way, from the world file to 'explain'."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.reasons import Reason
from tests.e2e.clients import Connection, Response, Seen, curl
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import Platform, wait_for
from tests.support.ocsp import GOOD, REVOKED, Saying, Site, answer, delegate, failure, index, nonce_of, openssl, site
from tests.support.partners import authority, partner, roots_pem
from tests.support.pki import Files, Issued, Pki
from tests.support.ports import free_port

HOST = "api.example.org"
ACME, BETA, GAMMA, DELTA = (partner(name) for name in ("Acme", "Beta", "Gamma", "Delta"))
PARTNERS = {"acme": ACME, "beta": BETA, "gamma": GAMMA, "delta": DELTA}
ALICE, EVE, NOBODY = (GAMMA.leaf(name, san_uris=()) for name in ("alice", "eve", "nobody"))


def world(gateway: int, service: Echo, responders: dict[str, str]) -> str:
    entries = "".join(
        f"""\
  {name}:
    roots: {name}.pem
    hosts: [{HOST}]
    revocation: {{ocsp: "{url}", when_unknown: {"accept" if name == "beta" else "refuse"}}}
    identities:
      - {{match: {{common_name: "*"}}, identity: "{name}/{{common_name}}"}}
"""
        for name, url in responders.items()
    )
    return f"""\
trust_domain: example.org
authorities:
{entries}
hosts:
  {HOST}:
    listen: {LOOPBACK}:{gateway}
    clients: {{trust: [example.org, {", ".join(responders)}], certificate: optional}}
    routes:
      - {{path: /, upstream: "{service.url}", allow: ["acme/*", "beta/*", "gamma/*", "delta/*"]}}
"""


@dataclass
class Scene:
    """A platform, and the responder of three partners. What that says is said of each certificate by its common name."""

    platform: Platform
    responder: Site
    says: dict[str, Saying]
    leaves: dict[int, tuple[Issued, Pki]]

    def client(self, pki: Pki, name: str, said: Saying | None = None) -> Files:
        """Have a partner issue a certificate, of which its responder says this."""
        leaf = pki.leaf(name, san_uris=())
        self.leaves[leaf.cert.serial_number] = leaf, pki
        if said:
            self.says[name] = said
        return leaf.write(self.platform.directory, name)

    def reply(self, asked: bytes) -> bytes:
        """Answer as the responder does."""
        leaf, pki = self.leaves[x509.ocsp.load_der_ocsp_request(asked).serial_number]
        name = leaf.cert.subject.rfc4514_string().removeprefix("CN=")
        if name not in self.says:
            return failure(x509.ocsp.OCSPResponseStatus.UNAUTHORIZED)
        said = self.says[name]
        leaf = pki.leaf("somebody") if said is OF_SOMEBODY_ELSE else leaf
        said.nonce = nonce_of(asked)
        return answer(leaf.cert, pki.issuing, said)

    def get(self, files: Files) -> Response:
        """Ask the gateway with a certificate."""
        return curl(self.platform, f"{HOST}/", files=files)

    def code(self, files: Files) -> object:
        """Give the code of a refusal, or the identity that the service was told."""
        response = self.get(files)
        return Seen(response).named("x-client-identity")[0] if response.status == 200 else response.plain["code"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Scene]:
    directory, gateway = tmp_path_factory.mktemp("responders"), free_port()
    for name, pki in PARTNERS.items():
        (directory / f"{name}.pem").write_text(roots_pem(pki))
    (directory / "index.txt").write_text(index(("V", ALICE.cert), ("R", EVE.cert)))
    with site() as responder, openssl(directory, GAMMA.issuing, delegate(GAMMA.issuing)) as url:
        urls = {"acme": responder.url, "beta": responder.url, "gamma": url, "delta": responder.url}
        running = Platform(directory, world(gateway, echo, urls), gateway)
        made = Scene(running, responder, {}, {})
        responder.reply = made.reply
        try:
            running.start()
            running.settled()
            yield made
        finally:
            running.close()


def test_openssl_is_asked_at_the_first_request(scene: Scene, tmp_path: Path):
    """Good comes in, revoked does not, nor whom it never heard of; each at once and without a list."""
    files = {name: leaf.write(tmp_path, name) for name, leaf in (("alice", ALICE), ("eve", EVE), ("nobody", NOBODY))}
    assert scene.code(files["alice"]) == "spiffe://example.org/gamma/alice"
    assert scene.code(files["eve"]) == Reason.REVOKED
    assert scene.code(files["nobody"]) == Reason.REVOCATION_STATUS_UNKNOWN


def test_explain_says_that_it_is_not_known(scene: Scene):
    """And the finding says why: what the responder did answer."""
    response = scene.get(scene.client(DELTA, "unheard"))
    assert response.plain["code"] == Reason.REVOCATION_STATUS_UNKNOWN
    id_ = response.plain["request_id"]
    wait_for("record", lambda: [one for one in scene.platform.events("request.denied") if one["id"] == id_])
    told = scene.platform.explain(id_)
    assert Reason.REVOCATION_STATUS_UNKNOWN in told
    assert "handfast events --kind finding.raised" in told
    (found,) = (one for one in scene.platform.events("finding.raised") if one["evidence"]["authority"] == "delta")
    assert found["reason"] == Reason.REVOCATION_OCSP_UNUSABLE
    assert "unauthorized" in found["evidence"]["answer"]


OF_SOMEBODY_ELSE = Saying()
WRONG = {
    "stale": Saying(since=timedelta(days=-2), until=timedelta(days=-1)),
    "stranger": Saying(signer=authority("Acme Issuing")),
    "another": OF_SOMEBODY_ELSE,
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_lets_nobody_in(scene: Scene, what: str):
    """One that has ended, that somebody else signed, or that is about another certificate; where that is accepted, it is as none."""
    for pki, expected in ((ACME, Reason.REVOCATION_STATUS_UNKNOWN), (BETA, f"spiffe://example.org/beta/{what}")):
        assert scene.code(scene.client(pki, what, WRONG[what])) == expected


@pytest.mark.parametrize("pki", [ACME, BETA], ids=["refuse", "accept"])
def test_with_the_responder_away_who_is_known_stays_known(scene: Scene, pki: Pki):
    """Until its word ends; for the others the world file says what becomes of them."""
    name = next(name for name, one in PARTNERS.items() if one is pki)
    known = scene.client(pki, f"known-{name}", Saying(until=timedelta(seconds=12)))
    gone = scene.client(pki, f"gone-{name}", Saying(word=REVOKED, until=timedelta(seconds=12)))
    assert scene.code(known) == f"spiffe://example.org/{name}/known-{name}"
    assert scene.code(gone) == Reason.REVOKED
    scene.responder.status, begun = 503, time.monotonic()
    try:
        new = scene.client(pki, f"new-{name}", Saying())
        unknown: object = Reason.REVOCATION_STATUS_UNKNOWN
        assert scene.code(new) == (unknown if pki is ACME else f"spiffe://example.org/{name}/new-{name}")
        time.sleep(max(0.0, begun + 7 - time.monotonic()))
        assert scene.code(known) == f"spiffe://example.org/{name}/known-{name}"
        time.sleep(max(0.0, begun + 13 - time.monotonic()))
        assert scene.code(known) == (unknown if pki is ACME else f"spiffe://example.org/{name}/known-{name}")
        assert scene.code(gone) == Reason.REVOKED
    finally:
        scene.responder.status = 200


def test_an_open_connection_is_refused_once_the_word_is_renewed(scene: Scene):
    """Nobody has to connect anew to learn that he is revoked."""
    saying = Saying(word=GOOD, until=timedelta(seconds=10))
    files = scene.client(ACME, "leaver", saying)
    with Connection(scene.platform, HOST, files=files) as connection:
        assert connection.request("/").status == 200
        saying.word, saying.since = REVOKED, timedelta(0)
        until = time.monotonic() + 9
        while connection.request("/").status == 200:
            assert time.monotonic() < until
            time.sleep(0.3)
        assert connection.request("/").plain["code"] == Reason.REVOKED


def test_one_question_for_however_many_requests(scene: Scene):
    """All workers and connections go by the same answer."""
    files = scene.client(ACME, "busy", Saying())
    before = len(scene.responder.asked)
    for _ in range(4):
        assert scene.code(files) == "spiffe://example.org/acme/busy"
    assert len(scene.responder.asked) == before + 1
