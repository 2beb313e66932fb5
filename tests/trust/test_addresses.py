from __future__ import annotations

from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust import addresses
from handfast.trust.addresses import MAX_SHARDS, StatusSite, shard_bounds, shard_of
from handfast.trust.facts import hex_serial
from handfast.trust.plan import serial_from

KEY = bytes(range(20))
shards = st.integers(1, MAX_SHARDS)


@given(st.binary(min_size=20, max_size=20), shards)
def test_a_serial_is_within_the_bounds_of_its_list_and_of_no_other(random: bytes, count: int):
    """The list that a certificate names is the one that a database finds it in, by comparing texts."""
    serial = hex_serial(serial_from(random))
    shard = shard_of(serial, count)
    holding = [one for one in range(count) if shard_bounds(one, count)[0] <= serial < shard_bounds(one, count)[1]]
    assert holding == [shard]


@given(st.text("0123456789abcdef", max_size=40), shards)
def test_every_text_belongs_to_a_list(serial: str, count: int):
    """Also serials that were not made here fall into one of them."""
    low, high = shard_bounds(shard_of(serial, count), count)
    assert low <= serial < high


@pytest.mark.parametrize("count", [2, 3, 16, 1000])
def test_lists_are_of_about_one_size(count: int):
    """Serials are random, so a list's share is that of its range."""
    edges = [int(shard_bounds(one, count)[0] or "4000", 16) for one in range(count)] + [0x8000]
    sizes = [high - low for low, high in pairwise(edges)]
    assert max(sizes) - min(sizes) <= 1


def test_a_certificate_names_its_list_its_responder_and_its_issuer():
    """The addresses are those that the site serves."""
    found = StatusSite("http://status.example.org:7481", 4).of(KEY, serial_from(b"\xff" * 20))
    assert found.crl == f"http://status.example.org:7481/crl/{KEY.hex()}/3.crl"
    assert found.ocsp == "http://status.example.org:7481/ocsp"
    assert found.issuer == f"http://status.example.org:7481/ca/{KEY.hex()}.cer"


@pytest.mark.parametrize("url", ["http://a", "http://a.b-c.example", "http://127.0.0.1:1", "http://[::1]:65535"])
def test_an_address_of_a_host_can_be_named(url: str):
    """With a port or without."""
    assert StatusSite(url).ocsp == f"{url}/ocsp"


@pytest.mark.parametrize(
    "url",
    ["", "https://a", "http://", "http://a/b", "http://a:0", "http://a:65536", "http://A", "http://a b", "http://a\n",
     "http://u@a", "http://a?b", "http://ä", "ftp://a", "http://a.", f"http://{'a' * 300}"],
)  # fmt: skip
def test_what_is_no_such_address_is_bad_input(url: str):
    """TLS for the status of TLS's certificates has no end, and paths are ours."""
    with pytest.raises(BadInput):
        StatusSite(url)


@pytest.mark.parametrize("count", [-1, 0, MAX_SHARDS + 1])
def test_a_number_of_lists_has_bounds(count: int):
    """One at least."""
    with pytest.raises(BadInput):
        StatusSite("http://a", count)


def test_the_extensions_are_what_the_library_writes():
    """Byte for byte (RFC 5280 sections 4.2.1.13 and 4.2.2.1)."""
    uri = x509.UniformResourceIdentifier("http://a/b.crl")
    points = x509.CRLDistributionPoints([x509.DistributionPoint([uri], None, None, None)])
    assert addresses.distribution_points("http://a/b.crl") == points.public_bytes()
    access = x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://a/ocsp")),
            x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://a/c")
            ),
        ]
    )
    assert addresses.authority_information("http://a/ocsp", "http://a/c") == access.public_bytes()
