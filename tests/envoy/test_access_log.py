import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.events import (
    ConnectionEnded,
    Event,
    HandshakeRefused,
    OfferedCertificate,
    RequestDenied,
    RequestReported,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.doctor.verdict import verdict
from handfast.envoy.access_log import (
    CONNECTION_FORMAT,
    LONGEST_ROW,
    REQUEST_FORMAT,
    _Row,
    read_row,
)
from handfast.envoy.failures import LONGEST_TEXT, FailureReport, recognise
from handfast.envoy.peer import MOST_NAMES, PEER
from handfast.trust.facts import pem_certificates

VECTORS = Path(__file__).parents[1] / "vectors" / "in"
ROWS = (VECTORS / "access-log.jsonl").read_bytes().splitlines()
AUTHORITIES = pem_certificates((VECTORS / "access-log-authorities.pem").read_text())
MEASURED_AT = datetime(2026, 11, 21, 4, 20, tzinfo=UTC)
PAYMENTS = "spiffe://example.org/payments"


def words_alone(report: FailureReport, _pem: str) -> Refusal:
    return Refusal(recognise(report))


def read(line: bytes) -> Event | None:
    return read_row(line, gateway="gw", explain=words_alone, event_id="e1")


def read_fields(row: str, **fields: object) -> Event | None:
    return read(json.dumps({"row": row, "start": "2026-11-21T04:00:00.000Z", **fields}).encode())


def connection(**fields: object) -> ConnectionEnded:
    event = read_fields("connection", handshake_us=900, **fields)
    assert isinstance(event, ConnectionEnded)
    return event


def denied(**fields: object) -> RequestDenied:
    event = read_fields("request", **fields)
    assert isinstance(event, RequestDenied)
    return event


def test_real_rows_keep_their_meaning(golden: Callable[[str, str], None]):
    """Each row that a real Envoy wrote gives the event that it gave when somebody last looked."""
    explain = partial(verdict, known_cas=AUTHORITIES, now=MEASURED_AT)
    events = [read_row(row, gateway="gw", explain=explain, event_id="e1") for row in ROWS]
    lines = [msgspec.json.encode({"kind": event.kind, **asdict(event)} if event else None).decode() for event in events]
    golden("events.jsonl", "\n".join(lines) + "\n")


@pytest.mark.parametrize("row_format", [CONNECTION_FORMAT, REQUEST_FORMAT])
def test_nothing_is_asked_for_in_vain(row_format: dict[str, str]):
    """Every key of the formats is one that the reader has."""
    assert set(row_format) <= set(_Row.__struct_fields__)


def test_no_key_material_and_no_query_is_asked_for():
    """The formats name no header but method and request id, and the path without its query."""
    operators = " ".join([*CONNECTION_FORMAT.values(), *REQUEST_FORMAT.values()])
    assert operators.count("%REQ(") == 2
    assert "%PATH(NQ:PATH)%" in operators


def test_a_handshake_without_an_end_is_refused():
    """A row with a TLS version, no failure and no finished handshake is no connection."""
    event = read_fields("connection", tls_version="TLSv1.3", handshake_us=None)
    assert isinstance(event, HandshakeRefused)
    assert event.reason is Reason.HANDSHAKE_CLOSED


@pytest.mark.parametrize(("handshake_us", "kind"), [(900, ConnectionEnded), (None, HandshakeRefused)])
def test_a_failure_after_the_handshake_is_no_failed_handshake(handshake_us: int | None, kind: type[Event]):
    """Envoy names one there, too: what counts is whether the handshake has an end."""
    failure = "TLS_error:|1:SSL_routines:OPENSSL_internal:BAD_ALERT"
    assert type(read_fields("connection", handshake_us=handshake_us, flags="DPE", failure=failure)) is kind


def test_what_is_told_of_failed_handshakes_alone_is_a_number_elsewhere():
    """There Envoy stops at the handshake's duration; it is taken for no text of a certificate."""
    told = {word: "x" for word, command in CONNECTION_FORMAT.items() if "COALESCE" in command}
    assert set(told) == {*PEER, "pem"} - {"fingerprint", "uri_sans"}
    good = connection(fingerprint="ab", uri_sans=PAYMENTS, **dict.fromkeys(told, 41))
    assert good.certificate == OfferedCertificate(fingerprint="ab", uri_sans=(PAYMENTS,))
    odd = read_fields("connection", fingerprint="ab", **dict.fromkeys(told, 41))
    assert isinstance(odd, HandshakeRefused)
    assert odd.certificate == OfferedCertificate(fingerprint="ab")


def test_an_event_is_dated_at_its_end():
    """A connection that ran for a minute and a half ended then."""
    assert connection(duration_ms=90_000).at == datetime(2026, 11, 21, 4, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize("absent", [None, "-", ""])
def test_absent_is_empty(absent: str | None):
    """Null, a dash and nothing at all all mean that there is no such thing."""
    event = connection(server_name=absent, fingerprint=absent, uri_sans=absent, flags=absent)
    assert (event.server_name, event.certificate, event.identity) == ("", None, "")


@pytest.mark.parametrize(
    ("sans", "identity"),
    [
        (PAYMENTS, PAYMENTS),
        (f"{PAYMENTS},spiffe://example.org/admin", ""),
        ("spiffe://example.org/two;By=evil,URI=spiffe://example.org/admin", ""),
        ("https://example.org/payments", ""),
        ("spiffe://example.org/" + "a" * 2048, ""),
        ("spiffe://example.org/" + "a" * 1500, "spiffe://example.org/" + "a" * 1500),
    ],
)
def test_an_identity_is_one_whole_spiffe_id(sans: str, identity: str):
    """Several names, a name with a comma, no SPIFFE id, or one that is too long are no identity, and none is cut to another."""
    assert connection(uri_sans=sans, fingerprint="ab").identity == identity
    assert denied(code="policy.denied", identity=sans).identity == identity


def test_where_others_authorities_count_a_certificate_names_nobody():
    """A partner's CA may write any SPIFFE id: at such a host only the access check's word is an identity."""
    rows = [
        {"row": "connection", "handshake_us": 900, "fingerprint": "ab"},
        {"row": "request", "code": "policy.denied", "status": 403},
    ]
    for row in rows:
        line = json.dumps(
            {"start": "2026-11-21T04:00:00Z", "filter_chain": "api", "uri_sans": PAYMENTS, **row}
        ).encode()
        for partners_at, identity in ((set(), PAYMENTS), ({"api"}, "")):
            event = read_row(line, gateway="gw", explain=words_alone, event_id="e1", partners_at=partners_at)
            assert isinstance(event, ConnectionEnded | RequestDenied)
            assert event.identity == identity
    checked = denied(filter_chain="api", code="policy.denied", identity=PAYMENTS)
    assert checked.identity == PAYMENTS


def test_names_are_bounded_in_number_and_length():
    """A certificate with a hundred names does not make a record of a hundred names."""
    event = connection(fingerprint="ab", uri_sans=",".join(["n" * 2000] * 100))
    assert event.certificate is not None
    assert len(event.certificate.uri_sans) == MOST_NAMES
    assert {len(name) for name in event.certificate.uri_sans} == {LONGEST_TEXT}


def test_a_name_cannot_write_to_a_terminal():
    """Control characters and marks that turn text around are replaced."""
    event = read_fields("connection", server_name="a\x1b[2J\u202eb")
    assert isinstance(event, HandshakeRefused)
    assert event.server_name == "a\ufffd[2J\ufffdb"


def test_the_certificate_of_a_refused_client_is_read_here():
    """Names come from the certificate itself, where Envoy's joined text could be taken apart wrongly."""
    row = next(json.loads(row) for row in ROWS if json.loads(row).get("pem"))
    event = read(json.dumps({**row, "uri_sans": "spiffe://example.org/forged", "subject": "CN=forged"}).encode())
    assert isinstance(event, HandshakeRefused)
    assert event.certificate is not None
    assert (event.certificate.uri_sans, event.certificate.subject) == ((PAYMENTS,), "CN=payments")


def test_a_certificate_that_cannot_be_read_here_keeps_what_envoy_read():
    """Damaged PEM is no reason to lose the row."""
    event = read_fields(
        "connection", pem="-----BEGIN%20CERTIFICATE-----", fingerprint="ab", subject="CN=x", chain_serials="01,02"
    )
    assert isinstance(event, HandshakeRefused)
    assert event.certificate is not None
    assert (event.certificate.subject, event.certificate.chain_length) == ("CN=x", 2)


def test_the_explainer_sees_report_and_certificate():
    """What explains a failure gets Envoy's whole report and the PEM without its escapes."""
    seen = []

    def explain(report: FailureReport, pem: str) -> Refusal:
        seen.append((report, pem))
        return Refusal(Reason.CERT_EXPIRED, {"expired": "1 day ago\x07"})

    row = {
        "row": "connection",
        "start": "2026-11-21T04:00:00Z",
        "pem": "a%0Ab",
        "failure": "TLS_x",
        "chain_serials": "1,2,3",
    }
    event = read_row(json.dumps(row).encode(), gateway="gw", explain=explain, event_id="e1")
    assert seen == [(FailureReport(failure="TLS_x", chain_length=3), "a\nb")]
    assert isinstance(event, HandshakeRefused)
    assert (event.reason, event.evidence, event.raw) == (Reason.CERT_EXPIRED, {"expired": "1 day ago\ufffd"}, "TLS_x")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": 403, "code": "policy.denied"}, Reason.POLICY_DENIED),
        ({"status": 403, "code": "a.code-from-tomorrow"}, Reason.GATEWAY_FAULT),
        ({"status": 503, "flags": "UF,URX"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"status": 503, "flags": "UH"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"status": 503, "flags": "NC"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"status": 504, "flags": "UT"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"status": 0, "flags": "UC"}, Reason.UPSTREAM_UNAVAILABLE),
        ({"status": 400, "flags": "DPE", "details": "http1.codec_error"}, Reason.REQUEST_REJECTED),
        ({"status": 0, "flags": "DPE", "details": "http2.violation.of.messaging.rule"}, Reason.REQUEST_REJECTED),
        ({"status": 400, "flags": "-", "details": "path_normalization_failed"}, Reason.REQUEST_REJECTED),
        ({"status": 431, "flags": "DPE", "details": "http1.headers_too_large"}, Reason.REQUEST_REJECTED),
        ({"status": 404, "flags": "NR", "details": "route_not_found"}, Reason.REQUEST_NO_ROUTE),
        ({"status": 421, "details": "direct_response"}, Reason.REQUEST_MISDIRECTED),
        ({"status": 500, "details": "something_of_envoy_s_own"}, Reason.GATEWAY_FAULT),
    ],
)
def test_why_a_request_was_refused(fields: dict[str, Any], reason: Reason):
    """The access check's word counts first, then the service's absence, then Envoy's own refusal."""
    assert denied(**fields).reason is reason


@pytest.mark.parametrize(
    "fields",
    [
        {"status": 200, "details": "via_upstream"},
        {"status": 404, "details": "via_upstream"},
        {"status": 503, "details": "via_upstream", "flags": "-"},
        {"status": 0, "flags": "DC", "details": "downstream_remote_disconnect"},
        {"status": 304, "details": "via_upstream", "flags": "UC"},
    ],
)
def test_what_nobody_refused_is_no_event(fields: dict[str, Any]):
    """A service's own answer, good or bad, and a client that went away are not refusals of the gateway."""
    assert read_fields("request", **fields) is None


def test_report_mode_is_an_event_of_its_own():
    """A request that was let pass in report mode is reported, not denied; without a word of the check there is none."""
    assert type(read_fields("request", code="policy.no-match", mode="report", status=200)) is RequestReported
    assert type(read_fields("request", code="policy.no-match", mode="enforce", status=403)) is RequestDenied
    assert type(read_fields("request", code=None, mode="report", status=503, flags="UF")) is RequestDenied


@pytest.mark.parametrize("chosen", ["mine", "../../x", "G" * 36, "1234", None])
def test_a_client_cannot_choose_the_id_of_its_record(chosen: str | None):
    """Only ids in Envoy's own form are ids of events: another could be that of an event that exists."""
    assert denied(code="policy.denied", request_id=chosen).id == "e1"


def test_the_request_id_is_the_event_s_id():
    """The id that the client got leads to the record."""
    given_id = "fa13420d-6920-4df7-9a1f-dd52e2db909b"
    assert denied(code="policy.denied", request_id=given_id).id == given_id


def test_no_query_reaches_the_record():
    """Even where Envoy leaves a query in the path, it stays out."""
    assert denied(code="policy.denied", path="/a?token=1").path == "/a"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"row":"other","start":"2026-11-21T04:00:00Z"}',
        b'{"row":"connection"}',
        b'{"row":"connection","start":"yesterday"}',
        b'{"row":"connection","start":"2026-11-21T04:00:00"}',
        b'{"row":"connection","start":"2026-11-21T04:00:00Z","status":"many"}',
        b'{"row":"connection","start":"2026-11-21T04:00:00Z","x":' + b"[" * 100_000,
        b'{"row":"connection","start":"2026-11-21T04:00:00Z","x":"' + b"a" * LONGEST_ROW + b'"}',
    ],
)
def test_garbage_is_bad_input(line: bytes):
    """What is no row of ours says so."""
    with pytest.raises(BadInput):
        read(line)


def test_numbers_beyond_reason_are_bounded():
    """Neither a negative count, nor a huge one, nor the end of time is an error or a lie of another kind."""
    event = connection(duration_ms=-5, bytes_sent=2**70, bytes_received=-1)
    assert (event.duration_ms, event.bytes_received) == (0, 0)
    late = read(b'{"row":"connection","start":"9999-12-31T23:59:59Z","duration_ms":99999,"handshake_us":1}')
    assert late is not None
    assert late.at.year == 9999


def texts_of(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for item in value.items() for text in texts_of(item)]
        case list() | tuple():
            return [text for item in value for text in texts_of(item)]
        case _:
            return []


def assert_bounded(event: Event | None):
    for name, value in asdict(event).items() if event else ():
        most = 2048 if name == "identity" else LONGEST_TEXT
        assert all(len(text) <= most and text.isprintable() for text in texts_of(value)), name


def accepts(line: bytes):
    """Read a line as a gateway does; an event is bounded, and nothing but `BadInput` is raised."""
    explain = partial(verdict, known_cas=AUTHORITIES, now=MEASURED_AT)
    try:
        assert_bounded(read_row(line, gateway="gw", explain=explain, event_id="e1"))
    except BadInput:
        return


@given(st.binary(max_size=512))
def test_any_bytes_are_an_event_or_bad_input(line: bytes):
    """No line can do more harm than to be refused."""
    accepts(line)


@given(st.sampled_from(ROWS), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_rows_are_an_event_or_bad_input(row: bytes, changes: list[tuple[int, int]]):
    """A real row with some bytes changed, in its certificate too, gives an event, nothing, or `BadInput`."""
    damaged = bytearray(row)
    for at, octet in changes:
        damaged[at % len(damaged)] = octet
    accepts(bytes(damaged))


_VALUES = (
    st.none()
    | st.text()
    | st.integers()
    | st.text(min_size=1000, max_size=1100)
    | st.sampled_from(["-", "%", PAYMENTS])
)


@given(st.sampled_from(ROWS), st.dictionaries(st.sampled_from(_Row.__struct_fields__), _VALUES, max_size=6))
def test_rows_with_strange_values_are_an_event_or_bad_input(row: bytes, changes: dict[str, Any]):
    """A real row with other values in some of its fields gives a bounded event, nothing, or `BadInput`."""
    accepts(json.dumps({**json.loads(row), **changes}).encode())
