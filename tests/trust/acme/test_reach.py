from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust.acme.reach import PRIVATE, allowed, network, reachable

EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
METADATA = ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "fe80::1", "fe80::1%eth0")


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_private_addresses_are_allowed_by_default(text: str):
    """An internal authority's hosts are there."""
    assert allowed(ip_address(text), PRIVATE)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "172.32.0.1", "2001:db8::1", "100.64.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1"]
)
def test_others_are_not(text: str):
    """Unless the operator says so."""
    assert not allowed(ip_address(text), PRIVATE)
    assert allowed(ip_address(text), EVERYWHERE)


@pytest.mark.parametrize("text", [*METADATA, "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "fec0::1"])
def test_some_are_never_allowed(text: str):
    """Where clouds serve credentials, and where no host is, also when everything is allowed."""
    assert not allowed(ip_address(text), EVERYWHERE)


@pytest.mark.parametrize(
    "text",
    [
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
        "2001:0:1:1:0:0:5601:5601",
    ],
    ids=["mapped", "nat64", "6to4", "teredo-server", "teredo-client"],
)
def test_no_disguise_helps(text: str):
    """An IPv6 address that carries a forbidden IPv4 address is forbidden."""
    assert not allowed(ip_address(text), EVERYWHERE)


@given(st.ip_addresses())
def test_every_address_is_judged(address):
    """And what is allowed by default is private."""
    if allowed(address, PRIVATE):
        plain = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
        assert plain.is_private or plain.is_loopback


def test_what_can_be_reached_is_kept_in_order():
    """Texts that are no address are none."""
    assert reachable(["8.8.8.8", "::1", "x", "10.0.0.1", ""], PRIVATE) == ["::1", "10.0.0.1"]


def test_a_network_is_read():
    """One with bits beyond its length is a mistake."""
    assert network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    for wrong in ("10.0.0.1/8", "x", "", "10.0.0.0/33", "10.0.0.0/8/8"):
        with pytest.raises(BadInput):
            network(wrong)
