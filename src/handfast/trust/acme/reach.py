"""Which addresses the server may connect to, to see whether a name is proved.

Decides by address alone. A name says where to connect, and whoever asks chose the name: so what it leads to is looked at, and
that very address is connected to, however DNS answers a moment later.

Never allowed, whatever the operator allows: link-local addresses and those at which clouds serve credentials to whoever is on the
machine, in every form in which IPv6 can carry an IPv4 address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    NetmaskValueError,
    ip_address,
    ip_network,
)

from handfast.base.refusal import BadInput

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PRIVATE: tuple[Network, ...] = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128")
)
"""RFC 1918, RFC 4193, loopback: where an internal authority's hosts are."""

_NEVER: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32", "168.63.129.16/32",
        "::/128", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::/32",
    )
)  # fmt: skip
_NAT64 = IPv6Network("64:ff9b::/96")


def network(text: str) -> Network:
    """Read ``10.0.0.0/8`` or ``2001:db8::/32``.

    Raises:
        BadInput: it is no network, or has bits beyond its length.
    """
    try:
        return ip_network(text)
    except (ValueError, AddressValueError, NetmaskValueError) as error:
        raise BadInput(f"{text[:80]!r} is not a network", hint="such as 10.0.0.0/8 or fd00::/8") from error


def allowed(address: Address, networks: Iterable[Network]) -> bool:
    """Tell whether the server may connect there."""
    if any(_within(form, _NEVER) for form in _forms(address)):
        return False
    return _within(_forms(address)[-1] if _mapped(address) else address, networks)


def reachable(addresses: Sequence[str], networks: Sequence[Network]) -> list[str]:
    """Give those of the addresses that the server may connect to; texts that are no address are none."""
    return [text for text in addresses if (address := _read(text)) and allowed(address, networks)]


def _read(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == one.version and address in one for one in networks)


def _mapped(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def _forms(address: Address) -> list[Address]:
    """Give the address, and the IPv4 addresses that it may stand for (RFC 4291, RFC 3056, RFC 4380, RFC 6052)."""
    if isinstance(address, IPv4Address):
        return [address]
    carried = [address.sixtofour, *(address.teredo or ()), address.ipv4_mapped]
    if address in _NAT64:
        carried.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in carried if one is not None)]
