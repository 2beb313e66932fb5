"""Clients of the gateway: curl, OpenSSL's s_client, and sockets that say octet by octet what a test wants said."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Self

from tests.e2e.echo import LOOPBACK
from tests.e2e.feed import Peer
from tests.e2e.platform import Platform
from tests.support.pki import Files

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH_VERSIONS = (TLS_1_2, TLS_1_3)
GONE = (OSError, HTTPException)
"""What a client meets when the other side breaks off; ``ssl.SSLError`` is one of them."""
PATIENCE_S = 5.0
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Response:
    """An answer: status, headers as they came, body."""

    status: int
    headers: Headers
    body: bytes

    @property
    def plain(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def named(self, name: str) -> list[str]:
        """Give the values of a header, in whatever case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Give the value of a header that came once."""
        (value,) = self.named(name)
        return value

    @property
    def text(self) -> str:
        """All of it, for a look at what it gives away."""
        return "\n".join([*(f"{name}: {value}" for name, value in self.headers), self.body.decode()])


class Seen:
    """What the service saw of a request, from its answer."""

    def __init__(self, response: Response) -> None:
        """Take a good answer."""
        assert response.status == 200, (response.status, response.body)
        self.request: str = response.plain["request"]
        self.headers: list[tuple[str, str]] = [(name, value) for name, value in response.plain["headers"]]

    def named(self, name: str) -> list[str]:
        """Give the values of a header, in whatever case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Give the value of a header that came once."""
        (value,) = self.named(name)
        return value


def context_for(platform: Platform, files: Files | None = None, tls: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Give a client's TLS settings. Weak keys are let pass here, so that the gateway is the one to refuse them."""
    context = ssl.create_default_context(cafile=str(platform.ca))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if tls:
        context.minimum_version = context.maximum_version = tls
    if files:
        context.load_cert_chain(files.chain, files.key)
    return context


class Connection:
    """One TLS connection to the gateway that lives from request to request."""

    def __init__(
        self,
        platform: Platform,
        host: str,
        files: Files | None = None,
        tls: ssl.TLSVersion | None = None,
        *,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Connect and shake hands: ``host`` is the server name that is asked for."""
        self.host = host
        raw = socket.create_connection((LOOPBACK, platform.gateway), PATIENCE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = Peer.of(raw)
        try:
            chosen = context or context_for(platform, files, tls)
            self.socket = chosen.wrap_socket(raw, server_hostname=host, session=session)
        except BaseException:
            raw.close()
            raise

    def request(
        self, path: str = "/", method: str = "GET", headers: Iterable[tuple[str, str]] = (), host: str = ""
    ) -> Response:
        """Send a request with these headers, spelled as they are, and read the answer."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}", *(f"{n}: {v}" for n, v in headers)]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        answer = HTTPResponse(self.socket, method=method)
        answer.begin()
        return Response(answer.status, answer.getheaders(), answer.read())

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()


@dataclass(frozen=True)
class Refused:
    """How a handshake failed, as the client saw it: ``alert`` in OpenSSL's words, or how the connection ended."""

    peer: Peer
    alert: str


def shake_hands(
    platform: Platform,
    host: str,
    files: Files | None = None,
    tls: ssl.TLSVersion = TLS_1_3,
    *,
    patient: bool = True,
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> Response | Refused:
    """Try a handshake and a request on top.

    In TLS 1.3 the server speaks last, so a client learns of a refusal by reading. A ``patient`` one reads before it writes, and
    sees the alert; any other writes at once, and may see nothing but the end.
    """
    raw = socket.create_connection((LOOPBACK, platform.gateway), PATIENCE_S)
    peer = Peer.of(raw)
    try:
        chosen = context or context_for(platform, files, tls)
        with chosen.wrap_socket(raw, server_hostname=host, session=session) as tunnel:
            if patient:
                _wait_for_alert(tunnel)
            tunnel.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = HTTPResponse(tunnel)
            answer.begin()
            return Response(answer.status, answer.getheaders(), answer.read())
    except GONE as error:
        return Refused(peer, getattr(error, "reason", None) or type(error).__name__)
    finally:
        raw.close()


def _wait_for_alert(tunnel: ssl.SSLSocket) -> None:
    """Read for a moment. One who is let in hears nothing."""
    tunnel.settimeout(3.0)
    try:
        if not tunnel.recv(1):
            raise ConnectionResetError
    except TimeoutError:
        tunnel.settimeout(PATIENCE_S)


# Programs


def curl(platform: Platform, url: str, *options: str | Path, files: Files | None = None) -> Response:
    """Run curl against a host of the gateway; ``url`` is the host with its path. Any HTTP answer is an answer."""
    host, _, path = url.partition("/")
    place = f"{host}:{platform.gateway}"
    return fetch(f"https://{place}/{path}", platform.ca, *options, "--resolve", f"{place}:{LOOPBACK}", files=files)


def fetch(url: str, ca: Path, *options: str | Path, files: Files | None = None) -> Response:
    """Run curl."""
    own: list[str | Path] = ["--cert", files.chain, "--key", files.key] if files else []
    command = ["curl", "-q", "-sS", "-i", "--max-time", "10", "--cacert", ca, *own, *options, url]
    done = subprocess.run(command, check=False, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Response(int(first.split()[1]), headers, body)


def s_client(platform: Platform, host: str, *options: str | Path, say: str = "", limit: float = 5.0) -> str:
    """Run ``openssl s_client`` and give all that it says.

    It is ended once it has hung up, or read an HTTP answer whole. Its input stays open: at its end it would hang up itself.
    """
    where = ["-connect", f"{LOOPBACK}:{platform.gateway}", "-servername", host]
    command = ["openssl", "s_client", *where, "-CAfile", platform.ca, "-ign_eof", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(say.encode())
            process.stdin.flush()
        except BrokenPipeError:
            pass
        try:
            return _until_end(process.stdout.fileno(), limit)
        finally:
            process.kill()


def _until_end(descriptor: int, limit: float) -> str:
    said, until = b"", time.monotonic() + limit
    os.set_blocking(descriptor, False)
    while time.monotonic() < until:
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        if not piece:
            return said.decode(errors="replace")
        said += piece
        if b"HTTP/1.1 " in said and said.rstrip().endswith(b"}"):
            return said.decode(errors="replace")
    raise AssertionError(f"s_client does not end: {said.decode(errors='replace')}")
