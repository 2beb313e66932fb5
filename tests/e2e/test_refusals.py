import re
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.reasons import Reason
from tests.e2e.clients import BOTH_VERSIONS, Connection, Response, Seen, curl
from tests.e2e.echo import Echo
from tests.e2e.feed import Feed
from tests.e2e.hostile import AT_HTTP
from tests.e2e.platform import Client, Platform, serial_of
from tests.e2e.world import OPEN, STRICT
from tests.support.pki import Pki

REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
each_case = pytest.mark.parametrize("case", AT_HTTP.values(), ids=AT_HTTP)


def check_problem(response: Response, status: int, code: Reason) -> str:
    """Check that an answer is a problem document (RFC 9457) and no more than that; give its request id."""
    assert response.status == status, response.body
    assert response.one("content-type") == "application/problem+json"
    problem = response.plain
    assert sorted(problem) == ["code", "request_id", "status", "title", "type"]
    assert (problem["code"], problem["type"], problem["status"]) == (code, f"urn:handfast:{code}", status)
    assert REQUEST_ID.fullmatch(problem["request_id"])
    assert response.one("x-request-id") == problem["request_id"]
    return str(problem["request_id"])


def check_tells_nothing(response: Response, *secrets: object) -> None:
    """Check that an answer names nothing of what is behind it."""
    inside = ("envoy", "127.0.0.1", "localhost", "upstream", "cluster", "lua", "spiffe:", "local", ".pem")
    assert [word for word in (*inside, *map(str, secrets)) if word in response.text.lower()] == []


@pytest.mark.parametrize("http", ["--http1.1", "--http2"])
def test_no_certificate_where_one_is_optional(platform: Platform, echo: Echo, feed: Feed, http):
    """Without a certificate a client reads why in a problem document with a request id, and learns nothing of the inside."""
    before = echo.requests
    response = curl(platform, f"{OPEN}/ledger?secret=1", http)
    id_ = check_problem(response, 403, Reason.CLIENT_NO_CERTIFICATE)
    check_tells_nothing(response, echo.port, platform.gateway)
    assert echo.requests == before
    event = feed.find(kind="request.denied", id=id_)
    assert (event["reason"], event["host"], event["route"], event["path"]) == (
        "client.no-certificate",
        OPEN,
        "/",
        "/ledger",
    )
    assert event["identity"] == ""
    assert "secret" not in str(event)


def test_what_anyone_may_see_anyone_sees(platform: Platform):
    """A route for anyone needs no certificate where one is optional."""
    assert curl(platform, f"{OPEN}/health").status == 200


@each_case
@pytest.mark.parametrize("host", [OPEN, STRICT])
def test_a_certificate_that_is_not_fit_is_refused_before_the_service(
    platform: Platform, echo: Echo, feed: Feed, hostile: Pki, tmp_path: Path, case, host
):
    """A certificate of ours that is not fit gets 403 with its reason on every route, and the service never hears of it."""
    files, before = case.files(platform, hostile, tmp_path), echo.requests
    for tls in BOTH_VERSIONS:
        with Connection(platform, host, files, tls) as connection:
            for path in ("/", "/health", "/trial", "/no/such/path", "/.well-known/jwks.json"):
                response = connection.request(path)
                id_ = check_problem(response, 403, case.reason)
                check_tells_nothing(response, echo.port)
                event = feed.find(kind="request.denied", id=id_)
                assert (event["reason"], event["peer"]) == (case.reason, connection.peer.address)
    assert echo.requests == before


@each_case
def test_explain_shows_the_certificate_that_is_not_fit(
    platform: Platform, feed: Feed, hostile: Pki, tmp_path: Path, case
):
    """The explanation of the id that the client got has reason, side, hint and the certificate."""
    files = case.files(platform, hostile, tmp_path)
    with Connection(platform, OPEN, files) as connection:
        id_ = connection.request().plain["request_id"]
    feed.find(id=id_)
    told = platform.explanation(id_)
    leaf = x509.load_pem_x509_certificates(files.chain.read_bytes())[0]
    shown = (case.reason, case.reason.summary, case.reason.side, case.reason.hint, "CN=payments", serial_of(leaf), OPEN)
    assert [str(text) for text in shown if str(text) not in told] == []


def test_an_identity_that_no_rule_allows(platform: Platform, echo: Echo, feed: Feed):
    """Another identity of the same authority is refused, and 'explain' names the nearest rules and what they lack."""
    before = echo.requests
    response = curl(platform, f"{OPEN}/ledger", files=platform.issue("paymentz").files)
    id_ = check_problem(response, 403, Reason.POLICY_NO_MATCH)
    check_tells_nothing(response, "payments", "reports", "staff")
    assert echo.requests == before
    assert feed.find(id=id_)["identity"] == "spiffe://example.org/paymentz"
    told = platform.explain(id_)
    nearest, *others = [line.strip() for line in told.splitlines() if line.strip().startswith("allow ")]
    assert nearest == "allow    payments: method matches; identity paymentz is not payments"
    assert len(others) == 2
    assert "GET /ledger on open.example.org" in told


def test_a_method_that_no_rule_allows(platform: Platform, echo: Echo, feed: Feed, reports: Client):
    """An identity is refused a method that its rule does not have, and 'explain' says which it has."""
    before = echo.requests
    with Connection(platform, OPEN, reports.files) as connection:
        id_ = check_problem(connection.request("/ledger", "DELETE"), 403, Reason.POLICY_NO_MATCH)
    assert echo.requests == before
    feed.find(id=id_)
    assert "reports GET, HEAD: identity matches; method DELETE is not among GET, HEAD" in platform.explain(id_)


def test_a_deny_is_named(platform: Platform, feed: Feed):
    """A request that a deny stops is refused with another code, and 'explain' names the deny first."""
    id_ = check_problem(
        curl(platform, f"{OPEN}/", files=platform.issue("staff/mallory").files), 403, Reason.POLICY_DENIED
    )
    feed.find(id=id_)
    weighed = [
        line.split()[0]
        for line in platform.explanation(id_).splitlines()
        if line.strip().startswith(("allow ", "deny "))
    ]
    assert weighed[0] == "deny"


@pytest.mark.parametrize("path", ["/down", "/down/below?x=1"])
def test_a_service_that_is_down_is_not_given_away(platform: Platform, feed: Feed, nothing: int, path):
    """When the service does not answer, a client learns that and no address; the record has the reason."""
    response = curl(platform, f"{OPEN}{path}")
    id_ = check_problem(response, 503, Reason.UPSTREAM_UNAVAILABLE)
    text = response.text.lower()
    assert [word for word in ("envoy", "127.0.0.1", "refused", "reset", "connect", str(nothing)) if word in text] == []
    assert feed.find(kind="request.denied", id=id_)["reason"] == "upstream.unavailable"


@pytest.mark.parametrize(
    "path", ["/health%2fledger", "/health/%5c..%2f", "/health/..%2Fledger", "/health/%2e%2e;x/ledger"]
)
def test_an_ambiguous_path_is_refused(platform: Platform, echo: Echo, feed: Feed, payments: Client, path):
    """A path that two programs may read in two ways is answered 400 and recorded, and does not reach the service."""
    before = echo.requests
    with Connection(platform, OPEN, payments.files) as connection:
        response = connection.request(path)
    assert (response.status, response.plain["code"]) == (400, Reason.REQUEST_REJECTED)
    assert response.one("content-type") == "application/problem+json"
    check_tells_nothing(response, echo.port)
    assert echo.requests == before
    assert feed.find(kind="request.denied", by=connection.peer)["reason"] == Reason.REQUEST_REJECTED


BORROWED = (
    "/health/../ledger",
    "/health/%2e%2e/ledger",
    "/health/..;/ledger",
    "/health/..;x=1/ledger",
    "//ledger",
    "/./ledger",
    "/healthy",
)


@pytest.mark.parametrize("path", BORROWED)
def test_a_path_cannot_borrow_anothers_rules(platform: Platform, echo: Echo, path):
    """Dots, their escapes and parameters, doubled slashes and likeness do not make one route's path out of another's."""
    before = echo.requests
    with Connection(platform, OPEN) as connection:
        check_problem(connection.request(path), 403, Reason.CLIENT_NO_CERTIFICATE)
    assert echo.requests == before


@pytest.mark.parametrize("path", BORROWED[:4])
def test_the_service_sees_the_path_that_was_decided_on(platform: Platform, payments: Client, path):
    """What the service is asked for is the path that the rules were held against, with nothing left to be read in two ways."""
    with Connection(platform, OPEN, payments.files) as connection:
        assert Seen(connection.request(path)).request == "GET /ledger HTTP/1.1"


def test_report_mode_lets_pass_and_records(platform: Platform, feed: Feed, payments: Client, reports: Client):
    """A route in report mode lets pass what it would refuse, records it as reported, and records nothing else."""
    with Connection(platform, OPEN, payments.files) as refused, Connection(platform, OPEN, reports.files) as allowed:
        assert refused.request("/trial/it").status == 200
        assert allowed.request("/trial/it").status == 200
        event = feed.find(kind="request.reported", by=refused.peer)
        assert (event["reason"], event["path"], event["status"]) == ("policy.no-match", "/trial/it", 200)
        assert event["identity"] == "spiffe://example.org/payments"
        feed.find(id=refused.request("/none", "TRACE").plain.get("request_id", event["id"]))
        assert feed.of(allowed.peer) == []
    assert "let pass" in platform.explanation(event["id"])


def test_report_mode_reports_those_without_a_certificate(platform: Platform, feed: Feed):
    """Report mode lets pass a client without a certificate, which the service sees as nobody."""
    with Connection(platform, OPEN) as connection:
        assert connection.request("/trial").status == 200
        assert feed.find(kind="request.reported", by=connection.peer)["reason"] == "client.no-certificate"
