"""Fronts in tests: one on each event loop, an application that tells what it saw, and a client that blocks."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from handfast.sdk.contexts import server_context
from handfast.sdk.front import Front
from handfast.sdk.handshake import FailedHandshake, ServerContext
from handfast.sdk.limits import Limits
from tests.support.pki import Issued, Pki

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
LASTS_S = 30


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test once on asyncio and once on uvloop."""

    @pytest.mark.parametrize("loop", LOOPS)
    @functools.wraps(test)
    def run(loop: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), LASTS_S))

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), loop])
    del run.__wrapped__
    return run


@dataclass
class App:
    """An ASGI application. ``/`` tells the scope, ``/read`` the body's length, ``/wait`` answers when told, ``/much`` 64 MiB."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        self.entered.set()
        try:
            body = await getattr(self, scope["path"].strip("/") or "tell")(scope, receive)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
            await send({"type": "http.response.body", "body": body[:1], "more_body": True})
            await send({"type": "http.response.body", "body": body[1:]})
        finally:
            self.left.append(scope["path"])

    async def tell(self, scope: Any, _: Any) -> bytes:
        """Tell what came in."""
        extensions = dict(scope["extensions"])
        if extensions.get("handfast.peer_der"):
            extensions["handfast.peer_der"] = extensions["handfast.peer_der"].hex()
        headers = [[name.decode(), value.decode()] for name, value in scope["headers"]]
        told = {"extensions": extensions, "headers": headers, "scheme": scope["scheme"], "client": scope["client"]}
        return json.dumps(told).encode()

    async def read(self, scope: Any, receive: Any) -> bytes:
        """Read the body, and tell its length and the fields that are there by then."""
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        return json.dumps([size, [name.decode() for name, _ in scope["headers"]]]).encode()

    async def wait(self, _: Any, __: Any) -> bytes:
        """Answer late."""
        await self.go.wait()
        return b"late"

    async def much(self, _: Any, __: Any) -> bytes:
        """Answer with more than any buffer on the way holds."""
        return bytes(64 << 20)


@dataclass
class Running:
    """A front, what it serves, and what it reported."""

    front: Front
    app: App
    failures: list[FailedHandshake]

    async def reported(self, count: int = 1) -> list[FailedHandshake]:
        """Wait until so many failures were reported."""
        while len(self.failures) < count:
            await asyncio.sleep(0.005)
        return self.failures


@asynccontextmanager
async def running(**limits: Any) -> AsyncIterator[Running]:
    """Give a front with no listeners, and stop it."""
    app, failures = App(), []
    front = Front(app, on_failed_handshake=failures.append, limits=Limits(**limits))
    try:
        yield Running(front, app, failures)
    finally:
        await front.stop(0)


def server(pki: Pki, *, lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **more: Any) -> ServerContext:
    """Build the server's context for `localhost`."""
    leaf = pki.leaf("server")
    context = server_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem, **more)
    context.minimum_version = lowest
    return context


def client(pki: Pki, leaf: Issued | None, tmp_path: Any, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Build a plain client's context, past all the care that ours take."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pki.roots_pem.decode())
    context.minimum_version = context.maximum_version = version
    if leaf is not None:
        context.load_cert_chain(*leaf.write(tmp_path, f"leaf-{id(leaf)}"))
    return context


def ask(address: tuple[str, int], context: ssl.SSLContext, request: bytes = GET, *, name: str = "localhost") -> bytes:
    """Send a request at once, and read to the end. Raises the alert, if one comes."""
    with (
        socket.create_connection(address, timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name, suppress_ragged_eofs=False) as tls,
    ):
        tls.sendall(request)
        return read_all(tls)


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def told(answer: bytes) -> Any:
    """Take the JSON out of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return json.loads(body)
