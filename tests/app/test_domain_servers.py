"""What the servers of further trust domains serve."""

import asyncio
import subprocess
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handfast.app.client import Api
from handfast.app.domain_servers import start_domains
from handfast.app.domains import Settings, add_domain
from handfast.app.server.build import Server
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    RevocationAnswer,
    RevocationRequest,
)
from handfast.io.credentials import new_key
from tests.app.test_domains import ANY, DEV, PROD, first
from tests.support.clock import FakeClock
from tests.support.ports import free_port


def published(port: int) -> Settings:
    """Give settings with a status listener, which certificates name."""
    status = {"status": ("127.0.0.1", port), "status_url": f"http://127.0.0.1:{port}", "crl_shards": 2}
    return Settings(api=ANY, admin=ANY, **status)


async def openssl(*words: str | Path) -> str:
    """Run OpenSSL, and give all that it says."""
    command = ["openssl", *map(str, words)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


async def issued(server: Server, name: str, directory: Path) -> tuple[Path, CertificateAnswer]:
    """Have a trust domain issue a certificate; give the file with it and its issuer, and write the root beside it."""
    async with Api.local(server.socket) as api:
        asked = CertificateRequest(name=name, csr=new_key(name).csr_pem)
        answer = await api.call("POST", "/v1/certificates", CertificateAnswer, asked)
    directory.mkdir(exist_ok=True)
    leaf, mark, issuer = answer.chain.partition("-----END CERTIFICATE-----\n")
    (directory / "leaf.pem").write_text(leaf + mark)
    (directory / "issuer.pem").write_text(issuer)
    (directory / "root.pem").write_text(answer.bundle)
    return directory, answer


async def asked_ocsp(place: Path, port: int) -> str:
    url = ("-url", f"http://127.0.0.1:{port}/ocsp", "-CAfile", place / "root.pem")
    return await openssl("ocsp", "-issuer", place / "issuer.pem", "-cert", place / "leaf.pem", *url)


async def verified(place: Path) -> str:
    """Check a leaf by the list that it names itself, as OpenSSL fetches it."""
    checks = ("-crl_check", "-crl_download", "-untrusted", place / "issuer.pem", "-CAfile", place / "root.pem")
    return await openssl("verify", *checks, place / "leaf.pem")


async def test_each_publishes_what_is_revoked_of_it(tmp_path: Path):
    """OpenSSL finds lists and responder where the certificate says, and believes them; a trust domain knows nothing of another."""
    ports = {PROD: free_port(), DEV: free_port()}
    for one, port in ports.items():
        add_domain(tmp_path, one, published(port))
    async with AsyncExitStack() as stack:
        servers = {
            server.platform.trust_domain: server
            for server in await start_domains(first(tmp_path), FakeClock(datetime.now(UTC)), stack)
        }
        prod, answer = await issued(servers[PROD], "payments", tmp_path / "prod")
        dev, _ = await issued(servers[DEV], "payments", tmp_path / "dev")
        assert f"http://127.0.0.1:{ports[PROD]}/ocsp" in await openssl(
            "x509", "-in", prod / "leaf.pem", "-noout", "-text"
        )
        for place, port in ((prod, ports[PROD]), (dev, ports[DEV])):
            said = await asked_ocsp(place, port)
            assert "Response verify OK" in said
            assert "leaf.pem: good" in said
            assert "leaf.pem: OK" in await verified(place)
        async with Api.local(servers[PROD].socket) as api:
            asked = RevocationRequest(serial=answer.serial, reason="superseded")
            await api.call("POST", "/v1/revocations", RevocationAnswer, asked)
        assert "leaf.pem: revoked" in await until_revoked(prod, ports[PROD])
        assert "leaf.pem: good" in await asked_ocsp(dev, ports[DEV])
        assert "leaf.pem: OK" in await verified(dev)
        assert "unauthorized" in await asked_ocsp(prod, ports[DEV])


async def until_revoked(place: Path, port: int) -> str:
    """Wait until the list says so as well, and give what the responder says."""
    async with asyncio.timeout(20):
        while "certificate revoked" not in await verified(place):
            await asyncio.sleep(0.05)
    return await asked_ocsp(place, port)


@pytest.mark.parametrize("url", ["", "http://status.example.org"])
async def test_without_a_port_nothing_is_published(url: str, tmp_path: Path):
    """Others may serve what certificates name."""
    add_domain(tmp_path, PROD, Settings(api=ANY, admin=ANY, status_url=url))
    async with AsyncExitStack() as stack:
        (server,) = await start_domains(first(tmp_path), FakeClock(datetime.now(UTC)), stack)
        assert server.status.address[1] == 0
