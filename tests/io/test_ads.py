import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2 as discovery
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from handfast.base.refusal import BadInput, Unavailable
from handfast.envoy.types import ROUTE
from handfast.io import ads
from handfast.io.ads import AdsServer
from tests.io.ads_parts import DELTA, LIMIT, eventually, route


async def test_the_socket_is_private_and_goes_away(tmp_path: Path):
    """Only our own user may open the socket, and none is left behind."""
    server, path = AdsServer(), tmp_path / "s"
    await server.start(path)
    assert path.stat().st_mode & 0o777 == 0o600
    await server.stop()
    assert not path.exists()


async def test_a_socket_that_is_served_is_not_taken_away(tmp_path: Path):
    """Two servers on one path must not steal Envoy from each other; a dead one's socket is taken over."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    first, second = AdsServer(), AdsServer()
    await first.start(tmp_path / "s")
    with pytest.raises(Unavailable, match="another process"):
        await second.start(tmp_path / "s")
    await first.stop()


async def test_a_file_is_not_taken_for_a_socket(tmp_path: Path):
    """A path that holds a file must stay as it is."""
    (tmp_path / "s").write_text("precious")
    with pytest.raises(BadInput, match="not a socket"):
        await AdsServer().start(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


@asynccontextmanager
async def talk(path: Path, method: str = DELTA) -> AsyncIterator[Any]:
    """Open a stream as Envoy does."""
    channel = Channel(path=str(path))
    kind = discovery.DeltaDiscoveryRequest if method == DELTA else discovery.DiscoveryRequest
    answer = discovery.DeltaDiscoveryResponse if method == DELTA else discovery.DiscoveryResponse
    try:
        async with channel.request(method, Cardinality.STREAM_STREAM, kind, answer) as stream:
            yield stream
    finally:
        channel.close()


async def refusal(path: Path, request: Any, method: str = DELTA) -> GRPCError:
    """Send one request to a new server, and give the error that ends the stream."""
    server = AdsServer()
    server.put(server.prepare({ROUTE: {"r": route("x")}}))
    await server.start(path)
    try:
        async with talk(path, method) as stream:
            await stream.send_message(request)
            await stream.recv_message()
    except GRPCError as error:
        return error
    finally:
        assert not server._sessions
        await server.stop()
    raise AssertionError("it was answered")


def subscribe(names: list[str]) -> discovery.DeltaDiscoveryRequest:
    return discovery.DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=names)


async def test_another_user_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process of another user must get no secret, even if it can open the socket."""
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert (await refusal(tmp_path / "s", subscribe(["r"]))).status is Status.PERMISSION_DENIED


async def test_the_state_of_the_world_protocol_is_not_spoken(tmp_path: Path):
    """A client of the older protocol must be told so."""
    error = await refusal(tmp_path / "s", discovery.DiscoveryRequest(), f"{ads._SERVICE}StreamAggregatedResources")
    assert error.status is Status.UNIMPLEMENTED


async def test_a_request_that_is_too_large_ends_the_stream(tmp_path: Path):
    """A client must not make us gather a message without bound."""
    error = await refusal(tmp_path / "s", subscribe(["x" * 1000] * 5000))
    assert error.status is Status.RESOURCE_EXHAUSTED


async def test_too_many_names_end_the_stream(tmp_path: Path):
    """What the state machine refuses must reach the client as an error, and leave no session behind."""
    error = await refusal(tmp_path / "s", subscribe([str(i) for i in range(20_000)]))
    assert error.status is Status.INVALID_ARGUMENT


async def test_a_burst_of_publications_is_coalesced(tmp_path: Path):
    """A client must be sent the last of a burst, not each."""
    server = AdsServer()
    await server.start(tmp_path / "s")
    async with talk(tmp_path / "s") as stream:
        await stream.send_message(discovery.DeltaDiscoveryRequest(type_url=ROUTE, resource_names_subscribe=["r"]))
        while not server._sessions:
            await asyncio.sleep(0.01)
        for i in range(50):
            server.put(server.prepare({ROUTE: {"r": route(f"body {i}")}}))
        response = await stream.recv_message()
        assert b"body 49" in response.resources[0].resource.value
        await stream.cancel()
    await server.stop()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(tmp_path: Path):
    """A server must stop though a stream ended amid a message that nobody read."""
    server = AdsServer()
    big = route("x")
    big["virtual_hosts"][0]["request_headers_to_remove"] = ["v" * 10_000] * 2000
    server.put(server.prepare({ROUTE: {"r": big}}))
    await server.start(tmp_path / "s")
    wide = Configuration(http2_connection_window_size=1 << 30, http2_stream_window_size=1 << 30)
    channel = Channel(path=str(tmp_path / "s"), config=wide)
    kinds = (discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse)
    async with asyncio.timeout(LIMIT), channel.request(DELTA, Cardinality.STREAM_STREAM, *kinds) as stream:
        await stream.send_message(subscribe(["r"]))
        channel._protocol.connection._transport.pause_reading()
        assert await eventually(lambda: _is_stuck(server))
        await stream.cancel()
        assert await eventually(lambda: _is_idle(server))
        await server.stop()
    channel.close()


async def _is_idle(server: AdsServer) -> bool:
    return not server._sessions


async def _is_stuck(server: AdsServer) -> bool:
    return any(session.transport.get_write_buffer_size() for session in server._sessions)


async def test_nobody_connected_acknowledges_nothing():
    """Without an Envoy there must be no acknowledgement, and no endless wait for one."""
    server = AdsServer()
    digest = server.put(server.prepare({ROUTE: {"r": route("x")}}))
    assert server.acknowledged == ""
    assert not await server.wait_acknowledged(digest, 0.01)
