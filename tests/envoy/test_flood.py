import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.events import HandshakeRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.envoy.access_log import read_row
from handfast.envoy.flood import ANYWHERE, MOST_PLACES, SHARE, TOLD_A_SECOND, Flood, Told, counted

ROWS = (Path(__file__).parents[1] / "vectors" / "in" / "access-log.jsonl").read_bytes().splitlines()
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
UNTRUSTED = (
    "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_"
    "X509_verify_cert:_certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"
)
PROTOCOL = "TLS_error:|268435696:SSL_routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end"


def failed(peer: str = "192.0.2.7", *, failure: str = UNTRUSTED, at: datetime = AT, **more: Any) -> bytes:
    """Give a row of a failed handshake, in the spelling of Envoy."""
    row = {"row": "connection", "start": at.isoformat(), "duration_ms": 0, "handshake_us": None, "failure": failure}
    host = f"[{peer}]" if ":" in peer else peer
    return json.dumps({**row, "peer": f"{host}:4711", **more}, separators=(",", ":")).encode()


def shown(told: list[Told]) -> list[tuple[int, str]]:
    return [(one.more, one.among) for one in told]


def full(flood: Flood, at: datetime = AT) -> None:
    """Let others take what a second tells of anybody."""
    assert shown(flood.thin([failed("203.0.113.9", at=at)] * TOLD_A_SECOND)) == [(0, "")] * TOLD_A_SECOND


def test_what_is_no_failed_handshake_passes():
    """Requests, good connections, and what is no row at all, in their order."""
    others = [row for row in ROWS if json.loads(row).get("handshake_us") or json.loads(row)["row"] == "request"]
    lines = [*others * 20, b"nonsense", b"", b'{"handshake_us":null}', b"\xff"]
    assert len(lines) > 2 * TOLD_A_SECOND
    assert Flood().thin(lines) == [Told(line) for line in lines]


def test_few_are_told_each():
    """Up to a number in a second, whoever they are from; and again in the next."""
    flood = Flood()
    for second in range(3):
        full(flood, AT + timedelta(seconds=second))


def test_real_rows_are_known():
    """Of what the real Envoy wrote, those that are read as failed handshakes are summed, and no others."""
    refused = [
        line
        for line in ROWS
        if isinstance(
            read_row(line, gateway="g", explain=lambda *_: Refusal(Reason.CERT_EXPIRED), event_id="e"), HandshakeRefused
        )
    ]
    assert len(refused) > 3
    for line in ROWS:
        flood = Flood()
        full(
            flood,
            datetime.fromisoformat(json.loads(line)["start"]) + timedelta(milliseconds=json.loads(line)["duration_ms"]),
        )
        assert (len(flood.thin([line] * 10)) == 1) == (line in refused)


def test_a_flood_is_one_record_with_a_count():
    """What one address adds to a full second with one reason is one row and a number."""
    flood = Flood()
    full(flood)
    (one,) = flood.thin([failed(bytes=number) for number in range(4212)])
    assert one == Told(failed(bytes=0), 4211, "192.0.2.7")


def test_others_keep_their_place():
    """Another address, and another reason of the same, are told as ever in the midst of a flood."""
    flood = Flood()
    full(flood)
    lines = [failed()] * 500 + [failed("192.0.2.8"), failed(failure=PROTOCOL)] + [failed()] * 500
    assert shown(flood.thin(lines)) == [(999, "192.0.2.7"), (0, ""), (0, "")]


def test_a_flood_of_addresses_is_its_network():
    """One who has many addresses shares what his network has; a row from elsewhere has its own record, with its certificate."""
    flood = Flood()
    full(flood)
    mine = [failed(f"198.51.100.{number}") for number in range(1, 250)]
    other = failed("192.0.2.99")
    told = flood.thin([*mine, other, *mine])
    assert other in [one.line for one in told if not one.more]
    assert (249 - MOST_PLACES - 1 + 249 - MOST_PLACES, "198.51.100.0/24") in shown(told)
    assert sum(1 + one.more for one in told) == 2 * 249 + 1


@pytest.mark.parametrize(
    ("peer", "alike", "among"),
    [
        ("2001:db8::1", "2001:db8:0:0:ffff::2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe80::/64"),
        ("nonsense", "-", ANYWHERE),
    ],
)
def test_an_address_of_ipv6_is_a_host_s_whole_range(peer: str, alike: str, among: str):
    """A host has a /64 to choose from. What is no address is one place."""
    flood = Flood()
    full(flood)
    assert shown(flood.thin([failed(peer), failed(alike)])) == [(1, among)]


def test_what_is_told_in_a_second_is_bounded():
    """However often the log is read in it: first the address has its share, then its network, then the reason."""
    flood = Flood()
    full(flood)
    among = Counter(one.among for _ in range(100) for one in flood.thin([failed()] * 10))
    assert among == {"192.0.2.7": SHARE, "192.0.2.0/24": SHARE, ANYWHERE: 100 - 2 * SHARE}
    many = Flood()
    told = [
        one
        for _ in range(10)
        for one in many.thin([failed(f"10.{high}.{low}.1") for high in range(20) for low in range(50)])
    ]
    assert len(told) <= TOLD_A_SECOND + 2 * SHARE * MOST_PLACES + 10
    assert sum(1 + one.more for one in told) == 10 * 20 * 50


def test_workers_may_overlap_and_a_clock_may_be_set_back():
    """A row of the second before gives no new allowance; one of an hour before does."""
    flood = Flood()
    full(flood)
    for early in range(5):
        assert len(flood.thin([failed(at=AT - timedelta(seconds=early))] * 10)) == 1
    full(flood, AT - timedelta(hours=1))


def test_the_end_counts():
    """A handshake fails when it ends, as the log is written then."""
    flood = Flood()
    full(flood)
    assert len(flood.thin([failed(duration_ms=1000)] * 10)) == 10


def test_a_stranger_s_name_is_no_end_of_a_handshake():
    """The key that is looked for cannot be written in a text."""
    finished = json.loads(failed()) | {"handshake_us": 7, "server_name": '","handshake_us":null,"'}
    line = json.dumps(finished, separators=(",", ":")).encode()
    flood = Flood()
    full(flood)
    assert flood.thin([line] * 3) == [Told(line)] * 3


def test_the_record_says_how_many():
    """The event of the row that is told has the number; other events, and rows that stand for themselves, stay as they are."""
    event = read_row(
        failed(), gateway="edge", explain=lambda *_: Refusal(Reason.CHAIN_UNKNOWN_AUTHORITY), event_id="e1"
    )
    assert isinstance(event, HandshakeRefused)
    assert counted(event, Told(b"")) is event
    more = counted(event, Told(b"", 4211, "192.0.2.7"))
    assert isinstance(more, HandshakeRefused)
    assert (more.more, more.among, more.reason) == (4211, "192.0.2.7", event.reason)


PEERS = st.sampled_from(["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "x", ""])
FAILED = st.builds(
    lambda peer, failure, ms: failed(peer, failure=failure, duration_ms=ms),
    PEERS,
    st.sampled_from([UNTRUSTED, PROTOCOL, "", "-"]) | st.text(max_size=40),
    st.integers(-1, 3000) | st.just(10**400),
)


@given(st.lists(st.lists(FAILED | st.sampled_from(ROWS) | st.binary(max_size=30), max_size=120), max_size=4))
def test_no_row_is_lost(batches: list[list[bytes]]):
    """Whatever stands in a log, each line is told or counted, once, and in order."""
    flood = Flood()
    for batch in batches:
        told = flood.thin(batch)
        assert sum(1 + one.more for one in told) == len(batch)
        rest = iter(batch)
        assert all(one.line in rest for one in told)


@given(st.binary(max_size=60).map(lambda junk: b'{"handshake_us":null,' + junk))
def test_whatever_it_reads_it_passes_on(line: bytes):
    """No line is a fault."""
    assert Flood().thin([line]) == [Told(line)]
