"""The bytes of a leaf certificate: TBSCertificate from a template, and the certificate around it.

Decides the order and the encoding of the fields (RFC 5280 section 4.1; X509-SVID sections 2 to 4). Refuses to know whether
what is planned is allowed (`plan`), and whether it was written rightly (`lint` reads the bytes back).

Why a template: the builder of `cryptography` takes three times as long as template and signature together, and wants the
private key in this process.
"""

from __future__ import annotations

from functools import lru_cache

from handfast.trust import addresses, der
from handfast.trust.algorithms import identifier_in
from handfast.trust.plan import LeafPlan

_VERSION_3 = der.tlv(0xA0, der.integer(2))
_NOT_A_CA = der.extension("2.5.29.19", der.sequence(), critical=True)
_NOT_CHECKED = der.extension("1.3.6.1.5.5.7.48.1.5", b"\x05\x00")  # id-pkix-ocsp-nocheck, RFC 6960 section 4.2.2.2.1
_MUST_STAPLE = der.extension("1.3.6.1.5.5.7.1.24", der.sequence(der.integer(5)))  # status_request, RFC 7633 section 4
_SIGNS = der.extension("2.5.29.15", der.bit_string(b"\x80", 7), critical=True)
_SIGNS_AND_ENCRYPTS = der.extension("2.5.29.15", der.bit_string(b"\xa0", 5), critical=True)


def tbs(plan: LeafPlan) -> bytes:
    """Write the TBSCertificate of a plan."""
    return der.sequence(
        _VERSION_3,
        der.integer(plan.serial),
        plan.issuer.algorithm.identifier,
        plan.issuer.subject_der,
        der.sequence(der.time(plan.window.not_before), der.time(plan.window.not_after)),
        common_name(plan.common_name),
        plan.subject.spki,
        der.tlv(0xA3, der.sequence(*_extensions(plan))),
    )


def assemble(signed: bytes, signature: bytes) -> bytes:
    """Put what was signed (a TBSCertificate or TBSCertList) and its signature together.

    The algorithm is the one that is named inside, as it must be (RFC 5280 sections 4.1.1.2 and 5.1.1.2).

    Raises:
        BadInput: there is none inside.
    """
    return der.sequence(signed, identifier_in(signed), der.bit_string(signature))


def common_name(text: str) -> bytes:
    """Write a Name of one common name, as UTF8String (RFC 5280 section 4.1.2.4)."""
    return der.sequence(der.tlv(0x31, der.sequence(der.oid("2.5.4.3"), der.tlv(0x0C, text.encode()))))


@lru_cache(maxsize=64)
def authority_key_id(key_id: bytes) -> bytes:
    """Write the authority key identifier extension, by key identifier alone (RFC 5280 section 4.2.1.1)."""
    return der.extension("2.5.29.35", der.sequence(der.tlv(0x80, key_id)))


def _extensions(plan: LeafPlan) -> tuple[bytes, ...]:
    return (
        _NOT_A_CA,
        # TLS 1.2 lets an RSA key decrypt the client's secret; every other key only signs.
        _SIGNS_AND_ENCRYPTS if plan.subject.key.kind == "rsa" else _SIGNS,
        _extended_usage(plan.profile.ekus),
        der.extension("2.5.29.17", _names(plan)),
        der.extension("2.5.29.14", der.octet_string(plan.subject.key_id)),
        authority_key_id(plan.issuer.key_id),
        *_status(plan),
        *((_MUST_STAPLE,) if plan.profile.must_staple else ()),
    )


@lru_cache(maxsize=64)
def _extended_usage(ekus: tuple[str, ...]) -> bytes:
    return der.extension("2.5.29.37", der.sequence(*map(der.oid, ekus)))


def _status(plan: LeafPlan) -> tuple[bytes, ...]:
    """Write where the certificate's status is found, or that nobody is to ask."""
    if plan.status:
        return (
            der.extension("2.5.29.31", addresses.distribution_points(plan.status.crl)),
            der.extension("1.3.6.1.5.5.7.1.1", addresses.authority_information(plan.status.ocsp, plan.status.issuer)),
        )
    return (_NOT_CHECKED,) if plan.profile.answers_status else ()


def _names(plan: LeafPlan) -> bytes:
    # Not critical, as the subject is not empty (RFC 5280 section 4.2.1.6). The identity stands first.
    uri = der.tlv(0x86, str(plan.identity).encode("ascii"))
    return der.sequence(uri, *(der.tlv(0x82, name.encode("ascii")) for name in plan.dns))
