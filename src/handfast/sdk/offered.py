"""What a client showed of itself before its handshake ended, read from the handshake's own messages.

Decides how to read two messages, ClientHello and Certificate (TLS 1.2 and 1.3). Refuses to know whether any of it is
true: nothing here is verified. Never raises: what cannot be read is left out, since a stranger wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator

from handfast.sdk.limits import OFFERED_BYTES, OFFERED_CERTIFICATES

TLS_1_3 = 0x0304
CLIENT_HELLO = 1
SERVER_HELLO = 2
CERTIFICATE = 11

_SERVER_NAME = 0
_HOST_NAME = 0
_LONGEST_NAME = 255


class _Short(Exception):
    """The message ended too early."""


class _Reader:
    """Walk over a message: numbers of n bytes, and vectors that n bytes of length stand before (RFC 8446 section 3)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _Short
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))


def offered_chain(message: bytes, version: int) -> tuple[bytes, ...]:
    """Read the certificates of a Certificate message, leaf first, each as DER.

    ``message`` is the whole handshake message with its four bytes of header, put together from its records already;
    ``version`` is the protocol's number, 0x0303 or 0x0304. At most 64 KiB and 16 certificates are looked at. Sources: RFC
    5246 section 7.4.2, RFC 8446 section 4.4.2.
    """
    found: list[bytes] = []
    try:
        for der in _certificates(_Reader(message[:OFFERED_BYTES]), version):
            found.append(der)
            if len(found) == OFFERED_CERTIFICATES:
                break
    except _Short:
        pass
    return tuple(found)


def _certificates(reader: _Reader, version: int) -> Iterator[bytes]:
    reader.take(4)
    if version == TLS_1_3:
        reader.vector(1)  # certificate_request_context
    reader.number(3)  # not obeyed: the message may be cut, and its leaf still be told
    while reader:
        yield reader.vector(3)
        if version == TLS_1_3:
            reader.vector(2)  # extensions


def server_name(message: bytes) -> str:
    """Read the name that a ClientHello asks for, or give an empty text.

    ``message`` is the whole handshake message with its header. Bytes beyond ASCII come back escaped, and 255 characters are
    kept at most. Source: RFC 6066 section 3.
    """
    try:
        return _server_name(_Reader(message[:OFFERED_BYTES]))
    except _Short:
        return ""


def _server_name(reader: _Reader) -> str:
    reader.take(4 + 2 + 32)  # header, legacy_version, random
    reader.vector(1)  # legacy_session_id
    reader.vector(2)  # cipher_suites
    reader.vector(1)  # legacy_compression_methods
    extensions = _Reader(reader.vector(2))
    while extensions:
        kind, body = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            return _host_name(_Reader(_Reader(body).vector(2)))
    return ""


def _host_name(names: _Reader) -> str:
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            return name.decode("ascii", "backslashreplace")[:_LONGEST_NAME]
    return ""
