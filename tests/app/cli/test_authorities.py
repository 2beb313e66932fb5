"""``handfast ca``, with plain openssl as the root that is elsewhere."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.access.slice import parse_slice
from handfast.app.server.messages import RevocationRequest
from handfast.app.server.slices import Slices
from handfast.trust.facts import facts, pem_certificates
from tests.app.cli.terminal import Shown, run, steady
from tests.app.sites import DOMAIN, site
from tests.support import tokens
from tests.support.offline_root import OfflineRoot, offline_root, openssl

pytestmark = pytest.mark.debian("openssl")
DATA = Path(".handfast")
AUTHORITY = DATA / "authority"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def root(here: Path) -> OfflineRoot:
    return offline_root(here / "safe")


def ca(*words: str, code: int = 0) -> Shown:
    shown = run("ca", *words)
    assert shown.code == code, shown.out + shown.err
    return shown


async def serve_and_verify(here: Path) -> None:
    """Start the real server over what was made; openssl verifies a leaf of it against the root."""
    async with site(here / DATA) as running:
        issued = await running.issue("payments")
        answer = await running.holder(issued).send("GET", "/v1/authority")
        assert answer.status_code == 200
    (here / "leaf.pem").write_text(issued.chain_pem)
    openssl("verify", "-x509_strict", "-CAfile", AUTHORITY / "root.pem", "-untrusted", "leaf.pem", "leaf.pem")


async def test_an_offline_root_end_to_end(here: Path, root: OfflineRoot):
    """Request, signature by openssl, a look at the fingerprint, installation, a server, a leaf."""
    ask = ("csr", "--trust-domain", DOMAIN, "--permit-dns", "internal", "--out", "issuing.csr")
    await asyncio.to_thread(ca, *ask)  # it has a loop of its own
    root.sign(here / "issuing.csr")
    words = ["install", str(root.directory / "chain.pem"), "--root-crl", str(root.crl())]
    shown = ca(*words, code=1)
    assert root.fingerprint.replace(":", "").lower() in shown.err
    assert "--root-fingerprint" in shown.err
    assert not AUTHORITY.exists()
    shown = ca(*words, "--root-fingerprint", root.fingerprint)
    assert root.fingerprint.lower() in shown.out
    assert "may name: dns internal, localhost; uri host example.org" in shown.out
    assert "root-key.pem (missing)" in shown.out
    await serve_and_verify(here)


async def test_a_newer_list_of_an_offline_root_alone(here: Path, root: OfflineRoot):
    """No chain, no request, no fingerprint: a server that runs gives it to its gateways before the command ends."""
    await asyncio.to_thread(ca, "csr", "--trust-domain", DOMAIN, "--out", "issuing.csr")
    root.sign(here / "issuing.csr")
    first = str(root.crl(days=310))
    ca("install", str(root.directory / "chain.pem"), "--root-crl", first, "--root-fingerprint", root.fingerprint)
    async with site(here / DATA) as running:
        gone = facts(pem_certificates((await running.issue("payments")).chain_pem)[0]).serial
        await running.operator.send("POST", "/v1/revocations", RevocationRequest(serial=gone))
        slices = running.server.platform.slices
        await slices.refresh()
        before = sent_lists(slices)
        shown = await asyncio.to_thread(ca, "install", str(root.crl(days=900)))
        assert shown.out.splitlines() == [
            "took the revocation list of CN=Example Offline Root", "the server goes by it from now on",
        ]  # fmt: skip
        after = sent_lists(slices)
    (due,) = (one.next_update_utc for one in after if one not in before)
    assert due is not None
    assert due > datetime.now(UTC) + timedelta(days=890)
    assert len(before) == len(after) == 2
    stale = ca("install", str(root.crl(days=30)), code=2)
    assert "does not count from now until the issuing CA ends" in stale.err
    alone = await asyncio.to_thread(ca, "install", str(root.crl(days=901)))
    assert "a server that runs here goes by it within seconds" in alone.out
    await serve_and_verify(here)


def sent_lists(slices: Slices) -> list[x509.CertificateRevocationList]:
    """Give the lists that gateways get."""
    prepared = slices.current.value
    assert prepared
    return [x509.load_pem_x509_crl(text.encode()) for text in parse_slice(prepared.body).crls]


async def test_an_imported_root_end_to_end(here: Path, root: OfflineRoot):
    """Its certificate and key are read once."""
    ca("import", "--root", str(root.pem), "--key", str(root.key), "--trust-domain", DOMAIN)
    await serve_and_verify(here)


@tokens.NEEDED
async def test_a_key_in_a_token_end_to_end(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Named by its URI, which is shown without the place of its PIN."""
    token = tokens.new_token(here / "token", monkeypatch)
    token.make("p256", "issuing")
    shown = ca("init", "--trust-domain", DOMAIN, "--key", token.uri("issuing"))
    assert "object=issuing" in shown.out
    assert "(token)" in shown.out
    assert "pin" not in shown.out + ca("show", "--json").out
    await serve_and_verify(here)


@tokens.NEEDED
async def test_both_keys_in_a_token_end_to_end(here: Path, monkeypatch: pytest.MonkeyPatch):
    """Root and issuing CA each by its URI; and the same root again by import, whose key is not a file then."""
    token = tokens.new_token(here / "token", monkeypatch)
    for number, label in enumerate(("root", "issuing", "other"), 1):
        token.make("p256", label, number)
    shown = ca("init", "--trust-domain", DOMAIN, "--root-key", token.uri("root"), "--key", token.uri("issuing"))
    assert shown.out.count("(token)") == 2
    assert [one.name for one in DATA.rglob("*-key.pem")] == ["ocsp-key.pem"]
    await serve_and_verify(here)
    words = ("--root", str(AUTHORITY / "root.pem"), "--key", token.uri("root"), "--trust-domain", DOMAIN)
    shown = ca("import", *words, "--issuing-key", token.uri("other"), "--data", "imported")
    assert "root-key.pem (missing)" in shown.out


def test_a_second_request_asks_for_who_answers_ocsp(here: Path):
    """And the first for the addresses where that is; both are signed by their own keys."""
    words = ("--out", "issuing.csr", "--ocsp-out", "ocsp.csr", "--status-url", "http://status.example.org/")
    ca("csr", "--trust-domain", DOMAIN, *words)
    asked = {name: openssl("req", "-in", f"{name}.csr", "-noout", "-text", "-verify") for name in ("issuing", "ocsp")}
    assert "OCSP - URI:http://status.example.org/ocsp" in asked["issuing"]
    assert "URI:http://status.example.org/crl/above/" in asked["issuing"]
    assert "OCSP Signing" in asked["ocsp"]
    assert "OCSP No Check" in asked["ocsp"]


def test_a_new_root_by_hand_waits_for_a_rotation_of_the_root():
    """And says so; one below the root that there is waits for one of the issuing CA."""
    ca("init", "--trust-domain", DOMAIN)
    assert "'handfast ca rotate --root'" in ca("next", "--trust-domain", DOMAIN, "--new-root").err
    assert "waits for a rotation already" in ca("next", "--trust-domain", DOMAIN, code=2).err
    ca("init", "--trust-domain", DOMAIN, "--data", "other")
    assert "'handfast ca rotate'" in ca("next", "--trust-domain", DOMAIN, "--data", "other").err


async def test_chosen_keys_end_to_end(here: Path):
    """The server opens what was made, and makes nothing of its own."""
    ca("init", "--trust-domain", DOMAIN, "--root-key-type", "p384", "--key-type", "rsa2048")
    before = pem_certificates((AUTHORITY / "root.pem").read_text())
    await serve_and_verify(here)
    assert pem_certificates((AUTHORITY / "root.pem").read_text()) == before


def test_show_draws_root_and_issuing_ca():
    """Kinds of keys, where they lie, validity and fingerprints."""
    ca("init", "--trust-domain", DOMAIN, "--root-key-type", "p384")
    shown = ca("show").out
    root, issuing = (pem_certificates((AUTHORITY / f"{name}.pem").read_text())[0] for name in ("root", "issuing"))
    for der in (root, issuing):
        plain = facts(der).fingerprint
        assert ":".join(plain[at : at + 2] for at in range(0, 64, 2)) in shown
    assert [line.split()[0] for line in steady(shown).splitlines() if "Handfast" in line] == ["root", "issuing"]
    assert "key:      ec secp384r1" in shown
    assert "issuing-key.pem (open)" in shown
    nodes = json.loads(ca("show", "--json").out)
    assert [node["kind"] for node in nodes] == ["root", "issuing"]
    assert nodes[1]["issuer"] == nodes[0]["fingerprint"]


def test_keys_are_sealed_with_the_passphrase(here: Path):
    """And shown as such; no command prints a key."""
    secret = here / "passphrase"
    secret.touch(0o600)
    secret.write_text("correct horse battery staple")
    shown = ca("init", "--passphrase-file", str(secret))
    assert "issuing-key.pem (sealed)" in shown.out
    assert "PRIVATE" not in shown.out + shown.err
    assert b"ENCRYPTED" in (AUTHORITY / "issuing-key.pem").read_bytes()


def test_the_request_goes_to_the_terminal_without_out(here: Path):
    """For a pipe; the key does not."""
    shown = ca("csr", "--trust-domain", DOMAIN, "--key-type", "ed25519")
    assert shown.out.startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert "PRIVATE" not in shown.out + shown.err
    (here / "x.csr").write_text(shown.out)
    assert f"spiffe://{DOMAIN}" in openssl("req", "-in", "x.csr", "-noout", "-text", "-verify")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["show"], "there is no authority here"),
        (["init", "--key", "/etc/key.pem"], "not a key in a token"),
        (["init", "--key", "pkcs11:token=a;object=b?pin-value=1234"], "no place in a URI"),
        (["init", "--permit-dns", "*.internal"], "cannot be permitted"),
        (["init", "--root-key", "/etc/key.pem"], "not a key in a token"),
        (["init", "--status-url", "https://status.example.org"], "is not http://host"),
        (["next", "--trust-domain", DOMAIN, "--root-key", "pkcs11:token=a;object=b"], "add --new-root"),
        (["init", "--trust-domain", "Example.org"], "not a trust domain"),
        (["init", "--key-type", "rsa1024"], "rsa1024"),
        (["import", "--root", "none.pem", "--key", "none.pem", "--trust-domain", DOMAIN], "none.pem"),
        (["install", "none.pem"], "none.pem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_use_is_two_and_leaves_nothing(words: list[str], text: str):
    """What was given is looked at before anything is made; a PIN is not repeated."""
    shown = run("ca", *words)
    assert (shown.code, shown.out) == (2, "")
    assert text in shown.err
    assert "1234" not in shown.err
    assert not AUTHORITY.exists()


def test_a_second_authority_is_refused():
    """With a word on how the first is replaced."""
    ca("init")
    shown = ca("init", code=2)
    assert "there is an authority here already" in shown.err
    assert "handfast ca rotate" in shown.err


def test_an_open_root_key_is_refused(root: OfflineRoot):
    """Others could read it: it is not used, and the hint says what to do."""
    root.key.chmod(0o644)
    shown = ca("import", "--root", str(root.pem), "--key", str(root.key), "--trust-domain", DOMAIN, code=2)
    assert "others can read this secret" in shown.err
