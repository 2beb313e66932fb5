"""Envoy's aggregated discovery, served on a Unix socket to an Envoy of our own user.

Decides who may connect. What is sent when is decided in `handfast.io.xds_state`, and what in `handfast.io.ads_encoding`. Refuses to know
what the resources mean.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from envoy.service.discovery.v3 import discovery_pb2 as discovery
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from handfast.base.refusal import BadInput, Unavailable
from handfast.io.ads_encoding import Encoder, Publication
from handfast.io.xds_state import Rejected, Snapshot, Step, Verdicts, XdsStream

MAX_REQUEST = 4 << 20
MAX_STREAMS = 16
MAX_BACKLOG = 4096
_SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


def peer_uid(connection: socket.socket) -> int:
    """Give the user id of the process at the other end of a Unix socket, as of when it connected."""
    if sys.platform == "darwin":  # struct xucred of LOCAL_PEERCRED: version, uid, groups
        return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
    return int(struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _transport_of(stream: Stream) -> asyncio.Transport:
    """Reach the connection below a gRPC stream; grpclib has no public way to it."""
    transport: asyncio.Transport = stream._stream._transport  # noqa: SLF001
    return transport


def _bound_requests(stream: Stream) -> None:
    """Refuse to gather a request of more than 4 MiB; grpclib itself would go on to 4 GiB."""
    below = stream._stream  # noqa: SLF001
    receive = below.recv_data

    async def bounded(size: int) -> bytes:
        if size > MAX_REQUEST:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "the request is too large")
        return bytes(await receive(size))

    below.recv_data = bounded


@dataclass(eq=False, slots=True)
class _Session:
    """One connected Envoy: its protocol state, and what waits to be written to it."""

    state: XdsStream
    transport: asyncio.Transport
    outbox: deque[discovery.DeltaDiscoveryResponse] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class AdsServer:
    """Serves the last published snapshot to every Envoy that connects."""

    def __init__(self) -> None:
        """Begin with nothing published; an Envoy that connects waits."""
        self._encoder = Encoder()
        self._snapshot: Snapshot | None = None
        self._sessions: set[_Session] = set()
        self._verdicts: dict[str, Verdicts] = {}
        self._callbacks: list[Callable[[Rejected], None]] = []
        self._changed = asyncio.Condition()
        self._server: Server | None = None
        self._path: Path | None = None

    @property
    def digest(self) -> str:
        """The digest of the snapshot that is published, empty before the first."""
        return self._snapshot.digest if self._snapshot else ""

    @property
    def acknowledged(self) -> str:
        """The digest of the snapshot that every connected Envoy acknowledged in full last; empty while they differ, or none is."""
        digests = {session.state.acknowledged for session in self._sessions}
        return digests.pop() if len(digests) == 1 else ""

    def on_rejected(self, callback: Callable[[Rejected], None]) -> None:
        """Have ``callback`` called with each resource that Envoy refuses. It must not raise."""
        self._callbacks.append(callback)

    def prepare(self, publication: Publication) -> Snapshot:
        """Encode ``publication`` (type URL, then name, then the resource in protobuf's JSON form), and send nothing yet.

        Unchanged resources are not encoded again. May be called in a thread, one call after the other.

        Raises:
            BadInput: a resource cannot be encoded, or refers to one that is not there.
        """
        return self._encoder.snapshot(publication)

    def put(self, snapshot: Snapshot) -> str:
        """Make what was prepared what Envoy is to hold; gives its digest, which does not change unless a resource does.

        Unchanged resources are not sent.
        """
        self._snapshot = snapshot
        for session in self._sessions:
            session.wake.set()
        return self._snapshot.digest

    async def wait_acknowledged(self, digest: str, timeout: float) -> bool:  # noqa: ASYNC109 - a limit is part of the answer
        """Wait until every connected Envoy has acknowledged all of the snapshot ``digest``; False after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self.acknowledged == digest)
        except TimeoutError:
            return False
        return True

    async def start(self, path: Path) -> None:
        """Listen on a Unix socket at ``path``, open to our own user alone.

        Raises:
            BadInput: something else than a socket is there.
            Unavailable: another process serves there, the directory cannot be written, or the path is too long.
        """
        _make_way(path)
        listening = _private_socket(path)
        self._server, self._path = Server([self]), path
        await self._server.start(sock=listening)

    async def stop(self) -> None:
        """End all streams and take the socket away. Envoy goes on with what it has, and comes back by itself."""
        server, self._server = self._server, None
        for session in self._sessions:
            session.transport.abort()  # grpclib would leave the connections open, and Envoy would wait on them
        if server and self._path:
            server.close()
            await server.wait_closed()
            self._path.unlink(missing_ok=True)

    def __mapping__(self) -> dict[str, Handler]:
        """Name the methods that grpclib is to serve."""
        both = Cardinality.STREAM_STREAM
        delta = Handler(self._incremental, both, discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse)
        whole = Handler(_state_of_the_world, both, discovery.DiscoveryRequest, discovery.DiscoveryResponse)
        return {f"{_SERVICE}DeltaAggregatedResources": delta, f"{_SERVICE}StreamAggregatedResources": whole}

    async def _incremental(self, stream: Stream) -> None:
        """Serve one stream until it ends."""
        transport = _transport_of(stream)
        if peer_uid(transport.get_extra_info("socket")) != os.geteuid():
            raise GRPCError(Status.PERMISSION_DENIED, "only the user that runs this may connect")
        if self._server is None:
            transport.abort()  # an old connection came to life after the end
            return
        if len(self._sessions) >= MAX_STREAMS:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many streams")
        _bound_requests(stream)
        first = await stream.recv_message()
        if first is None:
            return
        session = _Session(XdsStream(self._snapshot, self._verdicts_of(first.node.id)), transport)
        self._sessions.add(session)
        try:
            await _until_one_ends(self._read(session, first, stream), self._write(session, stream.send_message))
        finally:
            self._sessions.discard(session)
            if transport.get_write_buffer_size():
                transport.abort()  # grpclib would wait until it can write a farewell, for ever where nobody reads it
            await self._tell()

    async def _read(self, session: _Session, first: discovery.DeltaDiscoveryRequest, stream: Stream) -> None:
        await self._take(session, _receive(session.state, first))
        async for request in stream:
            await self._take(session, _receive(session.state, request))

    async def _write(
        self, session: _Session, send: Callable[[discovery.DeltaDiscoveryResponse], Awaitable[None]]
    ) -> None:
        """Send what is due. A snapshot is looked at only when all before it is written, so a slow Envoy skips those between."""
        while True:
            while session.outbox:
                await send(session.outbox.popleft())
            if self._snapshot and session.state.snapshot is not self._snapshot:
                await self._take(session, session.state.set_resources(self._snapshot))
                continue
            await session.wake.wait()
            session.wake.clear()

    async def _take(self, session: _Session, step: Step) -> None:
        session.outbox.extend(step.responses)
        session.wake.set()
        if session.state.backlog > MAX_BACKLOG:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many responses are not answered")
        for report in step.reports:
            if isinstance(report, Rejected):
                for callback in self._callbacks:
                    callback(report)
        await self._tell()

    async def _tell(self) -> None:
        """Let those look again who wait for acknowledgements."""
        async with self._changed:
            self._changed.notify_all()

    def _verdicts_of(self, node: str) -> Verdicts:
        """Find what is known of an Envoy, by its node id; the one that has not connected for longest is forgotten first."""
        verdicts = self._verdicts.pop(node, None) or Verdicts()
        self._verdicts[node] = verdicts
        if len(self._verdicts) > MAX_STREAMS:
            del self._verdicts[next(iter(self._verdicts))]
        return verdicts


async def _until_one_ends(*halves: Coroutine[None, None, None]) -> None:
    """Run both halves of a stream; when one ends or fails, so does the other."""
    tasks = [asyncio.create_task(half) for half in halves]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _receive(state: XdsStream, request: discovery.DeltaDiscoveryRequest) -> Step:
    try:
        return state.receive(request)
    except BadInput as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error


async def _state_of_the_world(_stream: Stream) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "use the incremental protocol (api_type DELTA_GRPC)")


def _make_way(path: Path) -> None:
    """Remove the socket that a dead server left."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadInput("it is not a socket", file=str(path), hint="move the file away, or choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise Unavailable(f"another process serves at {path}", hint="stop the other one first")
    path.unlink()


def _private_socket(path: Path) -> socket.socket:
    """Bind a socket. Its mode is set before it listens: until then nobody can connect to it."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listening.close()
        raise Unavailable(
            f"cannot listen at {path}: {error}", hint="a socket's path has about 100 bytes at most"
        ) from error
    return listening
