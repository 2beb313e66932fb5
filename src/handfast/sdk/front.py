"""The front: one ASGI application on several listeners, TLS, Unix and plain, inside a loop that others use too.

Decides when to accept, which context a connection gets, and how to stop. Refuses to know what is served, whom to trust (the
context does), and what a failed handshake means: that goes to a callback. It installs no signal handlers, runs no lifespan
and writes no log; the program that owns it does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

from uvicorn.config import Config
from uvicorn.server import ServerState

from handfast.base.refusal import BadInput
from handfast.sdk.connection import Describe, HttpConnection
from handfast.sdk.handshake import FailedHandshake, ServerContext, shake_hands, tls_extensions
from handfast.sdk.limits import Limits
from handfast.sdk.sockets import UnixListener, bind_tcp, bind_unix, peer_credentials

GetContext: TypeAlias = Callable[[], ServerContext]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application. Its libraries type scope and messages each in their own way."""
Welcome: TypeAlias = Callable[[socket.socket], Awaitable[Awaitable[None]]]
"""Takes an accepted socket; done when it is a connection or none, and gives what is done when it is over."""

_AFTER_ACCEPT_ERROR_S = 0.1
_IDLE_CLOSE_S = 1.0
_CANCEL_S = 1.0


class Front:
    """Serves ``app``. A program makes one, adds listeners, and stops it at its end.

    ``on_failed_handshake`` is called in the event loop, once for each failed handshake; it must be quick.
    """

    def __init__(
        self,
        app: App,
        *,
        on_failed_handshake: Callable[[FailedHandshake], None],
        limits: Limits | None = None,
    ) -> None:
        """Keep what is served; nothing listens yet."""
        self._limits = limits or Limits()
        self._on_failed_handshake = on_failed_handshake
        self._config, self._state = _config(app), ServerState()
        self._listeners: list[socket.socket] = []
        self._files: list[UnixListener] = []
        self._accepting: set[asyncio.Task[None]] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def listen_tls(self, host: str, port: int, get_context: GetContext) -> tuple[str, int]:
        """Serve over TLS; ``get_context`` is asked once a connection, so that contexts can be swapped whole.

        Gives the address; port 0 takes a free one. In the scope: ``extensions["tls"]`` and ``["handfast.peer_der"]``.

        Raises:
            BadInput: the address cannot be had, or the context is not one of `server_context`.
        """
        if not isinstance(get_context(), ServerContext):
            raise BadInput("the context cannot report failed handshakes", hint="make it with server_context()")

        async def welcome(sock: socket.socket) -> Awaitable[None]:
            return await self._welcome_tls(sock, get_context())

        return self._listen_tcp(bind_tcp(host, port), welcome)

    async def listen_plain(self, host: str, port: int) -> tuple[str, int]:
        """Serve without TLS, for metrics and the like on an address that is safe. Gives the address.

        Raises:
            BadInput: the address cannot be had.
        """

        async def welcome(sock: socket.socket) -> Awaitable[None]:
            return await self._welcome_plain(sock, lambda _: {})

        return self._listen_tcp(bind_tcp(host, port), welcome)

    async def listen_unix(self, path: str | os.PathLike[str]) -> None:
        """Serve on a Unix socket that its owner alone may open. In the scope: ``extensions["handfast.peer"]``.

        That is a mapping of ``uid``, ``gid`` and ``pid``, as the kernel tells them.

        Raises:
            BadInput: the path is taken or cannot be used.
            Unavailable: its directory stays locked.
        """

        async def welcome(sock: socket.socket) -> Awaitable[None]:
            peer = peer_credentials(sock)._asdict()
            return await self._welcome_plain(sock, lambda _: {"handfast.peer": dict(peer)})

        listener = await asyncio.to_thread(bind_unix, Path(path))
        self._files.append(listener)
        self._listen(listener.sock, welcome)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, let requests that have begun end within ``grace_s``, and close.

        Idle connections are closed at once. What is still busy after the grace is cut, its application cancelled.
        """
        await self._stop_accepting()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        connections = self._connections()
        idle = [connection for connection in connections if not connection.answering]
        for connection in connections:
            connection.shutdown()
        # A client that does not read cannot answer our close_notify either; it need not hold up the others.
        await _wait((connection.closed for connection in idle), min(_IDLE_CLOSE_S, grace_s))
        _abort(idle)
        await _wait((connection.closed for connection in connections), until - loop.time())
        await _wait(self._state.tasks, until - loop.time())
        _abort(self._connections())
        await _cancel(self._state.tasks)
        await _wait(self._serving, _CANCEL_S)
        await _cancel(self._serving)

    def _connections(self) -> list[HttpConnection]:
        return [connection for connection in self._state.connections if isinstance(connection, HttpConnection)]

    async def _stop_accepting(self) -> None:
        await _cancel(self._accepting)
        for file in self._files:
            file.remove()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._files.clear()
        await _cancel(self._arriving)

    def _listen_tcp(self, listener: socket.socket, welcome: Welcome) -> tuple[str, int]:
        self._listen(listener, welcome)
        host, port = listener.getsockname()[:2]
        return host, port

    def _listen(self, listener: socket.socket, welcome: Welcome) -> None:
        self._listeners.append(listener)
        _start(self._accept(listener, welcome), self._accepting)

    async def _accept(self, listener: socket.socket, welcome: Welcome) -> None:
        """Accept while there is room; the kernel queues what we leave."""
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(self._limits.connections)
        hall = asyncio.Semaphore(self._limits.handshakes)
        while True:
            await room.acquire()
            await hall.acquire()
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:
                room.release()
                hall.release()
                await asyncio.sleep(_AFTER_ACCEPT_ERROR_S)  # out of file descriptors, most likely
                continue
            serving = _start(self._serve(sock, welcome, hall), self._serving)
            serving.add_done_callback(lambda _: room.release())
            self._arriving.add(serving)
            serving.add_done_callback(self._arriving.discard)

    async def _serve(self, sock: socket.socket, welcome: Welcome, hall: asyncio.Semaphore) -> None:
        """Take one connection from its beginning to its end."""
        try:
            over = await welcome(sock)
        except BaseException:
            sock.close()
            raise
        finally:
            hall.release()
        self._arriving -= {asyncio.current_task()}
        await over

    async def _welcome_plain(self, sock: socket.socket, describe: Describe) -> Awaitable[None]:
        _, connection = await asyncio.get_running_loop().connect_accepted_socket(self._maker(describe), sock)
        return connection.closed

    async def _welcome_tls(self, sock: socket.socket, context: ServerContext) -> Awaitable[None]:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outcome, attempt = await shake_hands(sock, context, self._maker(tls_extensions), self._limits)
        if isinstance(outcome, HttpConnection):
            return outcome.closed
        try:
            self._on_failed_handshake(outcome)
        except Exception as error:  # noqa: BLE001 - a callback's fault must not keep the alert from the client
            _report("a callback for failed handshakes failed", error)
        return attempt.linger(self._limits.linger_s)

    def _maker(self, describe: Describe) -> Callable[[], HttpConnection]:
        return lambda: HttpConnection(self._config, self._state, self._limits, describe)


def _config(app: App) -> Config:
    """Tell uvicorn to believe no header about the client, to name itself nowhere, and to leave logging alone."""

    async def served(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await app(scope, receive, send)  # wrapped, since uvicorn calls what it is given, to see whether it is a factory

    config = Config(
        served,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=True,  # off would take the handlers from a logger that others share; the connection turns it off
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    return config


def _start(work: Any, tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:  # noqa: ANN401
    """Run a coroutine in a task that is remembered while it runs, and whose error is told."""
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_tell)
    return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _report("a connection could not be served", error)


def _report(message: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


async def _wait(things: Iterable[asyncio.Future[None]], seconds: float) -> None:
    if waiting := set(things):
        await asyncio.wait(waiting, timeout=max(seconds, 0))


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel, and wait a second at most: an application may refuse to end."""
    for task in (cancelled := set(tasks)):
        task.cancel()
    await _wait(cancelled, _CANCEL_S)


def _abort(connections: Iterable[HttpConnection]) -> None:
    for connection in connections:
        connection.abort()
