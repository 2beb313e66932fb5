"""Where a certificate says that its status is found, and which of an issuer's revocation lists it belongs to.

Decides the addresses (RFC 5280 sections 4.2.1.13 and 4.2.2.1) and how serials are shared out among lists. Refuses to know what
is served there.

The law of this file: a certificate's list follows from its serial and from how many lists its issuer has, which never
changes while the issuer lives. Serials are random, so each list is a range of them: a database finds it by its index.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

from handfast.base.refusal import BadInput
from handfast.trust import der

MAX_SHARDS = 1024
_BITS = 14  # a serial of `plan.serial_from` begins with the bits 01; these come after
_FIRST = 1 << _BITS
_URL = re.compile(r"http://(\[[0-9a-f:.]{2,45}\]|[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(:[1-9][0-9]{0,4})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class StatusSite:
    """Where status is published: ``url`` is such as ``http://status.example.org:7481``, ``shards`` the lists of an issuer.

    Plain HTTP on purpose: what is served is signed, and whoever checks a certificate for TLS cannot be asked to use TLS for
    it (RFC 5280 section 8).

    Raises:
        BadInput: the address is not one of a host, or there are not from 1 to 1024 lists.
    """

    url: str
    shards: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot stand in a certificate."""
        found = _URL.fullmatch(self.url)
        if not found or (found[3] and int(found[3][1:]) > 65535):
            raise BadInput(
                f"{self.url[:80]!r} is not http://host or http://host:port", hint="such as http://status.example.org"
            )
        if not 1 <= self.shards <= MAX_SHARDS:
            raise BadInput(f"an issuer has from 1 to {MAX_SHARDS} revocation lists")

    @property
    def ocsp(self) -> str:
        """Where OCSP is asked."""
        return f"{self.url}/ocsp"

    def crl(self, key_id: bytes, shard: int) -> str:
        """Where a list of the issuer with this key identifier is."""
        return f"{self.url}{crl_path(key_id.hex(), shard)}"

    def delta(self, key_id: bytes, shard: int) -> str:
        """Where the changes to that list are."""
        return f"{self.url}{delta_path(key_id.hex(), shard)}"

    def of(self, key_id: bytes, serial: int) -> StatusAddresses:
        """Give what a certificate of that issuer carries."""
        shard = shard_of(f"{serial:040x}", self.shards)
        return StatusAddresses(
            crl=self.crl(key_id, shard), ocsp=self.ocsp, issuer=f"{self.url}{issuer_path(key_id.hex())}"
        )

    def above(self, key_id: bytes) -> StatusAddresses:
        """Give what the certificate of an issuing CA with this key identifier carries: its own, as its signer's may not be known yet."""
        return StatusAddresses(
            crl=f"{self.url}{crl_above(key_id.hex())}", ocsp=self.ocsp, issuer=f"{self.url}{issuer_above(key_id.hex())}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAddresses:
    """What one certificate carries: its revocation list, its OCSP responder, its issuer's certificate."""

    crl: str
    ocsp: str
    issuer: str


def crl_path(key_id: str, shard: int) -> str:
    """Give the path of a list. ``key_id`` is the issuer's subject key identifier, hex."""
    return f"/crl/{key_id}/{shard}.crl"


def delta_path(key_id: str, shard: int) -> str:
    """Give the path of the changes to a list."""
    return f"/crl/{key_id}/{shard}-delta.crl"


def issuer_path(key_id: str) -> str:
    """Give the path of an issuer's certificate."""
    return f"/ca/{key_id}.cer"


def crl_above(key_id: str) -> str:
    """Give the path of the list that a CA stands on, by that CA's own key identifier (hex)."""
    return f"/crl/above/{key_id}.crl"


def issuer_above(key_id: str) -> str:
    """Give the path of the certificate of whoever signed a CA, by that CA's own key identifier (hex)."""
    return f"/ca/above/{key_id}.cer"


def shard_bounds(shard: int, shards: int) -> tuple[str, str]:
    """Give the serials of a list: from the first text on, and before the second; serials are lower case hex.

    The first list takes what sorts before it, the last one what sorts after it, so that every text is in exactly one.
    """
    low = "" if shard == 0 else _edge(shard, shards)
    return low, "g" if shard == shards - 1 else _edge(shard + 1, shards)


def shard_of(serial: str, shards: int) -> int:
    """Give the list that a serial (lower case hex) belongs to, from 0."""
    return bisect_right(range(1, shards), serial, key=lambda shard: _edge(shard, shards))


def _edge(shard: int, shards: int) -> str:
    return f"{_FIRST + (shard << _BITS) // shards:04x}"


# The extensions, DER


def distribution_points(url: str) -> bytes:
    """Write CRLDistributionPoints of one list at one address (RFC 5280 section 4.2.1.13)."""
    return der.sequence(der.sequence(der.tlv(0xA0, full_name(url))))


def full_name(*urls: str) -> bytes:
    """Write a DistributionPointName of these addresses."""
    return der.tlv(0xA0, b"".join(map(_uri, urls)))


def authority_information(ocsp: str, issuer: str) -> bytes:
    """Write AuthorityInfoAccessSyntax: OCSP, then the issuer's certificate (RFC 5280 section 4.2.2.1)."""
    return der.sequence(
        der.sequence(der.oid("1.3.6.1.5.5.7.48.1"), _uri(ocsp)),
        der.sequence(der.oid("1.3.6.1.5.5.7.48.2"), _uri(issuer)),
    )


def _uri(url: str) -> bytes:
    return der.tlv(0x86, url.encode("ascii"))
