"""A control plane that also publishes status, and clients that ask it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.app.client import Api
from handfast.app.server.build import ServerConfig, build_server
from handfast.app.server.messages import RevocationAnswer, RevocationRequest
from handfast.app.server.status import StatusConfig
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import Credential
from handfast.io.sealed import Passphrase
from tests.app.sites import DOMAIN, Site
from tests.support.clock import FakeClock
from tests.support.ports import free_port


@dataclass
class StatusSite(Site):
    """A site whose certificates name its status listener."""

    http: httpx2.AsyncClient

    @property
    def issuing(self) -> x509.Certificate:
        """The issuing authority."""
        return x509.load_der_x509_certificate(self.server.platform.authority.issuing_der)

    @property
    def key_id(self) -> str:
        """Its key identifier, hex."""
        return self.server.platform.authority.issuer_facts.key_id.hex()

    async def revoke(self, serial: str, reason: str = "keyCompromise") -> None:
        """Have the operator revoke a certificate."""
        asked = RevocationRequest(serial=serial, reason=reason)
        await self.operator.call("POST", "/v1/revocations", RevocationAnswer, asked)

    async def crl(self, path: str) -> x509.CertificateRevocationList:
        """Get a list."""
        got = await self.http.get(path)
        assert (got.status_code, got.headers["content-type"]) == (200, "application/pkix-crl"), got.text
        return x509.load_der_x509_crl(got.content)

    def question(self, leaf: x509.Certificate, nonce: bytes = b"") -> bytes:
        """Give an OCSP request (DER) for a certificate of this site."""
        builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, self.issuing, hashes.SHA256())
        if nonce:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return builder.build().public_bytes(Encoding.DER)

    async def post(self, question: bytes) -> ocsp.OCSPResponse:
        """Ask by POST."""
        sent = await self.http.post("/ocsp", content=question, headers={"content-type": "application/ocsp-request"})
        assert (sent.status_code, sent.headers["content-type"]) == (200, "application/ocsp-response")
        return ocsp.load_der_ocsp_response(sent.content)

    async def get(self, question: bytes, **headers: str) -> httpx2.Response:
        """Ask by GET."""
        text = base64.b64encode(question).decode()
        quoted = text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        return await self.http.get(f"/ocsp/{quoted}", headers=headers)


def leaf_of(credential: Credential) -> x509.Certificate:
    """Give the leaf."""
    return x509.load_der_x509_certificate(credential.leaf_der)


@asynccontextmanager
async def status_site(
    directory: Path,
    clock: FakeClock | None = None,
    *,
    shards: int = 1,
    url: str = "http://status.example.org",
    passphrase: Passphrase | None = None,
) -> AsyncIterator[StatusSite]:
    """Run a server that publishes status."""
    clock = clock or FakeClock(datetime.now(UTC))
    status = StatusConfig(listen=("127.0.0.1", free_port()), url=url, shards=shards)
    config = ServerConfig(
        directory=directory,
        trust_domain=TrustDomain(DOMAIN),
        api=("127.0.0.1", 0),
        admin=("127.0.0.1", 0),
        passphrase=passphrase,
        status=status,
    )
    async with AsyncExitStack() as stack:
        server = await build_server(config, clock)
        stack.push_async_callback(server.stop, 0.1)
        await server.start()
        operator = await stack.enter_async_context(Api.local(server.socket))
        base = f"http://127.0.0.1:{server.status.address[1]}"
        http = await stack.enter_async_context(httpx2.AsyncClient(base_url=base))
        yield StatusSite(server, clock, operator, stack, http)
