"""The extensions that a planned leaf must have, each in the bytes that the library's encoder gives it.

Decides what `lint` compares the real bytes with. Refuses to know the template (`leaf`): nothing that wrote a certificate's
values writes these, so a mistake in one is not made again in the other.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID, NameOID

from handfast.trust import der
from handfast.trust.addresses import StatusAddresses
from handfast.trust.plan import LeafPlan

CRITICAL = frozenset({ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
"""RFC 5280 sections 4.2.1.3 and 4.2.1.9; the others are not, as the subject is never empty."""

Extensions = dict[x509.ObjectIdentifier, bytes]


def extensions(plan: LeafPlan, kind: str, key_id: bytes) -> Extensions:
    """Give every extension that the plan wants, DER, by object identifier.

    ``kind``, such as ``rsa``, and ``key_id`` are of the key in the bytes, whatever the plan says of it.
    """
    wanted = {
        ExtensionOID.BASIC_CONSTRAINTS: _NOT_A_CA,
        ExtensionOID.KEY_USAGE: _SIGNS_AND_ENCRYPTS if kind == "rsa" else _SIGNS,
        ExtensionOID.EXTENDED_KEY_USAGE: _extended_usage(plan.profile.ekus),
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME: _names(str(plan.identity), plan.dns),
        ExtensionOID.SUBJECT_KEY_IDENTIFIER: _written(x509.SubjectKeyIdentifier(key_id)),
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER: _authority(plan.issuer.key_id),
    }
    if plan.status:
        wanted[ExtensionOID.CRL_DISTRIBUTION_POINTS] = _list_at(plan.status.crl)
        wanted[ExtensionOID.AUTHORITY_INFORMATION_ACCESS] = _information(plan.status)
    if plan.profile.answers_status:
        wanted[ExtensionOID.OCSP_NO_CHECK] = _NOT_CHECKED
    if plan.profile.must_staple:
        wanted[ExtensionOID.TLS_FEATURE] = _MUST_STAPLE
    return wanted


def _written(value: x509.ExtensionType) -> bytes:
    # Not by `der.extension`, which writes the template's: a mistake in it must not be made here again.
    return der.sequence(
        _name(value.oid), b"\x01\x01\xff" if value.oid in CRITICAL else b"", der.octet_string(value.public_bytes())
    )


@lru_cache(maxsize=32)
def _name(oid: x509.ObjectIdentifier) -> bytes:
    """Give an object identifier, DER, as the library writes it: within a SEQUENCE of one."""
    return x509.ExtendedKeyUsage([oid]).public_bytes()[2:]


def _usage(*, encrypts: bool) -> bytes:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=encrypts,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return _written(usage)


_NOT_A_CA = _written(x509.BasicConstraints(ca=False, path_length=None))
_SIGNS, _SIGNS_AND_ENCRYPTS = _usage(encrypts=False), _usage(encrypts=True)
_NOT_CHECKED = _written(x509.OCSPNoCheck())
_MUST_STAPLE = _written(x509.TLSFeature([x509.TLSFeatureType.status_request]))


# What changes with every renewal is not kept: serial, life and key. An issuer, its profiles and its lists are few, and the
# names of a leaf come again with the next one.


@lru_cache(maxsize=2048)
def subject(common_name: str) -> bytes:
    """Give the Name that a leaf must have: one common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]).public_bytes()


@lru_cache(maxsize=2048)
def _names(uri: str, dns: tuple[str, ...]) -> bytes:
    return _written(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *map(x509.DNSName, dns)]))


@lru_cache(maxsize=64)
def _extended_usage(ekus: tuple[str, ...]) -> bytes:
    return _written(x509.ExtendedKeyUsage(map(x509.ObjectIdentifier, ekus)))


@lru_cache(maxsize=64)
def _authority(key_id: bytes) -> bytes:
    return _written(x509.AuthorityKeyIdentifier(key_id, None, None))


@lru_cache(maxsize=1024)
def _list_at(url: str) -> bytes:
    """Give RFC 5280 section 4.2.1.13: one list, of one issuer, at one address."""
    return _written(x509.CRLDistributionPoints([x509.DistributionPoint(_uri(url), None, None, None)]))


def _information(status: StatusAddresses) -> bytes:
    return _information_at(status.ocsp, status.issuer)


@lru_cache(maxsize=64)
def _information_at(ocsp: str, issuer: str) -> bytes:
    """Give RFC 5280 section 4.2.2.1: one responder, then one issuer, each at its address."""
    places = ((AuthorityInformationAccessOID.OCSP, ocsp), (AuthorityInformationAccessOID.CA_ISSUERS, issuer))
    return _written(
        x509.AuthorityInformationAccess([x509.AccessDescription(method, *_uri(url)) for method, url in places])
    )


def _uri(url: str) -> list[x509.UniformResourceIdentifier]:
    return [x509.UniformResourceIdentifier(url)]
