from collections.abc import Iterator
from itertools import permutations

import pytest

from handfast.base.reasons import Reason
from tests.e2e.clients import Connection, curl
from tests.e2e.echo import Echo
from tests.e2e.feed import Feed
from tests.e2e.platform import Client, Platform
from tests.e2e.test_refusals import check_problem, check_tells_nothing
from tests.e2e.world import OPEN, PLAIN, STRICT

PAIRS = list(permutations((OPEN, STRICT, PLAIN), 2))
each_pair = pytest.mark.parametrize(("asked_for", "named"), PAIRS)


@pytest.fixture
def untouched(echo: Echo) -> Iterator[None]:
    """Check that no request of the test reaches the service."""
    before = echo.requests
    yield
    assert echo.requests == before


def _authorities(host: str, port: int) -> list[str]:
    return [host, host.upper(), f"{host}:{port}", f"{host.title()}:{port}", f"{host}:443", f"{host}."]


@each_pair
def test_host_names_another_host(platform: Platform, untouched, feed: Feed, payments: Client, asked_for, named):
    """A connection for one host gets 421 for another, however its name is written, and goes on to serve its own."""
    with Connection(platform, asked_for, payments.files) as connection:
        for authority in _authorities(named, platform.gateway):
            response = connection.request(host=authority)
            id_ = check_problem(response, 421, Reason.REQUEST_MISDIRECTED)
            check_tells_nothing(response)
            event = feed.find(kind="request.denied", id=id_)
            assert (event["reason"], event["host"]) == (Reason.REQUEST_MISDIRECTED, asked_for)


@each_pair
def test_an_absolute_target_names_another_host(platform: Platform, untouched, payments: Client, asked_for, named):
    """A target in absolute form (RFC 9112 section 3.2.2) counts before Host, and is as little believed."""
    with Connection(platform, asked_for, payments.files) as connection:
        for authority in _authorities(named, platform.gateway):
            response = connection.request(f"https://{authority}/", host=asked_for)
            check_problem(response, 421, Reason.REQUEST_MISDIRECTED)


@each_pair
def test_authority_names_another_host(platform: Platform, untouched, payments: Client, asked_for, named):
    """Over HTTP/2 the same holds for :authority, which browsers that share a connection send."""
    for authority in _authorities(named, platform.gateway)[:4]:
        response = curl(platform, f"{asked_for}/", "--http2", "-H", f"Host: {authority}", files=payments.files)
        check_problem(response, 421, Reason.REQUEST_MISDIRECTED)


@pytest.mark.parametrize(
    "named", ["elsewhere.test", "127.0.0.1", "[::1]", "localhost", "xopen.example.org", "example.org"]
)
def test_an_unknown_host_is_misdirected(platform: Platform, untouched, payments: Client, named):
    """What no connection is made for is served on none."""
    with Connection(platform, OPEN, payments.files) as connection:
        check_problem(connection.request(host=named), 421, Reason.REQUEST_MISDIRECTED)


def test_two_hosts_are_none(platform: Platform, untouched, payments: Client):
    """A request with two Host lines is malformed (RFC 9112 section 3.2): neither of them is picked."""
    with Connection(platform, OPEN, payments.files) as connection:
        assert connection.request(headers=[("Host", STRICT)]).status in {400, 421}


def test_without_a_certificate_misdirected_tells_no_more(platform: Platform, untouched):
    """One who asks for a strict host over an open one's connection, without a certificate, learns nothing of its routes."""
    with Connection(platform, OPEN) as connection:
        for path in ("/", "/health", "/no/such"):
            check_problem(connection.request(path, host=STRICT), 421, Reason.REQUEST_MISDIRECTED)


@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_its_own_host_in_any_spelling_is_served(platform: Platform, payments: Client, host):
    """Case and port do not make another host of the one that the connection was made for."""
    with Connection(platform, host, payments.files) as connection:
        for authority in (host, host.upper(), f"{host}:{platform.gateway}"):
            assert connection.request(host=authority).status == 200
            assert connection.request(f"https://{authority}/", host="ignored.test").status == 200
    assert curl(platform, f"{host}/", "--http2", "-H", f"Host: {host.upper()}", files=payments.files).status == 200
