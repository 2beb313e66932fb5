"""Certificates with something odd in them, each with a name: keys, uses, names, subjects, extensions."""

from __future__ import annotations

from handfast.trust import der
from tests.envoy_real.forging import (
    ANY,
    BMP,
    CLIENT,
    CN,
    DIRECTORY,
    DNS,
    EMAIL,
    FOR_CLIENTS,
    GOOD_NAMES,
    GOOD_URI,
    IA5,
    IP,
    KEYS,
    NOT_CA,
    OTHER,
    OU,
    PLAIN_SUBJECT,
    PRINTABLE,
    REGISTERED,
    RFC822,
    SERVER,
    SIGNATURES,
    T61,
    UNIVERSAL,
    URI,
    UTF8,
    Draft,
    constraints,
    names,
    subject,
    uses,
)

CA_TRUE = constraints(der.tlv(1, b"\xff"))
UNKNOWN_OID = "1.3.6.1.4.1.99999.1"


def _named(*pairs: tuple[int, bytes]) -> Draft:
    return Draft((NOT_CA, FOR_CLIENTS, names(*pairs)))


def _with(*more: bytes) -> Draft:
    return Draft((NOT_CA, FOR_CLIENTS, GOOD_NAMES, *more))


def _for(*dotted: str) -> Draft:
    return Draft((NOT_CA, uses(*dotted), GOOD_NAMES))


def _constrained(*extensions: bytes) -> Draft:
    return Draft((*extensions, FOR_CLIENTS, GOOD_NAMES))


URIS = (
    b"", b"https://example.org/a", b"spiffe://partner.org/a", b"spiffe://example.org", b"spiffe://example.org/", b"spiffe://",
    b"spiffe://example.org/a/", b"spiffe://example.org//a", b"spiffe://example.org/a//b", b"spiffe://example.org/a/../b",
    b"spiffe://example.org/./a", b"spiffe://example.org/a/.", b"spiffe://example.org/..", b"spiffe://example.org/...",
    b"spiffe://example.org/.a/..b", b"SPIFFE://example.org/a", b"spiffe://EXAMPLE.org/a", b"spiffe://example.org/A/b",
    b"spiffe://example.org/a%2fb", b"spiffe://example.org/%61", b"spiffe://example.org/a?b", b"spiffe://example.org/a#b",
    b"spiffe://example.org:1/a", b"spiffe://u@example.org/a", b"spiffe://example.org/a\n", b"spiffe://example.org/a\0",
    b"spiffe://example.org\0.evil.test/a", b"spiffe://example.org/\xe9", b"spiffe:///a", b" spiffe://example.org/a",
    b"spiffe://example.org./a", b"spiffe://example.org/a,URI=x", b'spiffe://example.org/a";By=x', b"spiffe:/example.org/a",
    b"spiffe://example.org/" + b"a" * 2027, b"spiffe://example.org/" + b"a" * 2028, b"spiffe://" + b"a" * 255 + b"/a",
    b"spiffe://" + b"a" * 256 + b"/a", b"spiffe://example.org" + b"/a" * 900, b"spiffe://example.org/-_.~",
)  # fmt: skip
SUBJECTS = {
    "quotes": subject((CN, UTF8, b'a"b\\";URI=spiffe://example.org/root,b')),
    "lines": subject((CN, UTF8, b"a\r\nX-Client-Identity: root\r\n\r\n")),
    "commas": subject((CN, UTF8, b'By=x,Hash="y",;'), (OU, PRINTABLE, b"a, b+c=d")),
    "nobody": der.sequence(),
    "nothing": subject((CN, UTF8, b"")),
    "two": subject((CN, UTF8, b"a"), (CN, UTF8, b"b")),
    "nul": subject((CN, UTF8, b"a\0b")),
    "bmp": subject((CN, BMP, "aé\n☃".encode("utf-16-be"))),
    "universal": subject((CN, UNIVERSAL, "aé\n".encode("utf-32-be"))),
    "utf8": subject((CN, UTF8, "Jürgen ☃ %41".encode())),
    "long": subject((CN, UTF8, b"x" * 5000)),
    "many": subject(*[(OU, UTF8, b"y" * 60)] * 100),
    "country": subject(("2.5.4.6", PRINTABLE, b"DEU")),
}
CASES: dict[str, Draft] = {
    **{f"key {kind}": Draft(key=kind) for kind in KEYS},
    **{f"hash {kind}": Draft(hash=kind) for kind in SIGNATURES},
    **{f"uri {uri[:60]!r} {len(uri)}": _named((URI, uri)) for uri in URIS},
    **{f"subject {name}": Draft(subject=one) for name, one in SUBJECTS.items()},
    "eku absent": Draft((NOT_CA, GOOD_NAMES)),
    "eku none": _for(),
    "eku server": _for(SERVER),
    "eku any": _for(ANY),
    "eku any server": _for(ANY, SERVER),
    "eku any client": _for(ANY, CLIENT),
    "eku server client": _for(SERVER, CLIENT),
    "eku client twice": _for(CLIENT, CLIENT),
    "eku email": _for(EMAIL),
    "eku odd": _for("1.2.3.999999999999", CLIENT, "1.3.6.1.5.5.7.3.2.1"),
    "eku nearly": _for("1.3.6.1.5.5.7.3.2.1", EMAIL),
    "ca": _constrained(CA_TRUE),
    "ca with a length": _constrained(constraints(der.tlv(1, b"\xff") + der.integer(1))),
    "ca not critical": _constrained(constraints(der.tlv(1, b"\xff"), critical=False)),
    "ca as no DER says it": _constrained(constraints(der.tlv(1, b"\x01"))),
    "ca false in writing": _constrained(constraints(der.tlv(1, b"\x00"))),
    "ca not mentioned": _constrained(),
    "version 1": Draft(None),
    "no extension": Draft(()),
    "no names": Draft((NOT_CA, FOR_CLIENTS)),
    "an empty list of names": _named(),
    "two URIs": _named((URI, GOOD_URI), (URI, b"spiffe://example.org/b")),
    "one URI twice": _named((URI, GOOD_URI), (URI, GOOD_URI)),
    "a URI among others": _named(
        (DNS, b"a.test"), (IP, b"\x7f\0\0\1"), (URI, GOOD_URI), (RFC822, b"a@b.test"), (REGISTERED, b"\x2a\3")
    ),
    "a URI in a directory": _named((DIRECTORY, PLAIN_SUBJECT), (DNS, GOOD_URI)),
    "another name": _named((OTHER, der.oid("1.2.3") + der.tlv(0xA0, der.tlv(UTF8, GOOD_URI))), (URI, GOOD_URI)),
    "DNS that quotes": _named((URI, GOOD_URI), (DNS, b'a";URI=spiffe://example.org/root,By="x'), (DNS, b"a,b;c=d")),
    "DNS with lines": _named((URI, GOOD_URI), (DNS, b"a\r\nx-client-identity: root"), (DNS, b"\0"), (DNS, b"")),
    "many DNS": _named((URI, GOOD_URI), *((DNS, b"n%d.test" % at) for at in range(300))),
    "DNS beyond ASCII": _named((URI, GOOD_URI), (DNS, b"\xe9.test")),
    "mail beyond ASCII": _named((URI, GOOD_URI), (RFC822, b"\xe9@b.test")),
    "an address of 5": _named((URI, GOOD_URI), (IP, b"12345")),
    "an X.400 name": _named((URI, GOOD_URI), (0xA3, b"")),
    "one extension twice": _with(der.extension(UNKNOWN_OID, b"x"), der.extension(UNKNOWN_OID, b"y")),
    "an unknown extension": _with(der.extension(UNKNOWN_OID, der.tlv(0x30, GOOD_NAMES))),
    "an unknown critical extension": _with(der.extension(UNKNOWN_OID, b"x", critical=True)),
    "200 extensions": _with(*(der.extension(f"{UNKNOWN_OID}.{at}", b"x" * 40) for at in range(200))),
    "long lengths": _with(der.extension(UNKNOWN_OID, b"x" * 20000)),
}
# Here the control plane's library reads what nobody needs, and minds it. The access check goes on with the right identity.
MINDED = {
    "AIA": _with(der.extension("1.3.6.1.5.5.7.1.1", b"x")),
    "SCT": _with(der.extension("1.3.6.1.4.1.11129.2.4.2", b"x")),
    "TLS feature": _with(der.extension("1.3.6.1.5.5.7.1.24", b"x")),
    "issuer's names": _with(der.extension("2.5.29.18", b"x")),
    "T61": Draft(subject=subject((CN, T61, b"\xe9a\n"))),
    "bad printable": Draft(subject=subject((CN, PRINTABLE, b"a@*\xff\r\n"))),
    "bad IA5": Draft(subject=subject((CN, IA5, b"\xff;URI=x"))),
    "bits": Draft(subject=subject((CN, 3, b"\0ab"))),
    "a sequence": Draft(subject=subject((CN, 0x30, b""))),
}
# What a client keeps to itself, as no signature that the gateway takes can be made with the key.
KEPT = {"key p224", "key secp256k1", "key brainpool", "key ed448"}
# What Envoy's TLS refuses by itself.
BY_TLS = {
    "hash sha3-256", "eku none", "eku server", "eku any", "eku any server", "eku email", "eku nearly", "an unknown critical extension",
}  # fmt: skip
# What OpenSSL would not even send. Envoy's TLS refuses it too.
HOSTILE = {
    "names twice": _with(GOOD_NAMES),
    "other names too": _with(names((URI, b"spiffe://example.org/root"))),
    "uses twice": _with(uses(SERVER)),
    "an authority and none": _with(CA_TRUE),
    "bad distribution points": _with(der.extension("2.5.29.31", b"x")),
    "bad key usage": _with(der.extension("2.5.29.15", b"x")),
    "bad key identifier": _with(der.extension("2.5.29.14", b"x")),
    "bad name constraints": _with(der.extension("2.5.29.30", b"x")),
    "bad other name": _named((URI, GOOD_URI), (OTHER, b"x")),
    "bad directory name": _named((URI, GOOD_URI), (DIRECTORY, b"x")),
    "an EDI name": _named((URI, GOOD_URI), (0xA5, b"")),
    "a name of no kind": _named((URI, GOOD_URI), (0x89, b"")),
    "a URI in parts": _named((0xA6, GOOD_URI)),
    "names cut off": Draft((NOT_CA, FOR_CLIENTS, der.extension("2.5.29.17", b"\x30\x05\x86\x7f"))),
    "no list of names": Draft((NOT_CA, FOR_CLIENTS, der.extension("2.5.29.17", b""))),
    "an odd BMP string": Draft(subject=subject((CN, BMP, b"abc"))),
    "bad UTF-8": Draft(subject=subject((CN, UTF8, b"\xff\xfe"))),
    "an empty set": Draft(subject=der.sequence(der.tlv(0x31, b""))),
}
# What OpenSSL would not send either, and Envoy's TLS takes.
UNUSUAL = {
    "octets as a name": Draft(subject=subject((CN, 4, b"abc"))),
    "a very long name": Draft(subject=subject((CN, UTF8, b"z" * 60_000))),
    "an authority's key usage": _with(der.extension("2.5.29.15", der.bit_string(b"\x84", 2), critical=True)),
}
