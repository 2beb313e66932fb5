"""The client: several connections that stay open, each with one request after the other.

What it costs itself is not counted. It reads an answer by its ``content-length``, or in chunks, as Go writes longer ones.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from bench.support import LOOPBACK

Ask = bytes
"""A whole request, head and body."""


def request(path: str, body: dict[str, Any]) -> Ask:
    """Write a POST of JSON."""
    said = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(said)}\r\n\r\n"
    return head.encode() + said


class Connection:
    """One connection that stays open."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        """Connect, and shake hands."""
        plain = socket.create_connection((LOOPBACK, port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = context.wrap_socket(plain, server_hostname="localhost")
        self._read: BinaryIO = self._tls.makefile("rb")

    def ask(self, asked: Ask) -> tuple[int, bytes]:
        """Send a request; give the answer's status and body."""
        self._tls.sendall(asked)
        status, fields = int(self._read.readline().split()[1]), dict[bytes, bytes]()
        while line := self._read.readline().strip():
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        if fields.get(b"transfer-encoding") == b"chunked":
            return status, b"".join(iter(self._chunk, b""))
        return status, self._read.read(int(fields[b"content-length"]))

    def _chunk(self) -> bytes:
        chunk = self._read.read(int(self._read.readline(), 16))
        self._read.readline()
        return chunk

    def close(self) -> None:
        """Hang up."""
        self._read.close()
        self._tls.close()


class Clients:
    """Several connections to one server, used at the same time. Each answer holds so many ``certificates`` that were asked for."""

    def __init__(self, port: int, context: ssl.SSLContext, count: int, *, certificates: int = 1) -> None:
        """Connect all."""
        self._connections = [Connection(port, context) for _ in range(count)]
        self._threads = ThreadPoolExecutor(count)
        self._certificates = certificates

    def ask(self, asked: Sequence[Ask], count: int) -> int:
        """Have about ``count`` certificates made, shared among the connections; each must come. Give how many it were."""
        each = max(count // self._certificates // len(self._connections), 1)
        done = [self._threads.submit(self._many, one, asked, each) for one in self._connections]
        for one in done:
            one.result()
        return each * len(self._connections) * self._certificates

    def _many(self, connection: Connection, asked: Sequence[Ask], count: int) -> None:
        for number in range(count):
            status, body = connection.ask(asked[number % len(asked)])
            if (
                status not in {200, 201}
                or body.count(b"BEGIN CERTIFICATE") < self._certificates
                or b'"problem"' in body
            ):
                raise SystemExit(f"status {status}: {body[:300]!r}")

    def close(self) -> None:
        """Hang up."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()
