"""One Envoy with a static configuration, the services behind it, and clients that speak to it octet by octet."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Self

from handfast.access.slice import Slice, make_slice
from handfast.access.world import World
from handfast.envoy.translate import Gateway, KeyPair, Resources, translate
from handfast.io.envoy_process import find_envoy
from tests.support.pki import SERVER, Issued, Pki

LOOPBACK = "127.0.0.1"
PROGRAM = files("handfast.envoy").joinpath("access.lua").read_text()
GONE = (OSError, HTTPException)
"""What a client meets when the other side breaks off."""


# Configuration


def slice_of(world: World, pki: Pki, *denied: str) -> Slice:
    """Make the slice of a world whose clients' certificates come from ``pki``."""
    return make_slice(revision=7, world=world, roots=(pki.roots_pem.decode(),), issuers=(), denied=denied)


def resources_of(slice_: Slice, pki: Pki, directory: Path) -> Resources:
    """Translate it as the agent does, with a certificate for every host."""
    pairs = {name: pki.leaf(name, dns=[name], ips=[], eku=[SERVER]) for name in slice_.world.hosts}
    return translate(
        slice_,
        Gateway(
            program=PROGRAM,
            by="spiffe://example.org/handfast/agent/test",
            certificates={name: KeyPair(one.chain_pem.decode(), one.key_pem.decode()) for name, one in pairs.items()},
            jwks='{"keys":[]}',
            upstream_roots=pki.roots_pem.decode(),
            agent_socket=str(directory / "nobody.sock"),
            access_log=str(directory / "rows.jsonl"),
        ),
    )


def checked(config: dict[str, Any], directory: Path, name: str) -> str:
    """Have Envoy read a bootstrap without serving it; give its words, empty where it is content."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(config))
    flags = ["--mode", "validate", "-l", "critical", "--use-dynamic-base-id"]
    run = subprocess.run([find_envoy(), *flags, "-c", path], check=False, capture_output=True, text=True, timeout=60)
    return "" if run.returncode == 0 else run.stdout + run.stderr or f"exit code {run.returncode}"


# Envoy


class Lone(NamedTuple):
    """A running Envoy: its process, and the file that has its words."""

    process: subprocess.Popen[bytes]
    words: Path

    def faults(self) -> list[str]:
        """Give what it complained of: a crash, or a fault in the access check."""
        marks = ("handfast:", "[critical]", "[error]", "assert failure", "Caught")
        told = [line for line in self.words.read_text().splitlines() if any(mark in line for mark in marks)]
        return told if self.process.poll() is None else [*told, f"it ended: {self.process.returncode}"]


@contextmanager
def running(config: dict[str, Any], directory: Path) -> Iterator[Lone]:
    """Start an Envoy, wait until it listens everywhere, and end it after the caller."""
    path, words = directory / "envoy.json", directory / "envoy.log"
    path.write_text(json.dumps(config))
    flags = ["--use-dynamic-base-id", "--concurrency", "1", "-l", "error", "--file-flush-interval-msec", "50"]
    with words.open("wb") as log:
        process = subprocess.Popen([find_envoy(), *flags, "-c", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for listener in config["static_resources"]["listeners"]:
            _wait_for(listener["address"]["socket_address"]["port_value"], process, words)
        yield Lone(process, words)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], words: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        assert process.poll() is None, words.read_text()[-2000:]
        with suppress(OSError), socket.create_connection((LOOPBACK, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on {port}: {words.read_text()[-2000:]}")


# Services


class _Echo(asyncio.Protocol):
    """Answers each request (without content) with what it was, and which service this is."""

    def __init__(self, name: int) -> None:
        self.name, self.held = name, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head, self.held = self.held[:end].decode("latin-1"), self.held[end + 4 :]
            self._answer(*head.split("\r\n"))

    def _answer(self, line: str, *fields: str) -> None:
        method, target, _ = line.split(" ")
        headers = [field.split(": ", 1) for field in fields]
        body = json.dumps({"service": self.name, "method": method, "target": target, "headers": headers}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.transport.write(head if method == "HEAD" else head + body)


@contextmanager
def echoes(count: int) -> Iterator[list[int]]:
    """Run so many services in one thread; give their ports."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve(name: int) -> asyncio.Server:
        return await loop.create_server(lambda: _Echo(name), LOOPBACK, 0)

    servers = [asyncio.run_coroutine_threadsafe(serve(name), loop).result(10) for name in range(count)]
    try:
        yield [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        for server in servers:
            loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


# Clients


class Answer(NamedTuple):
    """What came back. ``seen`` is the JSON object in the body: the service's echo or a problem document."""

    status: int
    seen: dict[str, Any]
    headers: list[tuple[str, str]]

    @property
    def code(self) -> str:
        """The problem's code, empty where there is none."""
        return str(self.seen.get("code", ""))

    def told(self, name: str) -> list[str]:
        """Give the values that the service saw of a header, one for each time it came."""
        return [value for key, value in self.seen["headers"] if key.lower() == name]


def client_context(client: Issued | None, directory: Path, *, tls12: bool = False) -> ssl.SSLContext:
    """Make a client that shows a certificate or none, however weak it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if client:
        context.load_cert_chain(*client.write(directory, "client"))
    return context


class Connection:
    """One connection that is kept open. Requests are sent as they are given, without a look at them."""

    def __init__(self, context: ssl.SSLContext, port: int, name: str, session: ssl.SSLSession | None = None) -> None:
        """Finish the handshake, as far as a client can tell."""
        plain = socket.create_connection((LOOPBACK, port), 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = name
        try:
            self.tls = context.wrap_socket(plain, server_hostname=name, session=session)
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self.tls.close()

    def ask(self, target: str, method: str = "GET", *, host: str = "", fields: str = "") -> Answer:
        """Send one request and read the answer. ``fields`` are whole lines, each with its line end.

        Raises:
            OSError, HTTPException: the other side broke off.
        """
        head = f"{method} {target} HTTP/1.1\r\nHost: {host or self.name}\r\n{fields}\r\n"
        self.tls.sendall(head.encode("latin-1"))
        return _answer(HTTPResponse(self.tls, method=method))


class _Heard:
    """What was read already, as a socket that HTTPResponse reads from."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def makefile(self, _mode: str) -> BytesIO:
        """Give it as a file."""
        return BytesIO(self.octets)


def read_answer(octets: bytes) -> Answer:
    """Read an answer that came whole."""
    return _answer(HTTPResponse(_Heard(octets)))  # type: ignore[arg-type]


def _answer(response: HTTPResponse) -> Answer:
    response.begin()
    body = response.read()
    return Answer(response.status, json.loads(body) if body.startswith(b"{") else {}, response.getheaders())
