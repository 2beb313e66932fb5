"""How an answer lies on the wire: one piece where it is one, ended as it was said, and nothing that the application did not mean."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from handfast.sdk.front import Front
from tests.sdk.fronts import GET, Talk, on_both_loops, request, serving, talking

LENGTH, CHUNKED = (b"content-length", b"5"), (b"transfer-encoding", b"chunked")


def start(*fields: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def piece(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


@asynccontextmanager
async def served_by(app: Any) -> AsyncIterator[Talk]:
    """Connect to a front that serves this application."""
    front = Front(app, on_failed_handshake=lambda _: None)
    address = await front.listen_plain("127.0.0.1", 0)
    try:
        async with talking(address) as talk:
            yield talk
    finally:
        await front.stop(0)


@asynccontextmanager
async def saying(*messages: dict[str, Any] | asyncio.Event | Exception) -> AsyncIterator[Talk]:
    """Connect to a front whose application says these messages, waits for these events, raises these errors."""

    async def app(_: Any, __: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await (message.wait() if isinstance(message, asyncio.Event) else send(message))

    async with served_by(app) as talk:
        yield talk


async def said(*messages: Any, method: str = "GET") -> tuple[list[str], bytes]:
    """Give the lines of the head, without the date, and the body, of an answer after which the connection ends."""
    async with saying(*messages) as talk:
        talk.send(request("/", "connection: close", method=method))
        head, _, body = (await asyncio.wait_for(talk.rest(), 5)).partition(b"\r\n\r\n")
        return [line for line in head.decode().split("\r\n") if not line.startswith("date: ")], body


@on_both_loops
async def test_head_and_body_are_one_record(pki):
    """An answer that is there at once leaves in one TLS record."""
    async with serving(pki) as run:
        reader = await asyncio.to_thread(first_record, run.address, run.context)
    head, _, body = reader.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["scheme"] == "https"


def first_record(address: tuple[str, int], context: Any) -> bytes:
    with (
        socket.create_connection(address, timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(GET)
        return bytes(tls.recv(1 << 16))


@on_both_loops
async def test_nothing_is_said_before_the_body_begins():
    """The head waits for the first piece of the body; later pieces leave at once."""
    begin, go_on = asyncio.Event(), asyncio.Event()
    async with saying(start(), begin, piece(b"one", more=True), go_on, piece(b"two")) as talk:
        talk.send(request())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.reader.read(1), 0.1)
        begin.set()
        assert (await talk.reader.readuntil(b"one\r\n")).endswith(b"\r\n\r\n3\r\none\r\n")
        go_on.set()
        assert await talk.reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


@on_both_loops
async def test_who_fails_before_the_body_has_said_nothing(caplog):
    """The head that was meant is forgotten; the answer is a 500, whole, and the connection ends with it."""
    for meant in (start(LENGTH), start(status=204), start((b"transfer-encoding", b"chunked"))):
        lines, body = await said(meant, LookupError("what the client need not know"))
        assert lines[0] == "HTTP/1.1 500 Internal Server Error"
        assert (body, "connection: close" in lines) == (b"Internal Server Error", True)
    assert "what the client need not know" in caplog.text
    lines, body = await said(start(LENGTH))
    assert (lines[0], body) == ("HTTP/1.1 500 Internal Server Error", b"Internal Server Error")


@on_both_loops
async def test_who_fails_amid_the_body_is_cut(caplog):
    """What was said cannot be taken back: the client sees that the end is missing."""
    lines, body = await said(start(), piece(b"one", more=True), LookupError("no"))
    assert (lines[0], body) == ("HTTP/1.1 200 OK", b"3\r\none\r\n")
    assert "LookupError" in caplog.text


@pytest.mark.parametrize(
    ("messages", "lines", "body"),
    [
        ([start(LENGTH), piece(b"hello")], ["content-length: 5"], b"hello"),
        ([start(LENGTH), piece(b"he", more=True), piece(b"llo")], ["content-length: 5"], b"hello"),
        ([start(), piece(b"hello")], ["transfer-encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        ([start(), piece(more=True), piece()], ["transfer-encoding: chunked"], b"0\r\n\r\n"),
        ([start((b"Transfer-Encoding", b"Chunked")), piece(b"a")], ["transfer-encoding: Chunked"], b"1\r\na\r\n0\r\n\r\n"),
        ([start((b"content-length", b"0")), piece()], ["content-length: 0"], b""),
        ([start(LENGTH, CHUNKED), piece(b"a")], ["content-length: 5", "transfer-encoding: chunked"], b"1\r\na\r\n0\r\n\r\n"),
        ([start(CHUNKED, LENGTH), piece(b"a")], ["content-length: 5", "transfer-encoding: chunked"], b"1\r\na\r\n0\r\n\r\n"),
    ],
    ids=["length", "pieces", "chunked", "empty chunks", "said to be chunked", "empty", "length and chunked", "chunked and length"],
)  # fmt: skip
@on_both_loops
async def test_the_end_of_a_body_is_told(messages, lines, body):
    """By its length where the application says it, else by chunks; by these where it says both, as readers do (RFC 9112 section 6)."""
    head, read = await said(*messages)
    assert (head[0], sorted(head[1:]), read) == ("HTTP/1.1 200 OK", sorted([*lines, "connection: close"]), body)


@on_both_loops
async def test_some_answers_have_no_body():
    """To HEAD, and with 204 and 304, nothing follows the head; a length may be told all the same."""
    assert await said(start(LENGTH), piece(b"hello"), method="HEAD") == (
        ["HTTP/1.1 200 OK", "content-length: 5", "connection: close"],
        b"",
    )
    assert await said(start(), piece(b"hello"), method="HEAD") == (["HTTP/1.1 200 OK", "connection: close"], b"")
    for status, phrase in ((204, "No Content"), (304, "Not Modified")):
        assert await said(start(status=status), piece()) == ([f"HTTP/1.1 {status} {phrase}", "connection: close"], b"")


@pytest.mark.parametrize(
    "messages",
    [
        [start(LENGTH), piece(b"hell")],
        [start(LENGTH), piece(b"hello!")],
        [start(LENGTH), piece(b"hell", more=True), piece(b"o!")],
    ],
    ids=["short", "long", "long in pieces"],
)
@on_both_loops
async def test_a_body_of_another_length_is_never_passed_off(messages, caplog):
    """The client gets no more than was said, and an answer that is short of it does not go on with the next one."""
    async with saying(*messages) as talk:
        talk.send(request() + request())
        head, _, body = (await asyncio.wait_for(talk.rest(), 5)).partition(b"\r\n\r\n")
    assert "RuntimeError" in caplog.text
    if head.startswith(b"HTTP/1.1 500 "):
        assert body == b"Internal Server Error"
    else:
        assert body == b"hell"


@pytest.mark.parametrize(
    "messages",
    [[piece(b"hello")], [start(LENGTH), start(LENGTH)], [{"type": "http.unknown"}]],
    ids=["no head", "two heads", "unknown"],
)
@on_both_loops
async def test_a_message_out_of_turn_is_the_applications_fault(messages, caplog):
    """It is told in the log, and the client gets a 500."""
    assert (await said(*messages))[0][0] == "HTTP/1.1 500 Internal Server Error"
    assert "is out of turn" in caplog.text


@on_both_loops
async def test_a_message_after_the_end_changes_nothing(caplog):
    """The answer stands as it was; the log tells."""
    assert (await said(start(LENGTH), piece(b"hello"), piece(b"more")))[1] == b"hello"
    assert "is out of turn" in caplog.text


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\0"),
        (b"x", b"a\x7f"),
        (b"x\r\ny", b"a"),
        (b"x:y", b"a"),
        (b"x y", b"a"),
    ],
    ids=str,
)
@on_both_loops
async def test_a_field_is_one_field(field, caplog):
    """What would be more than one line, or none of HTTP's, never leaves."""
    lines, body = await said(start(field, LENGTH), piece(b"hello"))
    assert (lines[0], body) == ("HTTP/1.1 500 Internal Server Error", b"Internal Server Error")
    assert not [line for line in lines if line.startswith(("x", "set-cookie", "b"))]
    assert "this is no field" in caplog.text


@on_both_loops
async def test_an_application_can_end_the_connection():
    """With a field of its own, which is not said twice. What waits behind that answer is never done: nobody would hear of it."""
    entered = list[str]()

    async def app(scope: Any, _: Any, send: Any) -> None:
        entered.append(scope["path"])
        for message in (start((b"Connection", b"x, Close"), LENGTH), piece(b"hello")):
            await send(message)

    async with served_by(app) as talk:
        talk.send(request("/first") + request("/second"))
        assert (await asyncio.wait_for(talk.rest(), 5)).lower().count(b"connection:") == 1
    assert entered == ["/first"]


@on_both_loops
async def test_who_speaks_http_1_0_is_answered_once():
    """Such a client may not read chunks, and what it calls keep-alive is no HTTP of ours: the end of the connection ends the answer."""
    async with saying(start(LENGTH), piece(b"hello")) as talk:
        talk.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 2)
        rest = await asyncio.wait_for(talk.rest(), 5)
    assert (rest.count(b"HTTP/1.1 "), b"connection: close" in rest) == (1, True)


@on_both_loops
async def test_a_body_is_asked_for_once_it_is_read(pki):
    """A client that waits for 100 (RFC 9110 section 10.1.1) is told to go on; one that is answered before is not."""
    head = ("content-length: 5", "expect: 100-continue")
    async with serving(pki) as run:
        async with run.talking() as talk:
            talk.send(request("/read", *head, method="POST"))
            assert await talk.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            talk.send(b"hello")
            assert json.loads((await talk.answer()).body)[0] == 5
        async with run.talking() as talk:
            talk.send(request("/", *head, method="POST"))
            assert (await talk.answer()).status == 200


@on_both_loops
async def test_nobody_is_told_to_go_on_after_the_answer():
    """An application that reads on behind its answer writes nothing between that one and the next."""

    async def app(_: Any, receive: Any, send: Any) -> None:
        for message in (start(LENGTH), piece(b"hello")):
            await send(message)
        assert (await receive())["type"] == "http.disconnect"

    async with served_by(app) as talk:
        talk.send(request("/", "content-length: 1", "expect: 100-continue", method="POST"))
        assert (await talk.answer()).body == b"hello"
        talk.send(b"x" + request("/", "connection: close"))
        rest = await asyncio.wait_for(talk.rest(), 5)
    assert b"100 Continue" not in rest
    assert rest.count(b"HTTP/1.1 ") == 1
