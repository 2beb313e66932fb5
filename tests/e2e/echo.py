"""A service behind the gateway: it answers each request with what it saw of it, spellings and repetitions included."""

from __future__ import annotations

import json
import socketserver
import threading
from io import BufferedIOBase
from itertools import count
from typing import Any

LOOPBACK = "127.0.0.1"


class Echo:
    """The service. ``requests`` counts what reached it."""

    def __init__(self) -> None:
        """Listen on a free port, and answer from threads of its own."""
        self.requests = 0
        self._counter = count(1)
        self._server = _Server((LOOPBACK, 0), _Handler)
        self._server.echo = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOOPBACK}:{self.port}"

    def seen(self) -> None:
        """Count a request."""
        self.requests = next(self._counter)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    echo: Echo


class _Handler(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer requests until the gateway closes the connection."""
        while head := _head(self.rfile):
            self.server.echo.seen()
            first, *lines = head
            seen = {"request": first, "headers": [line.split(": ", 1) for line in lines]}
            seen["body"] = _body(self.rfile, lines).decode("latin-1")
            self.wfile.write(_answer(seen, with_body=not first.startswith("HEAD ")))


def _head(stream: BufferedIOBase) -> list[str]:
    """Read the lines of one request's head, as they came."""
    lines: list[str] = []
    while (line := stream.readline(1 << 20)) and line != b"\r\n":
        lines.append(line.decode("latin-1").removesuffix("\r\n"))
    return lines if line else []


def _body(stream: BufferedIOBase, lines: list[str]) -> bytes:
    for name, _, value in (line.partition(": ") for line in lines):
        if name.lower() == "content-length":
            return stream.read(int(value))
        if name.lower() == "transfer-encoding":
            return b"".join(_chunks(stream))
    return b""


def _chunks(stream: BufferedIOBase) -> list[bytes]:
    chunks = []
    while size := int(stream.readline(), 16):
        chunks.append(stream.read(size))
        stream.readline()
    while stream.readline() not in {b"\r\n", b""}:
        pass
    return chunks


def _answer(seen: dict[str, Any], *, with_body: bool) -> bytes:
    body = json.dumps(seen).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + (body if with_body else b"")
