"""Envoy's administration interface, over its Unix socket.

Decides how to ask and how much to read. Refuses to know what the answers mean, beyond the shape of a list of counters.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from handfast.base.refusal import BadInput, Unavailable

MAX_REPLY = 64 << 20
_MAX_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: the HTTP status and the body."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")


class EnvoyAdmin:
    """A client of one Envoy's administration interface. One connection a request: they are few, and Envoy comes and goes."""

    def __init__(self, path: Path, *, timeout: float = 5.0) -> None:
        """Speak to the Unix socket at ``path``; give up after ``timeout`` seconds a request."""
        self._path = path
        self._timeout = timeout

    async def get(self, path: str) -> Reply:
        """Ask for ``path``, query included.

        Raises:
            Unavailable: Envoy does not answer, or not in HTTP, or with more than 64 MiB.
        """
        return await self._ask("GET", path)

    async def post(self, path: str) -> Reply:
        """Have Envoy do ``path``.

        Raises:
            Unavailable: as `get`.
        """
        return await self._ask("POST", path)

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Give counters and gauges by name, those whose names match ``pattern`` (RE2, unanchored).

        Raises:
            Unavailable: as `get`, or Envoy refuses the pattern.
        """
        reply = await self._good(f"/stats?filter={quote(pattern, safe='')}")
        rows = (line.rpartition(": ") for line in reply.text.splitlines())
        return {name: int(value) for name, _, value in rows if value.isdecimal()}

    async def prometheus(self) -> bytes:
        """Give all that Envoy counts, in Prometheus's text format.

        Raises:
            Unavailable: as `get`.
        """
        return (await self._good("/stats/prometheus")).body

    async def _good(self, path: str) -> Reply:
        reply = await self.get(path)
        if reply.status != 200:
            raise Unavailable(f"Envoy answers {reply.status} to {path}: {reply.text[:200].strip()}")
        return reply

    async def _ask(self, method: str, path: str) -> Reply:
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise BadInput(f"{path[:80]!r} is not a path")
        try:
            async with asyncio.timeout(self._timeout):
                return await _exchange(
                    self._path, f"{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n"
                )
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"Envoy does not answer at {self._path}: {str(error) or type(error).__name__}") from error


async def _exchange(path: Path, request: str) -> Reply:
    reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_HEAD)
    try:
        writer.write(request.encode())
        await writer.drain()
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        chunked = "transfer-encoding: chunked" in fields
        return Reply(int(status.split(" ")[1]), await (_chunks(reader) if chunked else _rest(reader)))
    except IndexError as error:
        raise ValueError("it does not speak HTTP") from error
    finally:
        writer.transport.abort()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body (RFC 9112 section 7.1); the trailers are left unread."""
    body = bytearray()
    while size := int(await reader.readuntil(b"\r\n"), 16):
        if size < 0 or len(body) + size > MAX_REPLY:
            raise ValueError("the answer is too large")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Read a body that ends with the connection; Envoy closes it, as it was asked to."""
    body = bytearray()
    while piece := await reader.read(_MAX_HEAD):
        body += piece
        if len(body) > MAX_REPLY:
            raise ValueError("the answer is too large")
    return bytes(body)
