"""Fronts in tests: one on each event loop, an application that tells what it saw, a client that blocks and one that does not."""

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
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop

from handfast.sdk.contexts import client_context, server_context
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
    """An ASGI application. ``/`` tells the scope, ``/read`` the body's length, ``/wait`` answers when told.

    ``/much`` gives 64 MiB, ``/pour`` as much piece by piece. ``/gone`` ends when the client does, ``/fail`` raises.
    """

    go: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    left: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        self.entered.set()
        try:
            body = await getattr(self, scope["path"].strip("/") or "tell")(scope, receive)
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            step = 1 << 20 if scope["path"] == "/pour" else max(len(body), 1)
            for at in range(0, len(body), step):
                await send({"type": "http.response.body", "body": body[at : at + step], "more_body": True})
            await send({"type": "http.response.body"})
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

    async def gone(self, _: Any, receive: Any) -> bytes:
        """Answer when it is too late."""
        while (await receive())["type"] != "http.disconnect":
            pass
        return b"to nobody"

    async def fail(self, _: Any, __: Any) -> bytes:
        """Be broken."""
        raise LookupError("what the client need not know")

    async def much(self, _: Any, __: Any) -> bytes:
        """Answer with more than any buffer on the way holds."""
        return bytes(64 << 20)

    pour = much


@dataclass
class Running:
    """A front, what it serves, and what it reported."""

    front: Front
    app: App
    failures: list[FailedHandshake]

    async def left(self, *paths: str) -> None:
        """Wait until the application has ended for these paths, in this order, and no other."""
        while len(self.app.left) < len(paths):
            await asyncio.sleep(0.005)
        assert self.app.left == list(paths)

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


def client(
    pki: Pki, leaf: Issued | None, tmp_path: Any, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
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


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Talk:
    """A connection of a client that does not block."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        """Send, or keep what the kernel does not take."""
        self.writer.write(data)

    async def get(self, path: str = "/") -> Answer:
        """Ask, and keep the connection."""
        self.send(request(path))
        return await self.answer()

    async def answer(self) -> Answer:
        """Read one response."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, body)

    async def rest(self) -> bytes:
        """Read to the end, be it a good one or a bad one."""
        read = b""
        try:
            while more := await self.reader.read(65536):
                read += more
        except OSError:
            pass
        return read


def request(path: str = "/", *fields: str, method: str = "GET") -> bytes:
    """Write a request's head."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: localhost", *fields, "", "")).encode()


@asynccontextmanager
async def talking(address: tuple[str, int] | Path, context: ssl.SSLContext | None = None) -> AsyncIterator[Talk]:
    """Connect, and let go at the end without a word."""
    if isinstance(address, Path):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        name = "localhost" if context else None
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
    try:
        yield Talk(reader, writer)
    finally:
        writer.transport.abort()


@dataclass
class Served(Running):
    """A front with one TLS listener, and a client's context that is good for it."""

    address: tuple[str, int]
    context: ssl.SSLContext

    def talking(self) -> Any:
        """Connect."""
        return talking(self.address, self.context)


@asynccontextmanager
async def serving(pki: Pki, **limits: Any) -> AsyncIterator[Served]:
    """Give a front that serves over TLS."""
    context = server(pki)
    async with running(**limits) as run:
        address = await run.front.listen_tls("127.0.0.1", 0, lambda: context)
        yield Served(run.front, run.app, run.failures, address, good(pki, pki.leaf()))


async def visit(run: Served) -> int:
    """Come anew, ask once, and give the status."""
    async with run.talking() as talk:
        return (await talk.get()).status


def good(pki: Pki, leaf: Issued) -> ssl.SSLContext:
    """Build the context of a client that does all right."""
    return client_context(leaf.chain_pem, leaf.key_pem, pki.roots_pem)


async def cut(talk: Talk, *, after: float = 0) -> bytes:
    """Wait until the connection is cut, ``after`` seconds from now at the earliest, and give what came before that."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    read = await asyncio.wait_for(talk.rest(), 4)
    assert loop.time() - began >= after * 0.9
    return read
