"""A client over HTTP for the server in this process, step by step; and something that meets challenges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from handfast.app.client import Api
from handfast.app.server.acme.messages import AcmeKeyAnswer, AcmeKeyRequest
from handfast.trust.acme.keys import from_base64url, to_base64url
from tests.app.sites import DOMAIN, Site
from tests.support.acme import Csr, Signing, make_key

Plain = dict[str, Any]


@dataclass
class Acme:
    """One client with one key. ``post`` takes a fresh nonce each time."""

    site: Site
    api: Api
    key: Signing = field(default_factory=make_key)
    kid: str = ""

    @property
    def base(self) -> str:
        """Where ACME is."""
        return f"{self.site.server.url}/acme/{DOMAIN}"

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx2.Response:
        """Ask without a signature."""
        return await self.api._client.request(method, f"/acme/{DOMAIN}{path}", headers=headers)

    async def nonce(self) -> str:
        """Get a nonce."""
        return (await self.get("/new-nonce", "HEAD")).headers["replay-nonce"]

    async def post(self, url: str, payload: object = None, /, **header: Any) -> httpx2.Response:
        """Send a signed request; what is in ``header`` stands in for what would be right, and None leaves it out."""
        url = url if url.startswith("https:") else self.base + url
        who = {"kid": self.kid} if self.kid else {"jwk": self.key.jwk}
        right = {"url": url, "nonce": await self.nonce(), **who}
        protected = {name: value for name, value in {**right, **header}.items() if value is not None}
        return await self.send(url, json.dumps(self.key.jws(payload, protected)))

    async def send(self, url: str, body: str | bytes, media: str = "application/jose+json") -> httpx2.Response:
        """Send a body."""
        return await self.api._client.request("POST", url, content=body, headers={"content-type": media})

    async def make_binding(self, name: str = "payments", **more: Any) -> AcmeKeyAnswer:
        """Have the operator make a key."""
        asked = AcmeKeyRequest(name=name, **more)
        return await self.site.operator.call("POST", "/v1/acme/keys", AcmeKeyAnswer, asked)

    def bind(self, binding: AcmeKeyAnswer) -> dict[str, str]:
        """Bind this client's key."""
        return self.key.bind(binding.key_id, from_base64url(binding.hmac_key), f"{self.base}/new-account")

    async def register(self, binding: AcmeKeyAnswer | None = None) -> httpx2.Response:
        """Get an account."""
        binding = binding or await self.make_binding()
        answer = await self.post("/new-account", {"externalAccountBinding": self.bind(binding)})
        self.kid = answer.headers.get("location", "")
        return answer

    async def order(self, *names: str, **more: Any) -> httpx2.Response:
        """Begin an order."""
        identifiers = [{"type": "dns", "value": name} for name in names or ("localhost",)]
        return await self.post("/new-order", {"identifiers": identifiers, **more})

    async def meet(self, order: Plain, responder: Responder, kind: str = "http-01") -> None:
        """Meet all challenges of an order, and wait until they are decided."""
        for url in order["authorizations"]:
            authorization = (await self.post(url)).json()
            challenge = next(one for one in authorization["challenges"] if one["type"] == kind)
            responder.files[challenge["token"]] = f"{challenge['token']}.{self.key.thumbprint}"
            await self.post(challenge["url"], {})
            await self.decided(url)

    async def decided(self, url: str, *undecided: str) -> Plain:
        """Wait until an authorization or order is decided."""
        for _ in range(400):
            plain: Plain = (await self.post(url)).json()
            if plain["status"] not in (undecided or ("pending",)):
                return plain
            await asyncio.sleep(0.01)
        raise AssertionError(plain)

    async def finalize(self, order: Plain, csr: Csr) -> httpx2.Response:
        """Ask for the certificate."""
        return await self.post(order["finalize"], {"csr": to_base64url(csr.der)})

    async def obtain(self, responder: Responder, *names: str, csr: Csr | None = None, **more: Any) -> str:
        """Do it all; give the chain."""
        answer = await self.order(*names, **more)
        assert answer.status_code == 201, answer.text
        order = answer.json()
        await self.meet(order, responder)
        answer = await self.finalize(order, csr or Csr(list(names or ("localhost",))))
        assert answer.status_code == 200, answer.text
        return (await self.post(answer.json()["certificate"])).text


@dataclass
class Responder:
    """Serves challenges over HTTP on a port of its own. ``replies`` are whole answers that come instead, by order."""

    port: int = 0
    files: dict[str, str] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    replies: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the body comes a moment after the head, as certbot sends it."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        token = head.split(b" ")[1].rpartition(b"/")[2].decode()
        if self.replies:
            writer.write(self.replies.pop(0))
        elif token in self.files:
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(self.files[token].encode())
        else:
            writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def responder() -> AsyncIterator[Responder]:
    """Run one."""
    serving = Responder()
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    serving.port = server.sockets[0].getsockname()[1]
    async with server:
        yield serving


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Read a problem: its status and the last part of its type."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert answer.headers["replay-nonce"]
    plain = answer.json()
    assert plain["status"] == answer.status_code
    assert plain["detail"]
    head, _, kind = plain["type"].rpartition(":")
    assert head == "urn:ietf:params:acme:error"
    return answer.status_code, kind
