"""The client: one request after the other, over new connections, resumed ones, or one that stays open.

It has a certificate with its intermediate. What it costs itself is not counted.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from bench.gateway.servers import Server
from bench.support import LOOPBACK


def context(version: ssl.TLSVersion, roots: Path, chain: Path | None, key: Path | None) -> ssl.SSLContext:
    """Give a context for one version of TLS; without ``chain`` the client shows no certificate."""
    made = ssl.create_default_context(cafile=str(roots))
    made.minimum_version = made.maximum_version = version
    made.set_alpn_protocols(["http/1.1"])
    if chain:
        made.load_cert_chain(chain, key)
    return made


class Client:
    """One client of one server."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        """Use ``context``; nothing is connected yet."""
        self.server, self._context = server, context
        self._head = f"GET /bench HTTP/1.1\r\nhost: {server.host}\r\naccept: */*\r\nuser-agent: bench\r\n"
        self._request = f"{self._head}\r\n".encode()

    def keep_cookie(self) -> None:
        """Ask once, and send the cookies that come with the answer from then on."""
        with self._connect() as tls:
            lines = self._ask(tls).decode().split("\r\n")
        set_ = [line.partition(":")[2].partition(";")[0].strip() for line in lines if line.lower().startswith("set-cookie:")]
        if not set_:
            raise SystemExit(f"{self.server.name} sets no cookie")
        self._request = f"{self._head}cookie: {'; '.join(set_)}\r\n\r\n".encode()

    def full(self, count: int) -> int:
        """Connect anew each time; give how many sessions were resumed, which is none."""
        resumed = 0
        for _ in range(count):
            with self._connect() as tls:
                self._ask(tls)
                resumed += bool(tls.session_reused)
        return resumed

    def resumed(self, count: int) -> int:
        """Connect with the session that the connection before left, the first of which is on top; give how many were resumed."""
        resumed, session = 0, self._session()
        for _ in range(count):
            with self._connect(session) as tls:
                self._ask(tls)
                resumed += bool(tls.session_reused)
                session = tls.session
        return resumed

    def kept_alive(self, count: int) -> int:
        """Ask over one connection, which was made before; give 0, as ever."""
        for _ in range(count):
            self._ask(self._open)
        return 0

    def open(self) -> None:
        """Make the connection that stays."""
        self._open = self._connect()
        self._ask(self._open)

    def close(self) -> None:
        """Close it."""
        self._open.close()

    def is_served(self) -> bool:
        """Ask once; tell whether the answer is a 200. Some servers refuse in the handshake, some with an answer."""
        try:
            with self._connect() as tls:
                tls.sendall(self._request)
                return tls.recv(65536).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def _session(self) -> ssl.SSLSession | None:
        with self._connect() as tls:
            self._ask(tls)
            return tls.session

    def _connect(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection((LOOPBACK, self.server.port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(plain, server_hostname=self.server.host, session=session)

    def _ask(self, tls: ssl.SSLSocket) -> bytes:
        """Send the request, read the whole answer, give its head."""
        tls.sendall(self._request)
        answer = b""
        while not answer.endswith(b"hello, world\n"):
            more = tls.recv(65536)
            answer += more
            if not more or not answer.startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"{self.server.name} answers {answer[:300]!r}")
        return answer.partition(b"\r\n\r\n")[0]
