import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from handfast.envoy.bootstrap import bootstrap as envoys_bootstrap
from handfast.envoy.types import CLUSTER, LISTENER, ROUTE
from handfast.io.ads import AdsServer
from handfast.io.envoy_process import EnvoyProcess
from handfast.io.xds_state import Rejected
from tests.io.ads_parts import LIMIT, Json, eventually, listener, route
from tests.support.ports import free_port


def bootstrap(path: Path, api: str = "DELTA_GRPC") -> Json:
    made: Json = envoys_bootstrap(node="one", ads_socket=str(path))
    made["dynamic_resources"]["ads_config"]["api_type"] = api
    return made


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


@pytest.mark.e2e
async def test_envoy_takes_what_is_published_and_each_change_of_it(tmp_path: Path):
    """What counts as acknowledged must be what Envoy does."""
    port = free_port()
    async with platform(tmp_path) as (server, _):
        for body in ("one", "two", "three"):
            assert await server.wait_acknowledged(server.put(server.prepare(world(port, body))), LIMIT)
            assert await fetch(port) == body
        assert await server.wait_acknowledged(server.put(server.prepare({})), LIMIT)
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
        good = server.put(server.prepare(world(port, "good")))
        assert await server.wait_acknowledged(good, LIMIT)
        bad = world(port, "good", manager={"stat_prefix": ""})
        bad[LISTENER]["other"] = listener(free_port(), name="other")
        assert not await server.wait_acknowledged(server.put(server.prepare(bad)), 0.5)
        assert [(r.type_url, r.names) for r in rejected] == [(LISTENER, ("l",))]
        assert "StatPrefix" in rejected[0].message
        assert server.acknowledged == good
        assert await fetch(port) == "good"
        os.kill(envoy.pid, 9)
        assert await eventually(lambda: _serves(port, "good"))
        assert len(rejected) == 1
        assert await server.wait_acknowledged(server.put(server.prepare(world(port, "mended"))), LIMIT)
        assert await fetch(port) == "mended"


async def _serves(port: int, body: str) -> bool:
    return await fetch(port) == body


@pytest.mark.e2e
async def test_envoy_serves_on_without_the_server_and_finds_the_next_one(tmp_path: Path):
    """A restart of the server must cost no request, and send nothing that Envoy has."""
    port = free_port()
    async with platform(tmp_path) as (server, envoy):
        digest = server.put(server.prepare(world(port, "one")))
        assert await server.wait_acknowledged(digest, LIMIT)
        updates = await envoy.admin.stats("listener_manager.lds.update_success")
        await server.stop()
        assert await fetch(port) == "one"
        second = AdsServer()
        assert second.put(second.prepare(world(port, "one"))) == digest
        await second.start(tmp_path / "ads.sock")
        assert await second.wait_acknowledged(digest, LIMIT)
        assert await envoy.admin.stats("listener_manager.lds.update_success") == updates
        assert await second.wait_acknowledged(second.put(second.prepare(world(port, "two"))), LIMIT)
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
        assert await server.wait_acknowledged(server.put(server.prepare(big)), LIMIT)


@pytest.mark.e2e
def test_it_works_on_uvloop(tmp_path: Path):
    """The loop that the programs run on must serve and supervise as asyncio's own does."""

    async def story() -> None:
        port = free_port()
        async with platform(tmp_path) as (server, envoy):
            assert await server.wait_acknowledged(server.put(server.prepare(world(port, "one"))), LIMIT)
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
        digest = server.put(server.prepare({CLUSTER: {"c": cluster}, **world(port, "x")}))
        assert await server.wait_acknowledged(digest, LIMIT)
        assert "c::" in (await envoy.admin.get("/clusters")).text
