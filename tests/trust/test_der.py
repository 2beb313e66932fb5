from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust import der


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(0, "020100"), (127, "02017f"), (128, "02020080"), (256, "02020100"), (0x80 << 8, "0203008000")],
)
def test_an_integer_takes_the_fewest_octets_that_keep_its_sign(number: int, wanted: str):
    """Integers are as X.690 section 8.3 has them."""
    assert der.integer(number).hex() == wanted


def test_a_negative_number_is_refused():
    """No field of ours is negative."""
    with pytest.raises(BadInput, match="negative"):
        der.integer(-1)


@given(st.integers(0, 2**200))
def test_an_integer_reads_back_as_itself(number: int):
    """The octets are the number, and the first one shows its sign."""
    octets = der.integer(number)[2:]
    assert int.from_bytes(octets, "big", signed=True) == number


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000])
def test_a_length_is_in_its_shortest_form_and_reads_back(size: int):
    """What is written with any length is taken apart into the same."""
    inner = der.octet_string(bytes(size))
    assert der.children(der.sequence(inner, inner)) == (inner, inner)


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**40), min_size=1, max_size=8))
def test_an_object_identifier_is_what_the_library_writes(first: int, second: int, rest: list[int]):
    """Object identifiers agree with an extended key usage that holds one."""
    dotted = ".".join(map(str, (first, second, *rest)))
    oracle = x509.ExtendedKeyUsage([x509.ObjectIdentifier(dotted)]).public_bytes()
    assert der.sequence(der.oid(dotted)) == oracle


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        (datetime(1950, 1, 1, tzinfo=UTC), b"\x17\x0d500101000000Z"),
        (datetime(2049, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), b"\x17\x0d491231235959Z"),
        (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
        (datetime(2050, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), b"\x17\x0d491231230000Z"),
    ],
)
def test_time_is_utctime_through_2049_and_generalizedtime_after(moment: datetime, wanted: bytes):
    """The two kinds of Time change places at the start of 2050, in UTC."""
    assert der.time(moment) == wanted


def test_time_before_1950_is_refused():
    """UTCTime would read as a hundred years later."""
    with pytest.raises(BadInput, match="1950"):
        der.time(datetime(1949, 12, 31, tzinfo=UTC))


def test_an_extension_leaves_out_the_critical_flag_where_it_is_false():
    """DER writes no default value."""
    plain, critical = der.extension("2.5.29.17", b"x"), der.extension("2.5.29.17", b"x", critical=True)
    assert len(der.children(plain)) == 2
    assert der.children(critical)[1] == b"\x01\x01\xff"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\x00\x00",
        b"\x30\x81\x01\x00",
        b"\x30\x82\x00\x81" + bytes(0x81),
        b"\x04\x00",
        b"\x30\x00\x00",
        b"\x30\x02\x1f\x00",
        b"\x30\x84\xff\xff\xff\xff",
    ],
    ids=[
        "empty",
        "no length",
        "short",
        "indefinite",
        "long form",
        "leading zero",
        "primitive",
        "trailing",
        "tag",
        "huge",
    ],
)
def test_what_is_not_one_constructed_der_value_is_refused(data: bytes):
    """The reader takes apart DER alone."""
    with pytest.raises(BadInput):
        der.children(data)


def test_a_reader_that_stops_is_not_told_of_what_comes_after():
    """What is cut short behind the part that somebody wanted is found by those who read on."""
    first, broken = der.integer(1), b"\x04\x05x"
    parts = der.each(der.sequence(first, broken))
    assert next(parts) == first
    with pytest.raises(BadInput, match="cut short"):
        next(parts)


@pytest.mark.parametrize("size", [0, 1, 0x7F, 0x80, 0x100])
def test_a_value_holds_what_was_put_in(size: int):
    """Whatever its length is written like; what comes after it is none of it."""
    assert der.content(der.octet_string(bytes(size)) + b"more") == bytes(size)


@given(st.binary(max_size=200))
def test_taking_apart_gives_all_the_bytes_or_bad_input(data: bytes):
    """Whatever the bytes are, nothing is lost and nothing else is raised."""
    try:
        parts = der.children(data)
    except BadInput:
        return
    assert data.endswith(b"".join(parts))
    assert der.tlv(data[0], b"".join(parts)) == data
