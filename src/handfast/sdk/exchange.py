"""One request and its answer: uvicorn's cycle, but the answer's head leaves together with the first of its body.

Decides how an answer lies on the wire: its fields, its length, where it ends. Refuses to know what is answered, and how long a
client may take to read it (the connection does). Nothing is sent before the first piece of the body, as ASGI has it: one write
and one TLS record fewer, and where the application fails before it, a 500 is still true.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_BODILESS = frozenset({204, 304})
_NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Exchange(RequestResponseCycle):
    """One request, from the end of its head to the end of its answer. The connection makes it, and feeds it the body."""

    _head = b""

    async def send(self, message: Any) -> None:  # noqa: ANN401 - each library types ASGI's messages in its own way
        """Take the answer's head, or a piece of its body.

        Raises:
            RuntimeError: it is not this message's turn, a field cannot be written, or the body is not as long as was said.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        begun = self._head or self.response_started
        if self.response_complete or message["type"] != ("http.response.body" if begun else "http.response.start"):
            raise RuntimeError(f"{message['type']!r} is out of turn")
        if begun:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._head = self._begin(message["status"], message.get("headers", ()))

    async def send_500_response(self) -> None:
        """Answer for an application that failed; what it meant to say is forgotten."""
        self._head, self.chunked_encoding, self.expected_content_length = b"", None, 0
        await super().send_500_response()

    def _begin(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Write the head, and decide how the end of the body is told (RFC 9112 section 6)."""
        lines, close = [STATUS_LINE[status]], False
        for name, value in (*self.default_headers, *fields):
            known, line = _field(name, value)
            lines.append(line)
            if known == b"content-length" and self.chunked_encoding is None:
                self.chunked_encoding, self.expected_content_length = False, int(value)
            elif known == b"transfer-encoding" and value.lower() == b"chunked":
                self.chunked_encoding, self.expected_content_length = True, 0
            elif known == b"connection":
                close |= b"close" in [token.strip() for token in value.lower().split(b",")]
        self.keep_alive &= not close
        if not self.keep_alive and not close:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in _BODILESS:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        """Write a piece of the body, the first one behind the head; after the last one, let the connection go on."""
        if piece := self._head + self._framed(body, more=more):
            self.transport.write(piece)
        self._head, self.response_started, self.waiting_for_100_continue = b"", True, False
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than was said")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def _framed(self, body: bytes, *, more: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if len(body) > self.expected_content_length:
            raise RuntimeError("the body is longer than was said")
        self.expected_content_length -= len(body)
        return body


@functools.lru_cache(maxsize=1024)
def _field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Give a field's name in lower case, and its line. Most answers have the same few.

    Raises:
        RuntimeError: it would not be one field on the wire (RFC 9110 section 5.5).
    """
    if _NO_NAME.search(name) or _NO_VALUE.search(value):
        raise RuntimeError("this is no field of a head")
    return name.lower(), b"%b: %b\r\n" % (name.lower(), value)
