"""Revocation lists and OCSP as others check them: OpenSSL's own tools against a platform that runs, and curl through its gateway."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.echo import LOOPBACK
from tests.e2e.platform import COMMAND_S as SECONDS
from tests.e2e.platform import HANDFAST, STOP_S, wait_for
from tests.support.ports import free_port

pytestmark = pytest.mark.e2e


def run(*command: str | Path, input_: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command that ends."""
    return subprocess.run(
        [str(word) for word in command], input=input_, capture_output=True, timeout=SECONDS, check=False
    )


class Published:
    """``handfast up`` with its demo, which publishes status."""

    def __init__(self, directory: Path, *more: str) -> None:
        """Start it."""
        self.directory, self.data, self.gateway = directory, directory / "data", free_port()
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        places = ["--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0", "--gateway-port", str(self.gateway)]
        status = ["--status", f"{LOOPBACK}:{self.port}", "--status-url", self.url, *more]
        self._words = directory / "up.out"
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                [HANDFAST, "up", "--data", self.data, *places, *status],
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        wait_for("greeting", self._is_up, 40)

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self._words.read_text()
        return "/metrics" in self._words.read_text()

    @property
    def greeting(self) -> str:
        """What it said."""
        return self._words.read_text()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()

    @property
    def root(self) -> Path:
        """The root's certificate."""
        return self.data / "authority" / "root.pem"

    @property
    def issuing(self) -> Path:
        """The issuing authority's certificate."""
        return self.data / "authority" / "issuing.pem"

    def issue(self, name: str) -> Path:
        """Issue a certificate as an operator does; give the leaf's file."""
        out = self.directory / name
        done = run(HANDFAST, "cert", "issue", name, "--data", self.data, "--out", out)
        assert done.returncode == 0, done.stderr
        return out / "cert.pem"

    def revoke(self, name: str) -> None:
        """Revoke a name's certificates as an operator does."""
        done = run(HANDFAST, "cert", "revoke", name, "--data", self.data, "--reason", "superseded")
        assert done.returncode == 0, done.stderr

    def ocsp(self, leaf: Path, *first: str, serial: str = "") -> str:
        """Ask with ``openssl ocsp``, which checks the delegation against the root alone."""
        asked = ("-serial", serial) if serial else ("-cert", leaf)
        place = ("-url", f"{self.url}/ocsp", "-CAfile", self.root, "-issuer", self.issuing)
        done = run("openssl", "ocsp", *first, *place, *asked)
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr).decode()

    def fetch(self, url: str) -> Path:
        """Get a list; give it as PEM, which is what OpenSSL takes."""
        got = run("curl", "-sS", "--fail", url)
        assert got.returncode == 0, got.stderr
        file = self.directory / url.removeprefix(f"{self.url}/").replace("/", "-")
        file.write_bytes(got.stdout)
        pem = file.with_suffix(".pem")
        assert run("openssl", "crl", "-inform", "DER", "-in", file, "-out", pem).returncode == 0
        return pem

    def verify(self, leaf: Path, *lists: Path, more: tuple[str, ...] = ()) -> str:
        """Check a chain with ``openssl verify`` and these lists."""
        files = [word for one in lists for word in ("-CRLfile", str(one))]
        base = ["openssl", "verify", "-CAfile", self.root, "-untrusted", self.issuing, "-crl_check_all", *more]
        done = run(*base, *files, leaf)
        return (done.stdout + done.stderr).decode()


@pytest.fixture(scope="module", params=[1, 3], ids=["one list", "three lists"])
def up(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """Give a platform for the tests of this module, each with names of its own."""
    running = Published(tmp_path_factory.mktemp("status"), "--crl-shards", str(request.param))
    try:
        yield running
    finally:
        running.close()


def addresses(leaf: Path) -> dict[str, str]:
    """Read the addresses in a certificate, as OpenSSL shows them."""
    text = run("openssl", "x509", "-in", leaf, "-noout", "-text").stdout.decode()
    urls = [line.partition("URI:")[2] for line in text.splitlines() if "URI:http" in line]
    return {"crl": urls[0], "ocsp": urls[1], "issuer": urls[2]}


def key_id(certificate: Path) -> str:
    shown = run("openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectKeyIdentifier").stdout.decode()
    return shown.splitlines()[1].strip().replace(":", "").lower()


def test_openssl_asks_and_is_told(up: Published):
    """Good, then revoked with its reason; with a nonce and without, by both hashes; the response's signer is verified."""
    leaf = up.issue("asked")
    assert f"http://{LOOPBACK}:{up.port} (CRLs, OCSP)" in up.greeting
    for more in ((), ("-no_nonce",), ("-sha256",)):
        said = up.ocsp(leaf, *more)
        assert "Response verify OK" in said
        assert ": good" in said
        assert "Nonce" not in said, said
    up.revoke("asked")
    for more in ((), ("-no_nonce",)):
        said = up.ocsp(leaf, *more)
        assert "Response verify OK" in said
        assert ": revoked" in said
        assert "Reason: superseded" in said
    unknown = up.ocsp(leaf, serial="0x4142434445464748")
    assert "0x4142434445464748: unknown" in unknown


def test_openssl_checks_a_chain_with_what_certificates_name(up: Published):
    """With the list that the leaf names and the root's: fine before, revoked after, and wrong with another shard's."""
    leaf = up.issue("listed")
    named = addresses(leaf)
    root = f"{up.url}/crl/{key_id(up.root)}/0.crl"
    lists = up.fetch(named["crl"]), up.fetch(root)
    assert ": OK" in up.verify(leaf, *lists)
    assert ": OK" in up.verify(leaf, *lists, more=("-extended_crl",))
    shards = 3 if "IssuingDist" in _text(lists[0]) or "Issuing Distribution" in _text(lists[0]) else 1
    if shards > 1:
        own = int(named["crl"].rpartition("/")[2].removesuffix(".crl"))
        other = named["crl"].replace(f"/{own}.crl", f"/{(own + 1) % shards}.crl")
        assert "scope" in up.verify(leaf, up.fetch(other), lists[1])
    up.revoke("listed")
    wait_for("the revocation on the list", lambda: "revoked" in up.verify(leaf, up.fetch(named["crl"]), up.fetch(root)))


def _text(listed: Path) -> str:
    return run("openssl", "crl", "-in", listed, "-noout", "-text").stdout.decode()


def test_openssl_applies_the_changes_to_an_older_list(up: Published):
    """Who holds the list from before the revocation learns of it from the changes alone."""
    leaf = up.issue("changed")
    named = addresses(leaf)
    old, root = up.fetch(named["crl"]), up.fetch(f"{up.url}/crl/{key_id(up.root)}/0.crl")
    held = up.directory / "held.pem"
    held.write_bytes(old.read_bytes())
    up.revoke("changed")
    changes = named["crl"].replace(".crl", "-delta.crl")
    assert changes in _text(held)

    def refused() -> bool:
        return "revoked" in up.verify(leaf, held, root, up.fetch(changes), more=("-extended_crl", "-use_deltas"))

    wait_for("the revocation among the changes", refused)
    assert ": OK" in up.verify(leaf, held, root)


def test_the_issuers_certificate_is_where_leaves_say(up: Published):
    """Whoever has the leaf alone finds the chain."""
    leaf = up.issue("alone")
    got = run("curl", "-sS", "--fail", addresses(leaf)["issuer"])
    found = up.directory / "found.pem"
    assert run("openssl", "x509", "-inform", "DER", "-out", found, input_=got.stdout).returncode == 0
    assert ": OK" in run("openssl", "verify", "-CAfile", up.root, "-untrusted", found, leaf).stdout.decode()


def test_the_issuing_authority_has_a_status_too(up: Published):
    """Its certificate names the root's list, who answers for the root, and the root; openssl verifies each by the root alone."""
    named = addresses(up.issuing)
    by = ("-CAfile", up.root, "-issuer", up.root)
    for more in ((), ("-no_nonce",)):
        done = run("openssl", "ocsp", *more, "-url", named["ocsp"], *by, "-cert", up.issuing)
        assert done.returncode == 0, done.stderr
        assert b"Response verify OK" in done.stdout + done.stderr
        assert b": good" in done.stdout
    never = run("openssl", "ocsp", "-url", named["ocsp"], *by, "-serial", "0x4142434445464748")
    assert b": unknown" in never.stdout, never
    listed = up.fetch(named["crl"])
    assert run("openssl", "crl", "-in", listed, "-CAfile", up.root, "-noout").returncode == 0
    above = run("openssl", "x509", "-inform", "DER", input_=run("curl", "-sS", "--fail", named["issuer"]).stdout)
    assert above.stdout == up.root.read_bytes()


def test_a_certificate_that_names_its_status_passes_the_gateway(up: Published):
    """Envoy and the access check read it as before, and the gateway's own certificate too."""
    files = up.data / "demo"
    place = f"https://demo.localhost:{up.gateway}/"
    line = next(line for line in up.greeting.splitlines() if "--cert" in line and "DELETE" not in line)
    place = line.split()[-1]
    done = run(
        "curl", "-sS", "--cacert", files / "ca.pem", "--cert", files / "client.pem", "--key", files / "client-key.pem",
        "-o", "/dev/null", "-w", "%{http_code}", place,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"200"), done.stderr
    assert addresses(files / "client.pem")["ocsp"] == f"{up.url}/ocsp"
