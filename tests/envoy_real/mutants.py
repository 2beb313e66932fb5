"""Certificates by chance: sensible parts put together at random, and parts that are broken at random."""

from __future__ import annotations

from random import Random

from handfast.trust import der
from tests.envoy_real.forging import (
    ANY,
    CLIENT,
    DIRECTORY,
    DNS,
    EMAIL,
    FOR_CLIENTS,
    GOOD_NAMES,
    GOOD_URI,
    IP,
    NOT_CA,
    PLAIN_SUBJECT,
    RFC822,
    SERVER,
    URI,
    Draft,
    constraints,
    names,
    uses,
)
from tests.envoy_real.odd import CA_TRUE, SUBJECTS, UNKNOWN_OID, URIS

_USES = ((CLIENT,), (CLIENT, SERVER), (SERVER, EMAIL, CLIENT), (ANY, CLIENT), (CLIENT,), (SERVER,))
_KEYS = ("p256", "p256", "p384", "p521", "ed25519", "rsa1024", "rsa2047", "rsa2048")
_HASHES = ("sha256", "sha256", "sha384", "sha512", "sha1")
_OTHERS = ((DNS, b"a.test"), (IP, b"\x7f\0\0\1"), (RFC822, b"a@b.test"), (DIRECTORY, PLAIN_SUBJECT))


def a_mixture(chance: Random) -> Draft:
    """Put a certificate together from parts that are right or wrong each in a way that can be named."""
    uris = [(URI, chance.choice((GOOD_URI, *URIS))) for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2)))]
    others = chance.sample(_OTHERS, chance.randint(0, 2))
    parts = [
        *chance.choice(([NOT_CA], [NOT_CA], [NOT_CA], [], [CA_TRUE])),
        *chance.choice(([], *[[uses(*chance.choice(_USES))]] * 6)),
        names(*chance.sample([*uris, *others], len(uris) + len(others))),
    ]
    return Draft(
        extensions=chance.sample(parts, len(parts)),
        subject=chance.choice(tuple(SUBJECTS.values())),
        key=chance.choice(_KEYS),
        hash=chance.choice(_HASHES),
    )


# Broken


def a_mutant(chance: Random) -> Draft:
    """Break the extensions of a good certificate in one or two ways."""
    extensions = [NOT_CA, FOR_CLIENTS, GOOD_NAMES]
    for _ in range(chance.choice((1, 1, 1, 2))):
        chance.choice(_BREAKS)(chance, extensions)
    return Draft(extensions=extensions)


def _octets(chance: Random, most: int = 12) -> bytes:
    return chance.randbytes(chance.randint(0, most))


def _flipped(chance: Random, octets: bytes) -> bytes:
    at = chance.randrange(len(octets))
    return octets[:at] + bytes([octets[at] ^ 1 << chance.randrange(8)]) + octets[at + 1 :]


def _flip(chance: Random, extensions: list[bytes]) -> None:
    """Turn a bit somewhere behind the type of an extension."""
    at = chance.randrange(len(extensions))
    whole = extensions[at]
    extensions[at] = whole[:7] + _flipped(chance, whole[7:]) if len(whole) > 8 else whole


def _flip_text(chance: Random, extensions: list[bytes]) -> None:
    """Turn bits of the URI itself."""
    uri = GOOD_URI
    for _ in range(chance.randint(1, 3)):
        uri = _flipped(chance, uri)
    extensions[2] = names((URI, uri))


def _name_oddly(chance: Random, extensions: list[bytes]) -> None:
    """Mix names of any tag with the good one."""
    tags = (*range(0x80, 0x8B), 0xA0, 0xA3, 0xA4, 0xA5, 0xA6, DNS, DNS, RFC822, IP, 0x30, 0x0C, 0x06)
    some = (
        b"",
        b"a.test",
        b"1234",
        b"x" * 16,
        PLAIN_SUBJECT,
        GOOD_URI,
        der.oid("1.2.3") + der.tlv(0xA0, PLAIN_SUBJECT),
    )
    odd = [(chance.choice(tags), chance.choice((*some, _octets(chance)))) for _ in range(chance.randint(1, 3))]
    mixed = [*odd, (URI, GOOD_URI)]
    extensions[2] = names(*chance.sample(mixed, len(mixed)))


def _use_oddly(chance: Random, extensions: list[bytes]) -> None:
    """Mix what are no object identifiers, or nearly the right one, with the right one or without it."""
    right = der.oid(CLIENT)
    some = (
        right,
        _flipped(chance, right),
        der.tlv(0x06, right[2:] + b"\x01"),
        der.tlv(0x0D, right[2:]),
        der.tlv(0x06, _octets(chance)),
    )
    extensions[1] = der.extension("2.5.29.37", der.sequence(*chance.choices(some, k=chance.randint(1, 3))))


def _constrain_oddly(chance: Random, extensions: list[bytes]) -> None:
    """Say of the authority what no DER says."""
    some = (
        b"\x01\x01\xff",
        b"\x01\x01\x00",
        b"\x01\x01\x01",
        b"\x01\x00",
        b"\x02\x01\x00",
        b"\x01\x02\xff\xff",
        _octets(chance, 4),
    )
    extensions[0] = constraints(b"".join(chance.choices(some, k=chance.randint(1, 2))))


def _lengthen(chance: Random, extensions: list[bytes]) -> None:
    """Write a length in more octets than it needs, or without an end, or with something behind it."""
    inside = der.tlv(URI, GOOD_URI)
    size = bytes([len(inside)])
    extensions[2] = der.extension(
        "2.5.29.17",
        chance.choice((
            b"\x30\x81" + size + inside,
            b"\x30\x82\x00" + size + inside,
            b"\x30\x84\x00\x00\x00" + size + inside,
            b"\x30\x80" + inside + b"\0\0",
            der.tlv(0x30, inside) + _octets(chance),
            der.tlv(0x30, inside + b"\0"),
            der.tlv(0x31, inside),
            inside,
        )),
    )  # fmt: skip


def _add(chance: Random, extensions: list[bytes]) -> None:
    """Add an extension that nobody knows, nested and broken, or one that is there already."""
    value = _octets(chance, 40)
    for _ in range(chance.randint(0, 6)):
        value = der.tlv(chance.choice((0x30, 0x31, 0xA0, 0x04, URI)), value + _octets(chance, 3))
    mark = chance.choice((b"", b"", b"\x01\x01\x00", b"\x01\x01\x01", b"\x05\x00"))
    unknown = der.sequence(der.oid(f"{UNKNOWN_OID}.{chance.randint(0, 3)}"), mark, der.octet_string(value))
    extensions.insert(
        chance.randint(0, len(extensions)), chance.choice((unknown, unknown, unknown, chance.choice(extensions)))
    )


def _mark(chance: Random, extensions: list[bytes]) -> None:
    """Call an extension critical, or say in writing that it is not."""
    at = chance.randrange(3)
    parts = der.children((NOT_CA, FOR_CLIENTS, GOOD_NAMES)[at])
    mark = chance.choice((b"\x01\x01\xff", b"\x01\x01\x00", b"\x01\x01\x7f"))
    extensions[at] = der.sequence(parts[0], mark, parts[-1])


_BREAKS = (
    _flip,
    _flip,
    _flip_text,
    _name_oddly,
    _name_oddly,
    _use_oddly,
    _constrain_oddly,
    _lengthen,
    _add,
    _add,
    _mark,
)
