"""One TLS handshake on an accepted connection: it succeeds, or we say why, to the client and to the operator.

The event loops of Python close a connection whose handshake failed without sending the alert that OpenSSL has already
written, and say nothing to the program. Here the alert is sent, and whatever the client showed is kept. Refuses to know
which certificates are good (the context does), and what a failure means (`reason_text` is OpenSSL's own word).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from handfast.sdk.limits import OFFERED_BYTES, Limits
from handfast.sdk.offered import CERTIFICATE, CLIENT_HELLO, SERVER_HELLO, offered_chain, server_name
from handfast.sdk.sockets import place_of

P = TypeVar("P", bound=asyncio.Protocol)

CLOSED = "CLOSED_BY_PEER"
RESET = "RESET_BY_PEER"
TIMEOUT = "TIMEOUT"

_HANDSHAKE = 22
_VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_SHUTDOWN_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHandshake:
    """A handshake that came to nothing.

    ``peer`` and ``local`` are ``address:port``. ``server_name`` is the SNI, and ``tls_version`` (``TLSv1.3``) what we
    chose; both are empty where it did not get so far. ``reason_text`` is OpenSSL's reason, such as
    ``CERTIFICATE_VERIFY_FAILED`` or ``PEER_DID_NOT_RETURN_A_CERTIFICATE``, or one of ours: ``CLOSED_BY_PEER``,
    ``RESET_BY_PEER``, ``TIMEOUT``. ``verify_code`` is an ``X509_V_ERR_*`` (0: the certificate was not what failed).
    ``offered`` is the chain that the client sent, leaf first, DER, unverified, up to 64 KiB and 16 certificates.
    """

    peer: str
    local: str
    server_name: str
    tls_version: str
    reason_text: str
    verify_code: int
    verify_message: str
    offered: tuple[bytes, ...]
    elapsed_s: float


@dataclass(slots=True)
class Attempt:
    """What is seen of one handshake while it goes on."""

    sock: socket.socket
    server_name: str = ""
    tls_version: str = ""
    offered: tuple[bytes, ...] = ()
    outgoing: ssl.MemoryBIO = field(default_factory=ssl.MemoryBIO)
    lingering: socket.socket | None = None

    def saw(self, direction: str, version: int, kind: int, message: bytes) -> None:
        """Keep what a handshake message tells."""
        if direction == "read" and kind == CLIENT_HELLO:
            self.server_name = server_name(message)
        elif direction == "read" and kind == CERTIFICATE:
            self.offered = offered_chain(message, version)
        elif direction == "write" and kind == SERVER_HELLO:
            self.tls_version = _VERSIONS.get(version, "")

    def send_alert(self) -> None:
        """Send what OpenSSL wrote last, past the event loop, which would drop it and close the socket at once.

        A duplicate of the socket keeps the connection open for `linger`.
        """
        alert = self.outgoing.read()
        if not alert:
            return
        with contextlib.suppress(OSError):
            self.lingering = self.sock.dup()
            self.lingering.setblocking(False)
            self.lingering.send(alert)
            self.lingering.shutdown(socket.SHUT_WR)

    async def linger(self, seconds: float) -> None:
        """Read and drop what still comes, then close: closing over unread data sends a reset, which eats the alert."""
        if (sock := self.lingering) is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await _drop(sock, OFFERED_BYTES)
        except (OSError, TimeoutError):
            pass
        finally:
            sock.close()


async def _drop(sock: socket.socket, most: int) -> None:
    loop = asyncio.get_running_loop()
    while most > 0 and (data := await loop.sock_recv(sock, most)):
        most -= len(data)


class _AlertingObject(ssl.SSLObject):
    """The TLS state of one connection, which knows the attempt that it belongs to."""

    attempt: Attempt | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            if self.attempt is not None:
                self.attempt.send_alert()
            raise


_ATTEMPT: ContextVar[Attempt | None] = ContextVar("handfast_attempt", default=None)


def _saw(tls: object, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
    if content == _HANDSHAKE and isinstance(tls, _AlertingObject) and tls.attempt is not None:
        tls.attempt.saw(direction, version, kind, data)


class ServerContext(ssl.SSLContext):
    """A server's TLS context under which failed handshakes are told to both sides.

    Made by `handfast.sdk.contexts.server_context`, used by `Front`, and replaced whole: a context in use is never changed.
    """

    sslobject_class = _AlertingObject

    def __new__(cls) -> Self:
        """Make a server's context that trusts nobody yet."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        # The descriptor underneath, not ssl's wrapper around it: that one builds three enums for each record that passes.
        super(ssl.SSLContext, ssl.SSLContext)._msg_callback.__set__(self, _saw)  # type: ignore[misc]
        return self

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401
        """Make a connection's TLS state, tied to the attempt that this task is about."""
        tls = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        attempt = _ATTEMPT.get()
        if attempt is not None and isinstance(tls, _AlertingObject):
            tls.attempt, attempt.outgoing = attempt, outgoing
        return tls

    @functools.cached_property
    def cipher_numbers(self) -> dict[str, int]:
        """The numbers of the cipher suites by OpenSSL's names, as the IANA registry has them."""
        return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in self.get_ciphers()}


async def shake_hands(
    sock: socket.socket, context: ServerContext, make: Callable[[], P], limits: Limits
) -> tuple[P | FailedHandshake, Attempt]:
    """Run the server's side of a handshake on an accepted socket, and put the protocol of ``make`` on top.

    Gives the protocol, connected, or the failure; and the attempt, for `Attempt.linger`. The socket is taken over.
    """
    loop = asyncio.get_running_loop()
    began, peer, local = loop.time(), _place(sock.getpeername), _place(sock.getsockname)
    attempt = Attempt(sock)
    _ATTEMPT.set(attempt)
    made: list[P] = []  # uvloop gives back its own protocol for TLS, not the one on top

    def remember() -> P:
        made.append(make())
        return made[-1]

    failure: Exception
    try:
        transport, _ = await loop.connect_accepted_socket(
            remember, sock, ssl=context, ssl_handshake_timeout=limits.handshake_s, ssl_shutdown_timeout=_SHUTDOWN_S
        )
        if transport.get_extra_info("ssl_object") is not None:
            return made[-1], attempt
        failure = ConnectionResetError()  # the connection was over before its handshake was, without an error
    except Exception as error:  # noqa: BLE001 - whatever it was, there is no connection, and somebody wants to know
        failure = error
    sock.close()
    return (
        FailedHandshake(
            peer=peer,
            local=local,
            server_name=attempt.server_name,
            tls_version=attempt.tls_version,
            reason_text=_reason(failure),
            verify_code=getattr(failure, "verify_code", 0),
            verify_message=getattr(failure, "verify_message", ""),
            offered=attempt.offered,
            elapsed_s=loop.time() - began,
        ),
        attempt,
    )


def _place(ask: Callable[[], Any]) -> str:
    """Write a socket's name as ``address:port``; empty where the peer has gone already."""
    try:
        host, port = ask()[:2]
    except OSError:
        return ""
    return place_of(host, port)


def _reason(failure: Exception) -> str:
    match failure:
        case ssl.SSLError(reason=str(reason)):
            return reason
        case ConnectionAbortedError() | TimeoutError():
            return TIMEOUT
        case ConnectionResetError(errno=None):
            return CLOSED
        case ConnectionResetError() | BrokenPipeError():
            return RESET
        case _:
            return type(failure).__name__


def tls_extensions(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """Describe a connection's TLS for ``scope["extensions"]``.

    ``tls`` has ``client_cert_chain`` (PEM texts as the client sent them, leaf first; only the leaf and its path were verified,
    which need not be these), ``tls_version`` and ``cipher_suite`` (numbers, as on the wire). ``handfast.peer_der`` is the
    verified leaf in DER, or None. Source: the ASGI TLS extension, version 0.2.
    """
    tls: _AlertingObject = transport.get_extra_info("ssl_object")
    leaf = tls.getpeercert(binary_form=True)
    return {
        "tls": {
            "client_cert_chain": tuple(map(ssl.DER_cert_to_PEM_cert, _chain(leaf, tls.attempt))),
            "tls_version": _number(tls.version()),
            "cipher_suite": _suite(tls),
        },
        "handfast.peer_der": leaf,
    }


def _chain(leaf: bytes | None, attempt: Attempt | None) -> tuple[bytes, ...]:
    """Give the chain as it was sent, if it begins with the leaf that OpenSSL verified."""
    if leaf is None:
        return ()
    if attempt is not None and attempt.offered[:1] == (leaf,):
        return attempt.offered
    return (leaf,)


def _number(version: str | None) -> int | None:
    return next((number for number, name in _VERSIONS.items() if name == version), None)


def _suite(tls: ssl.SSLObject) -> int | None:
    context, cipher = tls.context, tls.cipher()
    if cipher is None or not isinstance(context, ServerContext):
        return None
    return context.cipher_numbers.get(cipher[0])
