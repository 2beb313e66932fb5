"""Requests that no application hears of."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.sdk.unserved import Unserved, check_host
from tests.sdk.fronts import cut, on_both_loops, request, serving

NONE = b"GET / HTTP/1.1\r\naccept: */*\r\n\r\n"
TWO = request("/", "host: localhost")
HOSTS = [
    b"localhost",
    b"localhost:7443",
    b"192.0.2.1:443",
    b"[2001:db8::1]:443",
    b"[::1]",
    b"handfast.internal.",
    b" x\t",
    b"",
]
NO_HOSTS = [b"a b", b"a/b", b"user@a", b"a:b", b"a\x00", b"a,\xff", b"[::1", b"::1", b"a\\b", b"http://a"]


def problem(answer: bytes) -> dict[str, Any]:
    """Take the problem document out of an answer, after a look at its form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert headers == {
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    said: dict[str, Any] = json.loads(body)
    assert first.startswith(f"http/1.1 {said['status']} ")
    assert set(said) == {"type", "title", "status", "code", "detail", "hint"}
    return said


@pytest.mark.parametrize("sent", [NONE, TWO, request().replace(b"localhost", b"local host")], ids=["none", "two", "no"])
@on_both_loops
async def test_a_request_for_no_host_is_refused(sent, pki):
    """RFC 9112 section 3.2: on a first request and on a later one, with a problem document, and the connection ends."""
    async with serving(pki) as run:
        for before in (0, 1):
            async with run.talking() as talk:
                for _ in range(before):
                    assert (await talk.get()).status == 200
                run.app.entered.clear()
                talk.send(sent)
                said = problem(await cut(talk))
                assert (said["status"], said["type"], said["code"]) == (400, "urn:handfast:bad-input", "bad-input")
                assert "host" in said["detail"].lower()
                assert not run.app.entered.is_set()


@on_both_loops
async def test_an_older_request_need_not_name_its_host(pki):
    """HTTP/1.0 has no such field, and OCSP clients still speak it."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await talk.answer()).status == 200


@on_both_loops
async def test_what_follows_a_request_for_no_host_is_not_served(pki):
    """A second request behind it, as a smuggler would send, is never read."""
    async with serving(pki) as run, run.talking() as talk:
        talk.send(NONE + request())
        assert (await cut(talk)).count(b"HTTP/1.1 ") == 1
        assert not run.app.entered.is_set()


@pytest.mark.parametrize("host", HOSTS)
def test_names_and_addresses_are_hosts(host: bytes):
    """With and without a port; a request without an authority sends an empty one."""
    check_host([(b"accept", b"*/*"), (b"host", host)], "1.1")


@pytest.mark.parametrize("host", NO_HOSTS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_what_no_host_can_be_called_is_refused(host: bytes, version: str):
    """Neither spaces nor paths nor users nor what is no port."""
    with pytest.raises(Unserved):
        check_host([(b"host", host)], version)


@given(st.binary(max_size=60))
def test_what_is_taken_has_no_delimiter(host: bytes):
    """Whatever a client sends, what is taken for a host ends no line, path or user."""
    try:
        check_host([(b"host", host)], "1.1")
    except Unserved:
        return
    assert not set(host.strip(b" \t")) & set(b'/\\@?# \t\r\n\0"<>')
