import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from envoy.config.listener.v3 import listener_pb2
from envoy.service.discovery.v3 import discovery_pb2 as discovery
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput, Unavailable
from handfast.envoy.types import CLUSTER, EXTENSION, FILE_LOG, HTTP_MANAGER, LISTENER, ROUTE, ROUTER, SECRET
from handfast.io import ads
from handfast.io.ads import AdsServer, Encoder, encode, references
from handfast.io.envoy_process import EnvoyProcess
from handfast.io.xds_state import Rejected

Json = dict[str, Any]
FROM_ADS: Json = {"ads": {}, "resource_api_version": "V3"}
DELTA = f"{ads._SERVICE}DeltaAggregatedResources"
LIMIT = 5.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bootstrap(path: Path, api: str = "DELTA_GRPC") -> Json:
    limit = {"args": {"grpc.max_receive_message_length": {"int_value": ads.MAX_RESOURCE}}}
    grpc = {"google_grpc": {"target_uri": f"unix:{path}", "stat_prefix": "ads", "channel_args": limit}}
    return {
        "node": {"id": "one", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {"api_type": api, "transport_api_version": "V3", "grpc_services": [grpc]},
            "lds_config": FROM_ADS,
            "cds_config": FROM_ADS,
        },
    }


def listener(port: int, *, name: str = "l", manager: Json | None = None, **fields: Any) -> Json:
    typed = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "h",
        "rds": {"config_source": FROM_ADS, "route_config_name": "r"},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        **(manager or {}),
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": typed}]}],
        **fields,
    }


def route(body: str) -> Json:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [answer]}]}


def world(port: int, body: str, **fields: Any) -> dict[str, dict[str, Json]]:
    return {LISTENER: {"l": listener(port, **fields)}, ROUTE: {"r": route(body)}}


async def fetch(port: int) -> str:
    """Ask over plain HTTP; empty where nobody answers."""
    try:
        async with asyncio.timeout(LIMIT):
            return await _fetch(port)
    except (OSError, asyncio.IncompleteReadError):
        return ""


async def _fetch(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1]) if length else 0)
    writer.close()
    return body.decode()


async def eventually(look: Callable[[], Awaitable[bool]]) -> bool:
    """Look again and again for at most 5 seconds."""
    async with asyncio.timeout(LIMIT):
        while not await look():
            await asyncio.sleep(0.02)
    return True


@asynccontextmanager
async def platform(directory: Path) -> AsyncIterator[tuple[AdsServer, EnvoyProcess]]:
    """Run a server, and an Envoy that learns from it."""
    server = AdsServer()
    await server.start(directory / "ads.sock")
    envoy = EnvoyProcess(None, bootstrap(directory / "ads.sock"), directory, concurrency=1)
    try:
        await envoy.start()
        yield server, envoy
    finally:
        await envoy.stop()
        await server.stop()


# Encoding, without Envoy.


def test_the_same_document_gives_the_same_bytes_whatever_the_order_of_its_maps():
    """A restart must not look like a change: maps inside an Any are written in one order."""
    keys = [f"k{i}" for i in range(30)]

    def log(names: list[str]) -> Json:
        form = {"json_format": {n: {"deep": n} for n in names}}
        return {"name": "f", "typed_config": {"@type": FILE_LOG, "path": "/dev/null", "log_format": form}}

    one, other = (encode(LISTENER, "l", listener(1, access_log=[log(names)])) for names in (keys, keys[::-1]))
    assert one.value == other.value


def test_what_is_encoded_says_what_the_document_says():
    """Writing inner messages anew must not lose anything."""
    body = encode(LISTENER, "l", listener(8443))
    read = listener_pb2.Listener.FromString(body.value)
    assert body.type_url == LISTENER
    assert read.address.socket_address.port_value == 8443
    assert read.filter_chains[0].filters[0].typed_config.type_url == HTTP_MANAGER
    assert b"direct_response" not in body.value


@pytest.mark.parametrize(
    "document",
    [
        {"name": "l", "unknown": 1},
        {"name": "l", "address": "here"},
        {"name": "l", "access_log": [{"typed_config": {"@type": "type.googleapis.com/no.such.Type"}}]},
        {"name": "l", "access_log": [{"typed_config": {"path": "/x"}}]},
        {"name": "l", "per_connection_buffer_limit_bytes": -1},
    ],
)
def test_what_protobuf_refuses_is_bad_input_that_names_the_resource(document: Json):
    """A broken document must be refused by name, not by a traceback of protobuf's."""
    with pytest.raises(BadInput, match="Listener l: "):
        Encoder().snapshot({LISTENER: {"l": document}})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "address", "ads", "sds_config", "config_discovery", "@type"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["address", "filter_chains", "access_log", "metadata", "@type"]), _json, max_size=3)
)
def test_any_document_is_encoded_or_refused(fields: Json):
    """Whatever is published, the encoder must give a snapshot or BadInput."""
    try:
        Encoder().snapshot({LISTENER: {"l": {"name": "l", **fields}}})
    except BadInput:
        return


def test_a_type_that_is_not_served_is_refused():
    """Only the five types that streams are asked for may be published."""
    with pytest.raises(BadInput, match="not served"):
        Encoder().snapshot({"type.googleapis.com/google.protobuf.Duration": {"d": {"name": "d"}}})


def test_a_resource_has_the_name_it_is_published_under():
    """Envoy would wait for ever for a resource that comes under another name."""
    with pytest.raises(BadInput, match="not the one it is published under"):
        Encoder().snapshot({ROUTE: {"other": route("x")}})


def test_a_listener_that_refers_to_nothing_is_refused():
    """A missing secret would hold the whole listener back without a word."""
    with pytest.raises(BadInput, match="refers to RouteConfiguration r, which is not there"):
        Encoder().snapshot({LISTENER: {"l": listener(1)}})


def test_references_are_found_wherever_they_stand():
    """Secrets, routes and filters that come from aggregated discovery must be found, those from elsewhere not."""
    document = {
        "a": [{"name": "s", "sds_config": FROM_ADS}, {"name": "file", "sds_config": {"path": "/x"}}],
        "b": {"name": "f", "config_discovery": {"config_source": FROM_ADS}},
        "c": {"rds": {"route_config_name": "r", "config_source": FROM_ADS}},
    }
    assert set(references(document)) == {(SECRET, "s"), (EXTENSION, "f"), (ROUTE, "r")}


def test_what_has_not_changed_is_not_encoded_again():
    """The cache must give the very same resource for an equal document, and another for a changed one."""
    encoder = Encoder()
    first, same, changed = (encoder.snapshot({ROUTE: {"r": route(body)}}) for body in ("a", "a", "b"))
    assert first.of(ROUTE)["r"] is same.of(ROUTE)["r"]
    assert first.digest == same.digest != changed.digest


def test_a_bad_publication_leaves_the_one_before():
    """What was published last must stay when the next cannot be encoded."""
    server = AdsServer()
    digest = server.publish({ROUTE: {"r": route("a")}})
    with pytest.raises(BadInput):
        server.publish({ROUTE: {"r": {"name": "r", "nonsense": 1}}})
    assert server.digest == digest


# The socket, without Envoy.


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
    server.publish({ROUTE: {"r": route("x")}})
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
            server.publish({ROUTE: {"r": route(f"body {i}")}})
        response = await stream.recv_message()
        assert b"body 49" in response.resources[0].resource.value
        await stream.cancel()
    await server.stop()


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(tmp_path: Path):
    """A server must stop though a stream ended amid a message that nobody read."""
    server = AdsServer()
    big = route("x")
    big["virtual_hosts"][0]["request_headers_to_remove"] = ["v" * 10_000] * 2000
    server.publish({ROUTE: {"r": big}})
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
    digest = server.publish({ROUTE: {"r": route("x")}})
    assert server.acknowledged == ""
    assert not await server.wait_acknowledged(digest, 0.01)


# With a real Envoy.


@pytest.mark.e2e
async def test_envoy_takes_what_is_published_and_each_change_of_it(tmp_path: Path):
    """What counts as acknowledged must be what Envoy does."""
    port = free_port()
    async with platform(tmp_path) as (server, _):
        for body in ("one", "two", "three"):
            assert await server.wait_acknowledged(server.publish(world(port, body)), LIMIT)
            assert await fetch(port) == body
        assert await server.wait_acknowledged(server.publish({}), LIMIT)
        assert await eventually(lambda: _closed(port))


async def _closed(port: int) -> bool:
    return not await fetch(port)


@pytest.mark.e2e
async def test_a_listener_that_envoy_refuses_is_reported_and_the_old_one_serves_on(tmp_path: Path):
    """A bad snapshot must never replace a good one, here or in an Envoy that is started anew, and must be reported."""
    port = free_port()
    async with platform(tmp_path) as (server, envoy):
        rejected: list[Rejected] = []
        server.on_rejected(rejected.append)
        good = server.publish(world(port, "good"))
        assert await server.wait_acknowledged(good, LIMIT)
        bad = world(port, "good", manager={"stat_prefix": ""})
        bad[LISTENER]["other"] = listener(free_port(), name="other")
        assert not await server.wait_acknowledged(server.publish(bad), 0.5)
        assert [(r.type_url, r.names) for r in rejected] == [(LISTENER, ("l",))]
        assert "StatPrefix" in rejected[0].message
        assert server.acknowledged == good
        assert await fetch(port) == "good"
        os.kill(envoy.pid, 9)
        assert await eventually(lambda: _serves(port, "good"))
        assert len(rejected) == 1
        assert await server.wait_acknowledged(server.publish(world(port, "mended")), LIMIT)
        assert await fetch(port) == "mended"


async def _serves(port: int, body: str) -> bool:
    return await fetch(port) == body


@pytest.mark.e2e
async def test_envoy_serves_on_without_the_server_and_finds_the_next_one(tmp_path: Path):
    """A restart of the server must cost no request, and send nothing that Envoy has."""
    port = free_port()
    async with platform(tmp_path) as (server, envoy):
        digest = server.publish(world(port, "one"))
        assert await server.wait_acknowledged(digest, LIMIT)
        updates = await envoy.admin.stats("listener_manager.lds.update_success")
        await server.stop()
        assert await fetch(port) == "one"
        second = AdsServer()
        assert second.publish(world(port, "one")) == digest
        await second.start(tmp_path / "ads.sock")
        assert await second.wait_acknowledged(digest, LIMIT)
        assert await envoy.admin.stats("listener_manager.lds.update_success") == updates
        assert await second.wait_acknowledged(second.publish(world(port, "two")), LIMIT)
        assert await fetch(port) == "two"
        await second.stop()


@pytest.mark.e2e
async def test_a_resource_of_several_mebibytes_arrives(tmp_path: Path):
    """A long revocation list must pass: gRPC's usual limit of 4 MiB must not apply."""
    port = free_port()
    big = world(port, "x")
    big[ROUTE]["r"]["virtual_hosts"][0]["routes"][0]["response_headers_to_add"] = [
        {"header": {"key": f"x-{i}", "value": "v" * 10_000}} for i in range(600)
    ]
    async with platform(tmp_path) as (server, _):
        assert await server.wait_acknowledged(server.publish(big), LIMIT)


@pytest.mark.e2e
def test_it_works_on_uvloop(tmp_path: Path):
    """The loop that the programs run on must serve and supervise as asyncio's own does."""

    async def story() -> None:
        port = free_port()
        async with platform(tmp_path) as (server, envoy):
            assert await server.wait_acknowledged(server.publish(world(port, "one")), LIMIT)
            os.kill(envoy.pid, 9)
            assert await eventually(lambda: _serves(port, "one"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


@pytest.mark.e2e
async def test_clusters_come_too(tmp_path: Path):
    """A cluster must be acknowledged before a snapshot with one counts."""
    port = free_port()
    cluster = {"name": "c", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": "c"}}
    async with platform(tmp_path) as (server, envoy):
        digest = server.publish({CLUSTER: {"c": cluster}, **world(port, "x")})
        assert await server.wait_acknowledged(digest, LIMIT)
        assert "c::" in (await envoy.admin.get("/clusters")).text
