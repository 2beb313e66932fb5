import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.sdk.limits import OFFERED_BYTES, OFFERED_CERTIFICATES
from handfast.sdk.offered import offered_chain, server_name

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
chains = st.lists(st.binary(min_size=1, max_size=3000), max_size=OFFERED_CERTIFICATES)


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def certificate(chain: list[bytes], version: int) -> bytes:
    """Write a Certificate message (RFC 5246 section 7.4.2, RFC 8446 section 4.4.2)."""
    if version == TLS_1_3:
        body = b"\0" + vector(3, b"".join(vector(3, der) + vector(2, b"\x12\x34\0\0") for der in chain))
    else:
        body = vector(3, b"".join(vector(3, der) for der in chain))
    return b"\x0b" + vector(3, body)


def hello(*extensions: tuple[int, bytes]) -> bytes:
    """Write a ClientHello."""
    listed = b"".join(struct.pack("!H", kind) + vector(2, body) for kind, body in extensions)
    body = (
        b"\x03\x03" + bytes(32) + vector(1, bytes(32)) + vector(2, b"\x13\x01") + vector(1, b"\0") + vector(2, listed)
    )
    return b"\x01" + vector(3, body)


def sni(name: bytes) -> tuple[int, bytes]:
    return 0, vector(2, b"\0" + vector(2, name))


@given(chain=chains, version=st.sampled_from([TLS_1_2, TLS_1_3]))
def test_reads_what_was_sent(chain, version):
    """A chain comes back as it was sent, leaf first."""
    assert offered_chain(certificate(chain, version), version) == tuple(chain)


@given(chain=chains, version=st.sampled_from([TLS_1_2, TLS_1_3]), cut=st.integers(0, 60_000))
def test_cut_message_gives_whole_certificates_only(chain, version, cut):
    """A message that ends early gives a beginning of the chain, and no torn certificate."""
    found = offered_chain(certificate(chain, version)[:cut], version)
    assert found == tuple(chain[: len(found)])


@given(data=st.binary(max_size=400), version=st.integers(0, 0xFFFF))
def test_garbage_gives_something_and_never_raises(data, version):
    """Nothing that a stranger can write raises."""
    assert isinstance(offered_chain(data, version), tuple)
    assert isinstance(server_name(data), str)


@VERSIONS
def test_bounded_in_count_and_size(version):
    """At most 16 certificates are kept, and nothing beyond 64 KiB is looked at."""
    assert len(offered_chain(certificate([b"x"] * 100, version), version)) == OFFERED_CERTIFICATES
    assert offered_chain(certificate([b"leaf", bytes(OFFERED_BYTES)], version), version) == (b"leaf",)


@VERSIONS
def test_no_certificate_is_an_empty_chain(version):
    """A client that has none sends an empty list."""
    assert offered_chain(certificate([], version), version) == ()


def test_reads_the_server_name():
    """The name is found among other extensions."""
    assert server_name(hello((43, b"\x02\x03\x04"), sni(b"api.example.org"), (16, b""))) == "api.example.org"


def test_no_server_name_is_empty():
    """A hello without the extension, or with another kind of name, asks for none."""
    assert server_name(hello((43, b"\x02\x03\x04"))) == ""
    assert server_name(hello((0, vector(2, b"\x07" + vector(2, b"x"))))) == ""


def test_strange_server_name_is_escaped_and_cut():
    """A name is text that can be logged: ASCII, and 255 characters at most."""
    assert server_name(hello(sni(b"\xff.example"))) == "\\xff.example"
    assert len(server_name(hello(sni(b"a" * 5000)))) == 255


@given(message=st.just(hello(sni(b"api.example.org"))), cut=st.integers(0, 120))
def test_cut_hello_has_the_name_or_none(message, cut):
    """A hello that ends early never gives half a name."""
    assert server_name(message[:cut]) in {"", "api.example.org"}
