from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access import values
from handfast.access.paths import normalise
from handfast.access.policy import Listen, RouteMode, Upstream
from handfast.base.refusal import BadInput
from tests.access import strategies as some

LONGEST_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
GOOD = [
    (values.dns_name, "a", "a"),
    (values.dns_name, "xn--bcher-kva.example.org", "xn--bcher-kva.example.org"),
    (values.dns_name, "1.2.3.org", "1.2.3.org"),
    (values.dns_name, LONGEST_NAME, LONGEST_NAME),
    (values.duration, "5s", timedelta(seconds=5)),
    (values.duration, "15m", timedelta(minutes=15)),
    (values.duration, "7d", timedelta(days=7)),
    (values.duration, "397d", timedelta(days=397)),
    (values.listen, "8443", Listen("0.0.0.0", 8443)),
    (values.listen, "127.0.0.1:1", Listen("127.0.0.1", 1)),
    (values.listen, "[::1]:65535", Listen("::1", 65535)),
    (values.listen, "[0:0::1]:80", Listen("::1", 80)),
    (values.upstream, "http://127.0.0.1:9000", Upstream("http", "127.0.0.1", 9000)),
    (values.upstream, "http://a", Upstream("http", "a", 80)),
    (values.upstream, "https://A.internal", Upstream("https", "a.internal", 443)),
    (values.upstream, "https://[::1]", Upstream("https", "::1", 443)),
    (values.upstream, "http://[::1]:81", Upstream("http", "::1", 81)),
    (values.upstream, "http://my_service:81", Upstream("http", "my_service", 81)),
    (values.path, "/", "/"),
    (values.path, "/.well-known/a;b=c", "/.well-known/a;b=c"),
    (values.method, "M-SEARCH", "M-SEARCH"),
    (values.header_name, "X-Client-CN", "X-Client-CN"),
    (values.truth, "true", True),
    (values.truth, "false", False),
]  # fmt: skip
BAD = {
    values.dns_name: ["", ".", "a.", ".a", "a..b", "A.org", "*.a.org", "a_b", "-a", "a-", "a b", "ä.org", "127.0.0.1", "a.1", "a\n", "[::1]", "a" * 64, f"{LONGEST_NAME}x"],
    values.duration: ["", "5", "s", "4s", "0s", "1h30m", "1.5h", "-1h", "1 h", "1w", "1H", "398d", "999999999d", "9999999999d", "1h\n", "٣h"],
    values.listen: ["", "0", "65536", "08443", "8443 ", ":8443", "localhost:8443", "127.0.0.1", "127.0.0.1:", "[127.0.0.1]:1", "::1:8443", "[::1]", "[fe80::1%eth0]:1", "[::ffff:127.0.0.1]:1", "1.2.3:1", "٣", "8_443", "[]:1"],
    values.upstream: ["", "a:80", "ftp://a", "HTTP://a", "http://", "http://a/", "http://a?b", "http://a#b", "http://u@a", "http://a:", "http://a:0", "http://a:b", "http://::1", "http://[::1]x", "http://[a]", "http://a b", "http://1.2.3", "http://-a", "http://a..b", "http://a\n", "http://:80", "http://[::1%25eth0]:80"],
    values.path: ["", "v1", "/v1/", "//", "/a//b", "/./a", "/a/..", "/a/..;x/b", "/a?b", "/a#b", "/a%20b", "/a b", "/*", "/a/*", "/{id}", "/ä", "/a\\b", "/a\n", "/" + "a" * 1024],
    values.method: ["", "get", "Get", "GET ", "G(", "GET,POST", "GET\n", "É", "A" * 65],
    values.header_name: ["", "X_Who", ":path", "X Who", "1-A", "X-Who:", "X-Who\n", "Host", "COOKIE", "authorization", "Content-Length", "content-type", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Proxy-Authorization", "X-Forwarded-For", "x-forwarded-client-cert", "Client-Cert", "Forwarded", "X-Envoy-Original-Path", "X-Request-Id", "A" * 65],
    values.truth: ["", "True", "yes", "on", "1"],
}  # fmt: skip


@pytest.mark.parametrize(("read", "text", "expected"), GOOD)
def test_what_a_value_may_be(read: Callable[[str], object], text: str, expected: object):
    """Each of these texts is read, and to this."""
    assert read(text) == expected


@pytest.mark.parametrize(("read", "text"), [(read, text) for read, texts in BAD.items() for text in texts])
def test_what_a_value_may_not_be(read: Callable[[str], object], text: str):
    """Each of these texts is refused, with a sentence that does not grow with it."""
    with pytest.raises(BadInput) as caught:
        read(text)
    assert len(str(caught.value)) < 200


@given(st.sampled_from(list(BAD)), st.one_of(st.text(), st.from_regex(r"\A(http://|/|\[)?[0-9a-z:./\[\]]{0,20}\Z")))
def test_any_text_is_read_or_refused(read: Callable[[str], object], text: str):
    """No text leads to another error, and a text that is read is not one with a line break in it."""
    try:
        read(text)
    except BadInput:
        return
    assert "\n" not in text


@given(some.upstreams, st.sampled_from(some.LISTENS), st.integers(5, 397 * 86400))
def test_what_is_written_is_read_back(upstream: Upstream, listen: Listen, seconds: int):
    """Upstreams, addresses and durations are read to what they were written from."""
    assert values.upstream(str(upstream)) == upstream
    assert values.listen(str(listen)) == listen
    assert values.duration(values.duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


@given(st.from_regex(values.PATH_PATTERN, fullmatch=True))
def test_a_route_can_be_reached(text: str):
    """A path that a route may have is one that a request for it arrives with."""
    try:
        path = values.path(text)
    except BadInput:
        return
    assert normalise(path) == path


def test_a_word_is_one_of_a_few():
    """A word is read as it is written, and a refusal names the others."""
    assert values.word(RouteMode, "report") is RouteMode.REPORT
    with pytest.raises(BadInput, match="enforce, report"):
        values.word(RouteMode, "Report")
