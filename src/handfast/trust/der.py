"""The few DER writers that a TBSCertificate and a TBSCertList need, and one reader that takes a value apart.

Decides how bytes are laid out (X.690, distinguished encoding). Refuses to know what they mean: that is `leaf` and
`revocation`. Everything written here is checked against the builders of `cryptography`, byte for byte, by the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

from handfast.base.refusal import BadInput

_BOOLEAN_TRUE = b"\x01\x01\xff"
_LONG_TAG = 0x1F


def tlv(tag: int, value: bytes) -> bytes:
    """Write tag, length and value (X.690 section 8.1; the shortest length, section 10.1)."""
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + value


def sequence(*parts: bytes) -> bytes:
    """Write a SEQUENCE of values that are DER already."""
    return tlv(0x30, b"".join(parts))


def integer(value: int, tag: int = 0x02) -> bytes:
    """Write an INTEGER that is not negative, in as few octets as keep its sign. Tag 0x0A makes it an ENUMERATED.

    Raises:
        BadInput: it is negative.
    """
    if value < 0:
        raise BadInput("a negative number has no place in a certificate")
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@lru_cache(maxsize=256)
def oid(dotted: str) -> bytes:
    """Write an OBJECT IDENTIFIER such as ``2.5.29.17`` (X.690 section 8.19)."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(0x06, b"".join(_base128(arc) for arc in (40 * first + second, *rest)))


def _base128(arc: int) -> bytes:
    octets = [arc & 0x7F]
    while arc := arc >> 7:
        octets.append(0x80 | arc & 0x7F)
    return bytes(reversed(octets))


@lru_cache(maxsize=256)  # what is made within one second begins and ends together
def time(moment: datetime) -> bytes:
    """Write a Time in whole seconds: UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5).

    Raises:
        BadInput: it lies before 1950, which UTCTime cannot say.
    """
    utc = moment.astimezone(UTC)
    if utc.year < 1950:
        raise BadInput("a certificate's time cannot lie before 1950")
    # No strftime: the C library does not pad the year alike everywhere.
    rest = f"{utc.month:02}{utc.day:02}{utc.hour:02}{utc.minute:02}{utc.second:02}Z"
    if utc.year < 2050:
        return tlv(0x17, f"{utc.year % 100:02}{rest}".encode())
    return tlv(0x18, f"{utc.year:04}{rest}".encode())


def octet_string(value: bytes) -> bytes:
    """Write an OCTET STRING."""
    return tlv(0x04, value)


def bit_string(value: bytes, unused: int = 0) -> bytes:
    """Write a BIT STRING whose last ``unused`` bits do not count."""
    return tlv(0x03, bytes((unused,)) + value)


def extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    """Write an Extension; ``value`` is its DER, ``critical`` is left out where it is false (RFC 5280 section 4.1)."""
    return sequence(oid(dotted), _BOOLEAN_TRUE if critical else b"", octet_string(value))


def children(value: bytes) -> tuple[bytes, ...]:
    """Take one constructed value apart: each value inside it, with its own tag and length.

    Raises:
        BadInput: it is not one whole constructed value of definite, shortest length, or what is inside is not whole.
    """
    return tuple(each(value))


def each(value: bytes) -> Iterator[bytes]:
    """Take one constructed value apart as `children` does, but no further than the caller reads.

    Raises:
        BadInput: as `children`, for what was read.
    """
    start, end = _span(value, 0)
    if not value[0] & 0x20 or end != len(value):
        raise BadInput("this is not one constructed DER value")
    while start < end:
        _, stop = _span(value, start)
        yield value[start:stop]
        start = stop


def content(value: bytes) -> bytes:
    """Give what one value holds, without its tag and length.

    Raises:
        BadInput: it does not begin with one whole value of definite, shortest length.
    """
    start, end = _span(value, 0)
    return value[start:end]


def _span(data: bytes, at: int) -> tuple[int, int]:
    """Give where the content of the value at ``at`` begins and ends."""
    content = at + 2
    if content > len(data) or data[at] & _LONG_TAG == _LONG_TAG:
        raise BadInput("this is not DER")
    size = data[at + 1]
    if size >= 0x80:
        octets = data[content : content + (size & 0x7F)]
        size, content = int.from_bytes(octets, "big"), content + len(octets)
        if not octets or octets[0] == 0 or size < 0x80:
            raise BadInput("a DER length is not in its shortest form")
    if content + size > len(data):
        raise BadInput("a DER value is cut short")
    return content, content + size
