"""The bytes of a CA's certificate, of its responder's, and of the requests for both.

Decides the layout (RFC 5280 section 4.1, RFC 2986 section 4). Refuses to know what they say, which is planned in
`handfast.trust.ca` and `handfast.trust.delegation`, and who signs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from handfast.base.windows import Window
from handfast.trust import addresses, der
from handfast.trust.algorithms import PublicKey, algorithm_of
from handfast.trust.ca import CaPlan
from handfast.trust.delegation import ResponderPlan
from handfast.trust.leaf import authority_key_id

_EXTENSION_REQUEST = der.oid("1.2.840.113549.1.9.14")
_VERSION_3 = der.tlv(0xA0, der.integer(2))

Plan: TypeAlias = CaPlan | ResponderPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatory:
    """Who will sign: its Name and its SubjectPublicKeyInfo (both DER), and its key identifier."""

    name: bytes
    public_key_der: bytes
    key_id: bytes


def key_id(public_key_der: bytes) -> bytes:
    """Give the key identifier that is written here: the SHA-1 of the key's bits (RFC 5280 section 4.2.1.2, method 1).

    Raises:
        BadInput: no authority has such a key here.
    """
    algorithm_of(public_key_der)
    key = load_der_public_key(public_key_der)
    assert isinstance(key, PublicKey)
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def tbs(plan: Plan, by: Signatory, public_key_der: bytes, window: Window, serial: int) -> bytes:
    """Write the TBSCertificate of a plan."""
    return der.sequence(
        _VERSION_3,
        der.integer(serial),
        algorithm_of(by.public_key_der).identifier,
        by.name,
        der.sequence(der.time(window.not_before), der.time(window.not_after)),
        plan.name.public_bytes(),
        public_key_der,
        der.tlv(0xA3, der.sequence(*_extensions(plan, public_key_der), authority_key_id(by.key_id))),
    )


def request_tbs(plan: Plan, public_key_der: bytes) -> bytes:
    """Write the CertificationRequestInfo of a plan, which asks for the extensions that it needs (RFC 2986 section 4.1)."""
    extensions = der.sequence(*_extensions(plan, public_key_der))
    attribute = der.sequence(_EXTENSION_REQUEST, der.tlv(0x31, extensions))
    return der.sequence(der.integer(0), plan.name.public_bytes(), public_key_der, der.tlv(0xA0, attribute))


def request(tbs: bytes, public_key_der: bytes, signature: bytes) -> bytes:
    """Put a CertificationRequestInfo and its signature together (RFC 2986 section 4.2)."""
    return der.sequence(tbs, algorithm_of(public_key_der).identifier, der.bit_string(signature))


def _extensions(plan: Plan, public_key_der: bytes) -> Iterator[bytes]:
    for one, critical in plan.extensions():
        yield der.extension(one.oid.dotted_string, one.public_bytes(), critical=critical)
    own = key_id(public_key_der)
    yield der.extension("2.5.29.14", der.octet_string(own))
    if plan.site:
        found = plan.site.above(own)
        yield der.extension("2.5.29.31", addresses.distribution_points(found.crl))
        yield der.extension("1.3.6.1.5.5.7.1.1", addresses.authority_information(found.ocsp, found.issuer))
