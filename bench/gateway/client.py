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
        self._session: ssl.SSLSession | None = None
        self._open: ssl.SSLSocket | None = None

    def keep_cookie(self) -> None:
        """Ask once, and send the cookies that come with the answer from then on."""
        with self._connect() as tls:
            lines = self._ask(tls).decode().split("\r\n")
        set_ = [
            line.partition(":")[2].partition(";")[0].strip() for line in lines if line.lower().startswith("set-cookie:")
        ]
        if not set_:
            raise SystemExit(f"{self.server.name} sets no cookie")
        self._request = f"{self._head}cookie: {'; '.join(set_)}\r\n\r\n".encode()

    def begin_anew(self) -> None:
        """Hold neither a session nor a connection."""
        if self._open:
            self._open.close()
        self._session = self._open = None

    def begin_resumed(self) -> None:
        """Hold a session."""
        with self._connect() as tls:
            self._ask(tls)
            self._session = tls.session

    def begin_kept_alive(self) -> None:
        """Hold a connection."""
        self._open = self._connect()
        self._ask(self._open)

    def connect(self, count: int) -> int:
        """Ask once over each of ``count`` connections, with the session that the one before left if one is held.

        Gives how many sessions were resumed.
        """
        resumed = 0
        for _ in range(count):
            with self._connect(self._session) as tls:
                self._ask(tls)
                resumed += bool(tls.session_reused)
                self._session = tls.session if self._session else None
        return resumed

    def ask(self, count: int) -> int:
        """Ask ``count`` times over the connection that is held; give 0, as nothing is resumed."""
        assert self._open
        for _ in range(count):
            self._ask(self._open)
        return 0

    def is_served(self) -> bool:
        """Ask once; tell whether the answer is a 200. Some servers refuse in the handshake, some with an answer."""
        try:
            with self._connect() as tls:
                tls.sendall(self._request)
                return tls.recv(65536).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

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
