import asyncio
import json
import re
import socket
from typing import Any

import pytest

from handfast.sdk.front import Front
from handfast.sdk.limits import Limits
from tests.sdk.fronts import Talk, cut, on_both_loops, request, running, serving, talking, told

LATE = b"late"
LOW_WATER = 16 * 1024  # of both loops: from here on they call no write paused


async def reader_is_full(talk: Talk) -> int:
    """Send until the other side has taken nothing for a while; give what it took."""
    transport, sent = talk.writer.transport, 0
    while sent < 256 << 20:
        if not transport.get_write_buffer_size():
            talk.send(bytes(1 << 20))
            sent += 1 << 20
        left = transport.get_write_buffer_size()
        await asyncio.sleep(0.1 if left else 0)
        if left and transport.get_write_buffer_size() == left:
            break
    return sent - transport.get_write_buffer_size()


@on_both_loops
async def test_a_connection_serves_one_request_after_another(pki):
    """Requests share a connection; each answer has a date, and names no server."""
    async with serving(pki) as run, run.talking() as talk:
        answers = [await talk.get() for _ in range(5)]
        (connection,) = run.front._connections()
        assert not connection._unanswered
    assert [answer.status for answer in answers] == [200] * 5
    for answer in answers:
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt", answer.headers["date"])
        assert "server" not in answer.headers


@on_both_loops
async def test_no_field_changes_who_the_client_is():
    """What a proxy would add is passed on and not believed."""
    lies = ("x-forwarded-for: 10.0.0.1", "x-forwarded-proto: https", "forwarded: for=10.0.0.1;proto=https")
    async with running() as run:
        address = await run.front.listen_plain("127.0.0.1", 0)
        async with talking(address) as talk:
            talk.send(request("/", *lies))
            seen = json.loads((await talk.answer()).body)
            assert seen["client"] == list(talk.writer.get_extra_info("sockname"))
    assert (seen["scheme"], seen["extensions"]) == ("http", {})
    assert ["x-forwarded-for", "10.0.0.1"] in seen["headers"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * (1 << 20),
        bytes(1 << 20),
        b"\r\n" * (1 << 19),
        b"GET /" + b"a" * (1 << 20),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * (1 << 17),
        b"GET / HTTP/1.1\r\nhost: localhost\r\na: " + b"b" * (1 << 20),
        b"GET / HTTP/1.1\r\n\xff\xff: b\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"CONNECT localhost:443 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda sent: sent[:40].decode("ascii", "backslashreplace") + str(len(sent)),
)
@on_both_loops
async def test_garbage_is_cut_and_never_served(sent, pki):
    """What is no request ends the connection, and the application hears nothing of it."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(sent)
        read = await cut(talk)
        assert read.count(b"HTTP/1.1") <= 1
        assert read == b"" or re.match(rb"HTTP/1\.1 4(00|31) ", read)
        assert not run.app.entered.is_set()


@pytest.mark.parametrize(
    "head",
    [
        request("/" + "a" * 1100),
        request("/", "a: " + "b" * 1100),
        request("/", *(["a: b"] * 12)),
        b"\r\n" * 600,
    ],
    ids=["target", "field", "fields", "nothing"],
)
@on_both_loops
async def test_a_head_too_large_is_refused_with_431(head, pki):
    """Target, fields and their number have a bound, on a first request and on a later one."""
    async with serving(pki, head_bytes=1000, head_fields=10) as run:
        for before in (0, 1):
            async with run.talking() as talk:
                for _ in range(before):
                    assert (await talk.get()).status == 200
                run.app.entered.clear()
                talk.send(head)
                assert re.match(rb"HTTP/1\.1 431 [^\0]*\r\nconnection: close\r\n\r\n\{[^\0]*\}\Z", await cut(talk))
                assert not run.app.entered.is_set()


@on_both_loops
async def test_a_head_within_its_bounds_is_served(pki):
    """A head just below the bounds is no reason for complaint, as often as it comes."""
    async with serving(pki, head_bytes=1000, head_fields=10) as run, run.talking() as talk:
        for _ in range(3):
            talk.send(request("/", "a: " + "b" * 900, *(["c: d"] * 8)))
            assert (await talk.answer()).status == 200


@on_both_loops
async def test_trailers_are_weighed_and_dropped(pki):
    """A trailer reaches no application as a field of the head, and many of them are too many."""
    head = request("/read", "transfer-encoding: chunked", method="POST")
    async with serving(pki, head_fields=10) as run:
        async with run.talking() as talk:
            talk.send(head + b"5\r\nhello\r\n0\r\nauthorization: me\r\n\r\n")
            assert json.loads((await talk.answer()).body) == [5, ["host", "transfer-encoding"]]
        async with run.talking() as talk:
            talk.send(head + b"0\r\n" + b"a: b\r\n" * 10)
            assert await cut(talk) == b""


@pytest.mark.parametrize("size", [b"5" + b";a" * (1 << 19), b"0" * (1 << 20)], ids=["extensions", "zeros"])
@on_both_loops
async def test_what_the_parser_swallows_is_bounded(size, pki):
    """Bytes that belong to a body and say nothing cannot go on for ever."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/read", "transfer-encoding: chunked", method="POST") + size)
        assert await cut(talk) == b""
        await run.left("/read")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\n"], ids=["silent", "dripping"])
@on_both_loops
async def test_a_slow_head_is_cut(start, pki):
    """A client that never gets to the end of its head is cut, however lively it is."""
    async with serving(pki, head_s=0.3) as run, run.talking() as talk:
        talk.send(start)
        dripping = asyncio.create_task(drip(talk, b"a: b\r\n" if start else b""))
        assert await cut(talk, after=0.2) == b""
        dripping.cancel()
        assert not run.app.entered.is_set()


@pytest.mark.parametrize("start", [b"G", b"\r\n"], ids=["letter", "blank line"])
@on_both_loops
async def test_a_slow_head_is_cut_on_a_later_request_too(start, pki):
    """The time for a head begins anew with each request."""
    async with serving(pki, head_s=0.3) as run, run.talking() as talk:
        assert (await talk.get()).status == 200
        await asyncio.sleep(0.4)  # idle is not slow
        assert (await talk.get()).status == 200
        talk.send(start)
        assert await cut(talk, after=0.2) == b""


@on_both_loops
async def test_a_head_is_bounded_after_a_body_too(pki):
    """The longer time that a body has says nothing about the head that follows."""
    async with serving(pki, head_s=0.3) as run, run.talking() as talk:
        talk.send(request("/read", "content-length: 1", method="POST"))
        await asyncio.sleep(0.5)  # past the time of a head
        talk.send(b"x")
        assert json.loads((await talk.answer()).body)[0] == 1
        talk.send(b"G")
        assert await cut(talk, after=0.2) == b""


async def drip(talk: Talk, piece: bytes) -> None:
    while True:
        await asyncio.sleep(0.02)
        talk.send(piece)


@on_both_loops
async def test_a_slow_body_is_cut(pki):
    """A client that drips its body is cut, and the application ends."""
    async with serving(pki, body_s=0.3) as run, run.talking() as talk:
        talk.send(request("/read", "content-length: 100000", method="POST"))
        dripping = asyncio.create_task(drip(talk, b"x"))
        assert await cut(talk, after=0.2) == b""
        dripping.cancel()
        await run.left("/read")


@on_both_loops
async def test_an_idle_connection_is_closed(pki):
    """Between requests a client may wait only so long. An answer that takes longer is no idleness."""
    async with serving(pki, keep_alive_s=0.3) as run, run.talking() as talk:
        talk.send(request("/wait"))
        await asyncio.sleep(0.4)
        run.app.go.set()
        assert (await talk.answer()).body == LATE
        assert await cut(talk, after=0.2) == b""


@on_both_loops
async def test_a_body_behind_its_answer_is_no_way_to_stay(pki):
    """A client that is answered before it has sent its body may idle no longer than others, once that came."""
    async with serving(pki, keep_alive_s=0.3) as run, run.talking() as talk:
        talk.send(request("/", "content-length: 5", method="POST"))
        assert (await talk.answer()).status == 200
        talk.send(b"later")
        assert await cut(talk, after=0.2) == b""


@on_both_loops
async def test_a_connection_in_use_is_not_idle(pki):
    """Each request gives the connection its time anew, and one that is over keeps no timer."""
    async with serving(pki, keep_alive_s=0.3) as run, run.talking() as talk:
        for _ in range(4):
            assert (await talk.get()).status == 200
            await asyncio.sleep(0.15)
        talk.send(request("/wait"))
        await asyncio.sleep(0.5)  # an answer may take longer than a connection may idle
        run.app.go.set()
        assert (await talk.answer()).body == LATE
        (connection,) = run.front._connections()
        assert await cut(talk, after=0.1) == b""
        await connection.closed
        assert not any(deadline._timer for deadline in (connection._idle, connection._reading, connection._writing))


@on_both_loops
async def test_an_answer_may_take_longer_than_a_head(pki):
    """What a client sends ahead is not judged slow while the server makes it wait."""
    async with serving(pki, head_s=0.2) as run, run.talking() as talk:
        talk.send(request("/wait") + b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.5)
        run.app.go.set()
        assert (await talk.answer()).body == LATE
        talk.send(b"host: localhost\r\n\r\n")
        assert (await talk.answer()).status == 200


@pytest.mark.parametrize(("path", "limits"), [("/pour", {}), ("/much", {"keep_alive_s": 0.2})], ids=["pieces", "whole"])
@on_both_loops
async def test_an_answer_that_nobody_reads_is_cut(path, limits, pki):
    """A client that asks for much and reads nothing loses its connection, and the application ends."""
    async with serving(pki, stalled_s=0.3, **limits) as run, run.talking() as talk:
        talk.writer.transport.pause_reading()
        began = asyncio.get_running_loop().time()
        talk.send(request(path))
        await run.left(path)
        while run.front._connections():
            await asyncio.sleep(0.005)
        assert asyncio.get_running_loop().time() - began > 0.25


@on_both_loops
async def test_the_end_of_a_closing_connection_has_to_be_read_too():
    """A client that leaves the last bytes of its last answer is cut: without TLS nobody else would do it."""

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1 << 20)})

    front = Front(app, on_failed_handshake=lambda _: None, limits=Limits(stalled_s=1))
    address, loop = await front.listen_plain("127.0.0.1", 0), asyncio.get_running_loop()
    front._listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, request("/", "connection: close"))
        while not (waiting := [one for one in front._connections() if one.transport.is_closing()]):
            await asyncio.sleep(0.005)
        (connection,) = waiting
        while connection.transport.get_write_buffer_size() > LOW_WATER:
            await loop.sock_recv(client, 2048)
        assert connection.transport.get_write_buffer_size()
        await asyncio.wait_for(connection.closed, 4)
    await front.stop(0)


@on_both_loops
async def test_a_client_that_reads_slowly_gets_all(pki):
    """Who reads is not cut, though the answer is held up again and again."""
    async with serving(pki, stalled_s=0.5) as run, run.talking() as talk:
        talk.send(request("/pour", "connection: close"))
        read = 0
        while more := await talk.reader.read(4 << 20):
            read += len(more)
            await asyncio.sleep(0.001)
    assert read > 64 << 20


@on_both_loops
async def test_a_client_that_has_read_is_no_longer_slow(pki):
    """The time for reading ends with the answer: the connection may idle after it."""
    async with serving(pki, stalled_s=0.5) as run, run.talking() as talk:
        assert len((await talk.get("/pour")).body) == 64 << 20
        await asyncio.sleep(0.6)
        assert (await talk.get()).status == 200


@on_both_loops
async def test_a_body_waits_for_the_application(pki):
    """While the application does not read, the client is held back; then all of the body gets through."""
    async with serving(pki) as run, run.talking() as talk:
        size = 256 << 20
        talk.send(request("/wait", f"content-length: {size}", method="POST"))
        assert await reader_is_full(talk) < 64 << 20
        (connection,) = run.front._connections()
        assert len(connection.cycle.body) < 4 << 20
        run.app.go.set()
        assert (await talk.answer()).body == LATE


@on_both_loops
async def test_a_large_body_gets_through(pki):
    """Eight mebibytes arrive as they were sent, though they come faster than they are read."""
    async with serving(pki) as run, run.talking() as talk:
        size = 8 << 20
        talk.send(request("/read", f"content-length: {size}", method="POST") + bytes(size))
        assert json.loads((await talk.answer()).body)[0] == size
        assert (await talk.get()).status == 200


@on_both_loops
async def test_waiting_requests_are_answered_in_order(pki):
    """Four may wait behind the one that is being answered."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/wait") + request("/read") + request("/") * 2 + request("/read"))
        await run.app.entered.wait()
        run.app.go.set()
        assert [(await talk.answer()).body[:1] for _ in range(5)] == [b"l", b"[", b"{", b"{", b"["]


@on_both_loops
async def test_a_fifth_waiting_request_cuts(pki):
    """One more is not refused in words: they would stand in the middle of another answer."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/gone") + request("/") * 5)
        assert await cut(talk) == b""
        await run.left("/gone")


@on_both_loops
async def test_nothing_is_served_after_close(pki):
    """What stands behind a request that closes is no request."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/", "connection: close") + request("/read"))
        assert told(await talk.rest())["scheme"] == "https"
        await run.left("/")


@on_both_loops
async def test_an_upgrade_is_answered_as_it_stands(pki):
    """There is nothing to upgrade to: the request is served, and what follows is in the other protocol."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(request("/", "connection: upgrade", "upgrade: websocket") + request("/read"))
        assert told(await talk.rest())["scheme"] == "https"
        await run.left("/")


@on_both_loops
async def test_a_client_that_leaves_is_told_to_the_application(pki):
    """The application hears of it, and ends."""
    async with serving(pki) as run:
        async with run.talking() as talk:
            talk.send(request("/gone"))
            await run.app.entered.wait()
        await run.left("/gone")


@on_both_loops
async def test_a_client_that_leaves_requests_behind_is_told_to_the_application(pki):
    """The request that is being answered hears of it too when others wait behind it; those are not begun."""
    async with serving(pki) as run:
        async with run.talking() as talk:
            talk.send(request("/gone") + request("/"))
            await run.app.entered.wait()
        await run.left("/gone")


@on_both_loops
async def test_a_broken_application_tells_nothing(pki, caplog):
    """The client gets 500 and no reason; the next request is served."""
    async with serving(pki) as run:
        async with run.talking() as talk:
            talk.send(request("/fail"))
            assert (await talk.answer())[::2] == (500, b"Internal Server Error")
        async with run.talking() as talk:
            assert (await talk.get()).status == 200
    assert "what the client need not know" in caplog.text
