import asyncio
import gc
import json
import socket
import ssl
from pathlib import Path

import pytest

from handfast.sdk import front
from tests.sdk.fronts import cut, good, on_both_loops, request, running, serving, talking, visit
from tests.support.pki import Pki


def strangers(before: set[asyncio.Task]) -> set[asyncio.Task]:
    """Give the tasks that were not there before."""
    return asyncio.all_tasks() - before


async def descriptors() -> int:
    """Count what is open, once a loop that opens some things late has had the occasion."""
    async with running() as run, talking(await run.front.listen_plain("127.0.0.1", 0)) as talk:
        await talk.get()
    await asyncio.sleep(0.05)  # a loop closes what it has aborted in its next round
    gc.collect()  # and what earlier tests have left lying about is not ours
    return len(list(Path("/dev/fd").iterdir()))


@on_both_loops
async def test_stop_lets_a_request_end(pki):
    """Whoever is being answered gets the answer and is told that it is the last; nobody else gets in."""
    before = asyncio.all_tasks()
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/wait"))
        await run.app.entered.wait()
        stopping = asyncio.create_task(run.front.stop(10))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        with pytest.raises(ConnectionRefusedError):
            await visit(run)
        run.app.go.set()
        answer = await talk.answer()
        assert (answer.body, answer.headers["connection"]) == (b"late", "close")
        assert await talk.rest() == b""
        await stopping
        assert not strangers(before)


@on_both_loops
async def test_stop_lets_requests_end_that_wait_behind(pki):
    """What was taken in is answered, in order, before the connection goes."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/wait") + request("/read"))
        await run.app.entered.wait()
        stopping = asyncio.create_task(run.front.stop(10))
        await asyncio.sleep(0.05)
        run.app.go.set()
        assert (await talk.answer()).body == b"late"
        assert json.loads((await talk.answer()).body)[0] == 0
        await stopping


@on_both_loops
async def test_stop_cuts_what_does_not_end(pki):
    """After the grace the connection is cut, the application cancelled, and no task is left."""
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/wait"))
        await run.app.entered.wait()
        began = loop.time()
        await run.front.stop(0.2)
        assert 0.15 < loop.time() - began < 5
        assert await cut(talk) == b""
        assert run.app.left == ["/wait"]
        assert not strangers(before)


@on_both_loops
async def test_stop_does_not_wait_for_the_idle(pki, monkeypatch):
    """Idle connections are closed at once, also those whose client does not read."""
    monkeypatch.setattr(front, "_IDLE_CLOSE_S", 0.1)
    async with serving(pki) as run, run.talking() as talk, run.talking() as deaf:
        assert [(await one.get()).status for one in (talk, deaf)] == [200, 200]
        deaf.writer.transport.pause_reading()
        began = asyncio.get_running_loop().time()
        await run.front.stop(30)
        assert asyncio.get_running_loop().time() - began < 10
        assert await talk.rest() == b""


@on_both_loops
async def test_stop_cuts_a_client_that_does_not_read(pki):
    """An answer that nobody takes holds nothing up beyond the grace."""
    before = asyncio.all_tasks()
    async with serving(pki) as run, run.talking() as talk:
        talk.writer.transport.pause_reading()
        talk.send(request("/pour"))
        await run.app.entered.wait()
        await run.front.stop(0.2)
        await run.left("/pour")
        assert not strangers(before)


@on_both_loops
async def test_stop_ends_handshakes_and_gives_everything_back(pki, monkeypatch):
    """Clients in the middle of a handshake are let go without a report; no task and no descriptor stays."""
    before, open_before = asyncio.all_tasks(), await descriptors()
    async with serving(pki) as run:
        silent = [socket.create_connection(run.address) for _ in range(10)]
        while len(run.front._arriving) < 10:
            await asyncio.sleep(0.005)
        monkeypatch.setattr(front, "_CANCEL_S", 30)
        await asyncio.wait_for(run.front.stop(30), 5)
        assert not strangers(before)
        for sock in silent:
            with sock:
                sock.settimeout(5)
                assert gone(sock)
        assert run.failures == []
    assert await descriptors() == open_before


def gone(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


@on_both_loops
async def test_stop_may_come_twice_and_to_an_idle_front(pki):
    """A front that has nothing to stop is stopped."""
    async with serving(pki) as run:
        await run.front.stop(1)
        await run.front.stop(1)
    async with running() as run:
        await run.front.stop(1)


@on_both_loops
async def test_traffic_leaves_nothing_behind(pki):
    """After good clients, bad ones and rude ones there are as many tasks and descriptors as before."""
    bad, stranger = ssl.create_default_context(cadata=pki.roots_pem.decode()), Pki("Stranger").leaf()
    before, open_before = asyncio.all_tasks(), await descriptors()
    async with serving(pki, linger_s=0.05) as run:
        for context in (run.context, bad, good(pki, stranger)) * 3:
            async with talking(run.address, context) as talk:
                talk.send(request("/"))
                if context is run.context:
                    assert (await talk.answer()).status == 200
                else:
                    await cut(talk)
        async with run.talking() as talk:
            talk.send(request("/gone"))
        await run.reported(6)
        await run.front.stop(1)
    assert not strangers(before)
    assert await descriptors() == open_before
