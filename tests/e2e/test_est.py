"""EST as devices speak it: the how-to's own commands, with curl and OpenSSL, against a platform of their own."""

import base64
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.reasons import Reason
from tests.e2e.clients import Response, Seen, curl, fetch
from tests.e2e.echo import LOOPBACK, Echo
from tests.e2e.platform import HANDFAST, Client, Platform
from tests.support.pki import Files
from tests.support.ports import free_port

HOW_TO = (Path(__file__).parents[2] / "docs/howto/est.md").read_text()
HOST = "api.example.org"


def blocks(kind: str) -> list[str]:
    """Give the how-to's blocks of a kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", HOW_TO, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Platform]:
    """Give a platform with the how-to's world."""
    gateway = free_port()
    (world,) = blocks("yaml")
    world = world.replace("127.0.0.1:8443", f"{LOOPBACK}:{gateway}").replace("http://127.0.0.1:9000", echo.url)
    running = Platform(tmp_path_factory.mktemp("plant"), world, gateway)
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest.fixture
def device(plant: Platform, tmp_path: Path) -> Path:
    """Give a device's directory, with the root."""
    (tmp_path / "root.pem").write_bytes(plant.ca.read_bytes())
    return tmp_path


def shell(plant: Platform, device: Path, script: str) -> str:
    """Run commands of the how-to on a device."""
    path = f"{HANDFAST.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("localhost:7443", f"localhost:{plant.api_port}")],
        cwd=device,
        env={**os.environ, "PATH": path, "HANDFAST_DATA": str(plant.data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def held(device: Path) -> Client:
    """Give what the device has now."""
    return Client(Files(device / "cert.pem", device / "key.pem"))


def est(plant: Platform, operation: str, *options: str | Path, files: Files | None = None) -> Response:
    """Call an operation with the request that lies on the device."""
    url = f"https://localhost:{plant.api_port}/.well-known/est/example.org/{operation}"
    media = ("-H", "Content-Type: application/pkcs10")
    return fetch(url, plant.ca, *media, *options, files=files)


def test_a_device_enrols_is_served_renews_and_is_refused_once_revoked(plant: Platform, device: Path):
    """The how-to from its first command to its last, and then what an operator does about a lost device."""
    token, authorities, enrol, again = blocks("sh")
    shell(plant, device, token)
    shell(plant, device, authorities)
    shown = shell(plant, device, enrol)
    assert "URI:spiffe://example.org/sensor, DNS:sensor.internal" in shown
    first = held(device)
    serial = first.serial
    answer = curl(plant, f"{HOST}/reading", files=first.files)
    assert Seen(answer).request.startswith("GET /reading")
    old_key = (device / "key.pem").read_bytes()
    shell(plant, device, again)
    second = held(device)
    assert second.serial != serial
    assert (device / "key.pem").read_bytes() != old_key
    assert Seen(curl(plant, f"{HOST}/reading", files=second.files))
    plant.revoke(second)
    body = ("--data-binary", f"@{device / 'request.b64'}")
    refused = est(plant, "simplereenroll", *body, files=second.files)
    assert (refused.status, refused.plain["code"]) == (403, Reason.REVOKED)
    with pytest.raises(AssertionError, match="curl: "):  # the host requires a certificate: it ends in the handshake
        curl(plant, f"{HOST}/reading", files=second.files)


def test_the_token_is_spent(plant: Platform, device: Path):
    """What let one device in lets in no other, and curl is asked for a password."""
    token, authorities, enrol, _ = blocks("sh")
    shell(plant, device, token + authorities + enrol)
    secret = (device / "token.txt").read_text().strip()
    answer = est(plant, "simpleenroll", "-u", f"sensor:{secret}", "--data-binary", f"@{device / 'request.b64'}")
    assert (answer.status, answer.plain["code"]) == (401, Reason.TOKEN_NOT_VALID)
    assert answer.one("www-authenticate").startswith("Basic")


def test_openssl_asks_for_the_certificate_again(plant: Platform, device: Path):
    """RFC 7030 section 4.2.2: OpenSSL makes a request out of the certificate, subject and names and all."""
    token, authorities, enrol, _ = blocks("sh")
    shell(plant, device, token + authorities + enrol)
    copy = "openssl x509 -x509toreq -copy_extensions copyall -in cert.pem -key key.pem -out again.pem 2>/dev/null"
    shell(plant, device, f"{copy}\nopenssl req -in again.pem -outform DER | openssl base64 > again.b64")
    answer = est(plant, "simplereenroll", "--data-binary", f"@{device / 'again.b64'}", files=held(device).files)
    assert answer.status == 200, answer.body
    (device / "again.p7").write_bytes(base64.b64decode(b"".join(answer.body.split())))
    shell(plant, device, "openssl pkcs7 -inform DER -in again.p7 -print_certs -out again.crt")
    leaf = x509.load_pem_x509_certificate((device / "again.crt").read_bytes())
    assert leaf.public_key() == held(device).leaf.public_key()
    assert list(leaf.extensions) == list(held(device).leaf.extensions)


def test_the_attributes_are_readable(plant: Platform, device: Path):
    """OpenSSL reads what the server wants of a request: a curve and a signature."""
    url = f"https://localhost:{plant.api_port}/.well-known/est/csrattrs"
    shown = shell(
        plant, device, f"curl -sS --cacert root.pem {url} | openssl base64 -d | openssl asn1parse -inform DER"
    )
    assert re.findall(r"OBJECT\s+:(\S+)", shown) == ["id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256"]
