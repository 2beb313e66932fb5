import base64
from datetime import UTC

import pytest
from cryptography import x509

from handfast.trust.facts import facts
from tests.e2e.clients import BOTH_VERSIONS, Connection, Seen, curl
from tests.e2e.platform import Client, Platform
from tests.e2e.world import OPEN, PLAIN, ROUTE_HEADERS, STRICT

HTTP_VERSIONS = ("--http1.1", "--http2")


@pytest.mark.parametrize("tls", BOTH_VERSIONS)
@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_an_allowed_identity_is_let_in(platform: Platform, payments: Client, host, tls):
    """An allowed identity reaches the service, in both versions of TLS, whether a certificate is optional or required."""
    with Connection(platform, host, payments.files, tls) as connection:
        seen = Seen(connection.request("/ledger?month=3", "POST"))
    assert seen.request == "POST /ledger?month=3 HTTP/1.1"
    assert seen.one("x-client-identity") == "spiffe://example.org/payments"


@pytest.mark.parametrize("http", HTTP_VERSIONS)
def test_client_cert_is_the_certificate(platform: Platform, payments: Client, http):
    """Client-Cert is the leaf's DER as RFC 9440 section 2.2 writes it: a byte sequence between colons."""
    value = Seen(curl(platform, f"{OPEN}/", http, files=payments.files)).one("client-cert")
    assert value[0] == value[-1] == ":"
    assert base64.b64decode(value[1:-1], validate=True) == payments.der
    assert x509.load_der_x509_certificate(base64.b64decode(value[1:-1])) == payments.leaf


def test_forwarded_client_cert_names_the_client(platform: Platform, payments: Client):
    """X-Forwarded-Client-Cert has the gateway's id, the certificate's hash, its subject, URI and DNS names."""
    value = Seen(curl(platform, f"{STRICT}/", files=payments.files)).one("x-forwarded-client-cert")
    fields = [part.partition("=")[::2] for part in value.split(";")]
    assert fields == [
        ("By", "spiffe://example.org/handfast/gateway/local"),
        ("Hash", payments.fingerprint),
        ("Subject", f'"{facts(payments.der).subject}"'),
        ("URI", "spiffe://example.org/payments"),
        ("DNS", "payments.internal"),
    ]


@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_simple_headers_name_the_client(platform: Platform, payments: Client, host):
    """X-Client-Identity and X-Client-CN come without being asked for, once each."""
    seen = Seen(curl(platform, f"{host}/", files=payments.files))
    assert seen.one("x-client-identity") == "spiffe://example.org/payments"
    assert seen.one("x-client-cn") == "payments"


def test_a_route_names_headers_of_its_own(platform: Platform, payments: Client):
    """Each field that a route can name arrives under the route's own header."""
    seen = Seen(curl(platform, f"{OPEN}/", files=payments.files))
    read = facts(payments.der)
    assert {field: seen.one(name) for name, field in ROUTE_HEADERS.items()} == {
        "identity": "spiffe://example.org/payments",
        "name": "payments",
        "common-name": "payments",
        "subject": read.subject,
        "issuer": read.issuer,
        "serial": payments.serial,
        "fingerprint": payments.fingerprint,
        "dns": "payments.internal",
        "not-after": payments.leaf.not_valid_after_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def test_only_the_route_that_names_a_header_sets_it(platform: Platform, payments: Client):
    """Headers of one route do not appear on another."""
    seen = Seen(curl(platform, f"{STRICT}/", files=payments.files))
    assert [name for name in ROUTE_HEADERS if seen.named(name)] == []


@pytest.mark.parametrize("host", [OPEN, PLAIN])
def test_nobody_is_introduced_as_nobody(platform: Platform, host):
    """Where anyone may come, a client without a certificate arrives without any identity header."""
    seen = Seen(curl(platform, f"{host}/health"))
    names = ("client-cert", "x-forwarded-client-cert", "x-client-identity", "x-client-cn", *ROUTE_HEADERS)
    assert [name for name in names if seen.named(name)] == []


def test_a_host_that_asks_for_no_certificate_sees_none(platform: Platform, payments: Client):
    """With 'certificate: off' a client's certificate is not asked for, and so its identity is not told."""
    assert not Seen(curl(platform, f"{PLAIN}/", files=payments.files)).named("x-client-identity")


def test_the_request_arrives_whole(platform: Platform, payments: Client):
    """Method, query, body and headers that are no identity's reach the service as they were sent."""
    body = "amount=3" * 1000
    response = curl(
        platform, f"{OPEN}/a/b?c=d&e", "-X", "PUT", "-d", body, "-H", "X-Note: as it is", files=payments.files
    )
    assert response.plain["request"] == "PUT /a/b?c=d&e HTTP/1.1"
    assert response.plain["body"] == body
    assert Seen(response).one("x-note") == "as it is"


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("HEAD", 200), ("POST", 403), ("DELETE", 403)])
def test_methods_are_part_of_a_rule(platform: Platform, reports: Client, method, status):
    """An identity that may read may not write."""
    with Connection(platform, OPEN, reports.files) as connection:
        assert connection.request("/", method).status == status


def test_a_prefix_allows_all_below_it_and_a_deny_wins(platform: Platform):
    """'staff/*' lets staff in, but not the one whom a deny names."""
    alice, mallory = platform.issue("staff/alice"), platform.issue("staff/mallory")
    assert curl(platform, f"{OPEN}/", files=alice.files).status == 200
    assert curl(platform, f"{OPEN}/", files=mallory.files).plain["code"] == "policy.denied"
