from collections.abc import Iterator
from itertools import islice, product

import pytest

from tests.e2e.clients import BOTH_VERSIONS, Connection, Seen, curl
from tests.e2e.platform import Client, Platform
from tests.e2e.world import OPEN, PLAIN, ROUTE_HEADERS, STRICT

GATEWAYS_OWN = ("Client-Cert", "Client-Cert-Chain", "X-Forwarded-Client-Cert", "X-Client-Identity", "X-Client-CN")
NAMES = (*GATEWAYS_OWN, *ROUTE_HEADERS)
CASES = (str.title, str.lower, str.upper, str.swapcase)
MARKS = ("-", "_", ".", "", "~", "+", "!")
"""What may stand where the name has a dash, in an RFC 9110 token, and what servers are known to fold into one name."""
FORGED = "forged-by-the-client"
HTTP_2 = "--http2"
MOST = 60
"""Headers a request: Envoy takes a hundred."""


def spellings(name: str) -> set[str]:
    """Give a name in every case, with every mark in place of its dashes, and with one dash replaced alone."""
    first, _, rest = name.partition("-")
    marked = {name.replace("-", mark) for mark in MARKS} | {f"{first}{mark}{rest}" for mark in MARKS}
    return {case(one) for case, one in product(CASES, marked)}


ALL = sorted(one for name in NAMES for one in spellings(name))


def batches(names: list[str], size: int = MOST) -> Iterator[list[tuple[str, str]]]:
    """Give forged headers, as many as go into one request."""
    left = iter(names)
    while batch := [(name, FORGED) for name in islice(left, size)]:
        yield batch


def check_unseen(seen: Seen) -> None:
    """Check that nothing of what was forged is there, under whatever name."""
    assert [(name, value) for name, value in seen.headers if FORGED in value] == []


@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_no_spelling_replaces_or_joins_a_true_identity(platform: Platform, payments: Client, host):
    """With a certificate, each identity header has the true value once, however many others the client sent."""
    with Connection(platform, host, payments.files) as connection:
        for batch in batches(ALL):
            seen = Seen(connection.request(headers=batch))
            check_unseen(seen)
            assert seen.one("x-client-identity") == "spiffe://example.org/payments"
            assert seen.one("x-client-cn") == "payments"
            assert seen.one("client-cert").startswith(":")
            assert seen.one("x-forwarded-client-cert").startswith("By=")
            assert not seen.named("client-cert-chain")


@pytest.mark.parametrize("host", [OPEN, PLAIN])
def test_no_spelling_makes_an_identity_out_of_nothing(platform: Platform, host):
    """Without a certificate no identity header arrives, where one is optional or not asked for."""
    with Connection(platform, host) as connection:
        for batch in batches(ALL):
            seen = Seen(connection.request("/health", headers=batch))
            check_unseen(seen)
            folded = {name.lower().translate({ord(mark): "" for mark in "-_.~+!"}) for name, _ in seen.headers}
            assert folded.isdisjoint(name.lower().replace("-", "") for name in NAMES)


@pytest.mark.parametrize("with_certificate", [True, False])
def test_http_2_is_no_way_around(platform: Platform, payments: Client, with_certificate):
    """The same holds over HTTP/2, where names are in lower case."""
    names = sorted({name.lower() for name in ALL})
    for batch in batches(names):
        options = [word for name, value in batch for word in ("-H", f"{name}: {value}")]
        seen = Seen(
            curl(platform, f"{OPEN}/health", HTTP_2, *options, files=payments.files if with_certificate else None)
        )
        check_unseen(seen)
        assert len(seen.named("x-client-identity")) == with_certificate


@pytest.mark.parametrize("host", [OPEN, PLAIN])
@pytest.mark.parametrize("name", NAMES)
def test_repetition_is_no_way_around(platform: Platform, host, name):
    """A name that comes five times, in five spellings, is taken out five times."""
    headers = [(case(name), f"{FORGED}-{at}") for at, case in enumerate((*CASES, str.title))]
    with Connection(platform, host) as connection:
        seen = Seen(connection.request("/health", headers=headers))
    check_unseen(seen)
    assert not seen.named(name)


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
def test_a_client_cannot_have_true_headers_taken_out(platform: Platform, payments: Client, tls):
    """'Connection' names hop-by-hop headers (RFC 9110 section 7.6.1): it does not take out what the gateway sets."""
    nominated = ", ".join(["close", *GATEWAYS_OWN, "X-Peer-Name", "X-Request-Id"])
    with Connection(platform, OPEN, payments.files, tls) as connection:
        seen = Seen(connection.request(headers=[("Connection", nominated)]))
    assert seen.one("x-client-identity") == "spiffe://example.org/payments"
    assert seen.one("x-peer-name") == "payments"
    assert seen.one("client-cert")


def test_a_folded_line_carries_nothing_in(platform: Platform):
    """A header that goes on in the next line (RFC 9112 section 5.2) stays the value of the header that it belongs to."""
    with Connection(platform, OPEN) as connection:
        response = connection.request("/health", headers=[("X-Note", f"one\r\n X-Client-Identity: {FORGED}")])
    assert response.status == 400 or not Seen(response).named("x-client-identity")


def test_a_space_before_the_colon_is_malformed(platform: Platform):
    """'X-Client-Identity : x' is refused (RFC 9112 section 5.1), as servers read it in two ways."""
    with Connection(platform, OPEN) as connection:
        assert connection.request("/health", headers=[("X-Client-Identity ", FORGED)]).status == 400


def test_trailers_carry_nothing_in(platform: Platform, payments: Client):
    """A trailer section cannot add an identity after the headers were looked at."""
    body = f"1\r\nx\r\n0\r\nX-Client-Identity: {FORGED}\r\nX-Client-CN: {FORGED}\r\n"
    with Connection(platform, OPEN, payments.files) as connection:
        headers = [("Trailer", "X-Client-Identity"), ("Transfer-Encoding", f"chunked\r\n\r\n{body}".rstrip("\r\n"))]
        seen = Seen(connection.request("/", "POST", headers=headers))
    check_unseen(seen)
    assert seen.one("x-client-identity") == "spiffe://example.org/payments"


def test_other_headers_stay(platform: Platform, payments: Client):
    """Only identity headers are taken out: those that are merely like one arrive."""
    kept = [
        ("X-Client-Id", "1"),
        ("X-Client-CN-Note", "2"),
        ("Client-Certificate", "3"),
        ("My-X-Client-CN", "4"),
        ("X-Peer", "5"),
    ]
    with Connection(platform, OPEN, payments.files) as connection:
        seen = Seen(connection.request(headers=kept))
    assert [seen.one(name) for name, _ in kept] == ["1", "2", "3", "4", "5"]
