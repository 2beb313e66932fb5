"""A control plane in this process: the real server on a free port and its socket, and callers of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from handfast.app.client import Api
from handfast.app.server.build import Server, ServerConfig, build_server
from handfast.app.server.callers import Role
from handfast.app.server.messages import (
    CertificateAnswer,
    CertificateRequest,
    JoinRequest,
    TokenAnswer,
    TokenRequest,
    WorldAnswer,
)
from handfast.base.spiffe import TrustDomain
from handfast.io.credentials import Credential, new_key
from handfast.io.sealed import Passphrase
from handfast.sdk.contexts import anonymous_context, client_context
from tests.support.clock import FakeClock

DOMAIN = "example.org"
AGENT = "edge"
WORLD = f"""\
trust_domain: {DOMAIN}
workloads:
  payments: {{dns: [payments.internal], ttl: 1h}}
hosts:
  api.{DOMAIN}:
    listen: 127.0.0.1:8443
    routes:
      - {{path: /, upstream: "http://127.0.0.1:9000", allow: [{{identity: payments, methods: [GET]}}]}}
"""


@dataclass
class Site:
    """A running server, and a way to be anybody."""

    server: Server
    clock: FakeClock
    operator: Api
    stack: AsyncExitStack

    @property
    def bundle(self) -> str:
        """The roots."""
        return self.server.platform.authority.bundle_pem

    async def issue(self, name: str, **more: Any) -> Credential:
        """Have the operator issue a certificate."""
        key = new_key()
        asked = CertificateRequest(name=name, csr=key.csr_pem, **more)
        return _credential(key.key_pem, await self.operator.call("POST", "/v1/certificates", CertificateAnswer, asked))

    async def token(self, name: str | None = None, ttl: int = 3600) -> str:
        """Have the operator make a join token: for this name, or for any new one."""
        asked = TokenRequest(name=name, ttl_seconds=ttl)
        return (await self.operator.call("POST", "/v1/agents/tokens", TokenAnswer, asked)).token

    async def join(self, name: str = AGENT) -> Credential:
        """Join as an agent, and give its certificate."""
        key = new_key()
        request = JoinRequest(token=await self.token(name), name=name, csr=key.csr_pem)
        answer = await self.anonymous().call("POST", "/v1/agents/join", CertificateAnswer, request)
        return _credential(key.key_pem, answer)

    def holder(self, credential: Credential) -> Api:
        """Be whoever holds this certificate."""
        context = client_context(credential.chain_pem.encode(), credential.key_pem.encode(), self.bundle.encode())
        return self._closed_later(Api.remote(self.server.url, context))

    def anonymous(self) -> Api:
        """Be nobody."""
        return self._closed_later(Api.remote(self.server.url, anonymous_context(self.bundle.encode())))

    async def being(self, role: Role) -> Api:
        """Be somebody of this role, by certificate."""
        match role:
            case Role.OPERATOR:
                return self.holder(await self.issue("ann", operator=True))
            case Role.AGENT:
                return self.holder(await self.join())
            case Role.WORKLOAD:
                return self.holder(await self.issue("payments"))
            case Role.NOBODY:
                return self.anonymous()

    async def apply(self, text: str = WORLD) -> WorldAnswer:
        """Have the operator apply a world."""
        return await self.operator.call("PUT", "/v1/world", WorldAnswer, text)

    def _closed_later(self, api: Api) -> Api:
        self.stack.push_async_callback(api.close)
        return api


def _credential(key_pem: str, answer: CertificateAnswer) -> Credential:
    return Credential(key_pem, answer.chain, answer.bundle)


@asynccontextmanager
async def site(
    directory: Path, clock: FakeClock | None = None, passphrase: Passphrase | None = None, port: int = 0
) -> AsyncIterator[Site]:
    """Run a server over ``directory``. Its clock stands at the machine's time, which OpenSSL goes by."""
    clock = clock or FakeClock(datetime.now(UTC))
    config = ServerConfig(
        directory=directory,
        trust_domain=TrustDomain(DOMAIN),
        api=("127.0.0.1", port),
        admin=("127.0.0.1", 0),
        passphrase=passphrase,
    )
    async with AsyncExitStack() as stack:
        server = await build_server(config, clock)
        stack.push_async_callback(server.stop, 0.1)
        await server.start()
        operator = await stack.enter_async_context(Api.local(server.socket))
        yield Site(server, clock, operator, stack)


async def raw(api: Api, method: str, path: str, content: bytes | str = b"", **headers: str) -> httpx2.Response:
    """Send what no client of ours would."""
    return await api._client.request(method, path, content=content, headers=headers)


def problem(response: httpx2.Response) -> tuple[int, str]:
    """Read a problem document (RFC 9457): its status and code, after looking at its form."""
    assert response.headers["content-type"] == "application/problem+json"
    plain = msgspec.json.decode(response.content)
    assert set(plain) == {"type", "title", "status", "code", "detail", "hint"}
    assert plain["status"] == response.status_code
    assert plain["type"] == f"urn:handfast:{plain['code']}"
    assert plain["title"]
    assert plain["detail"]
    return response.status_code, plain["code"]
