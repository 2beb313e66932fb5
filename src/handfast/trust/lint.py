"""Whether the bytes that are about to be signed keep every promise, and whether the signed bytes are those.

Decides by reading the real bytes back with a parser, and by comparing them with what an encoder gives, neither of which wrote
them. Refuses to know how they were made. The law of this file: nothing else makes a `LintedPlan`, and only a `LintedPlan` is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass
from datetime import datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der, expected
from handfast.trust.algorithms import verify
from handfast.trust.constraints import breaches
from handfast.trust.expected import CRITICAL, Extensions
from handfast.trust.facts import load
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import BACKDATE, UNREADABLE, KeyFacts, key_facts
from handfast.trust.tbs import KeyInfo, key_info

_SEAL = object()
_DUMMY_SIGNATURE = der.bit_string(der.sequence(der.integer(1), der.integer(1)))
_UNREADABLE = (*UNREADABLE, BadInput)
_FIELDS, _KEY, _EXTENSIONS = 8, 6, 0xA3
_EC = der.oid("1.2.840.10045.2.1")
# RFC 5480 section 2.1.1, RFC 8410 section 3. An RSA key's size and exponent are in its bits.
_NAMED_KEYS = {
    der.sequence(_EC, der.oid("1.2.840.10045.3.1.7")): KeyFacts("ec", 256, curve="secp256r1"),
    der.sequence(_EC, der.oid("1.3.132.0.34")): KeyFacts("ec", 384, curve="secp384r1"),
    der.sequence(der.oid("1.3.101.112")): KeyFacts("ed25519", 256),
}
_FINDINGS = {
    ExtensionOID.BASIC_CONSTRAINTS: ("constraints", "not those of a leaf"),
    ExtensionOID.KEY_USAGE: ("usage", "not digitalSignature, with keyEncipherment for RSA alone"),
    ExtensionOID.EXTENDED_KEY_USAGE: ("extended_usage", "not the profile's"),
    # X509-SVID section 2: exactly one URI, the SPIFFE id; DNS names beside it, and nothing of another kind.
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: ("names", "not the planned identity and DNS names alone"),
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: ("subject_key_id", "not that of the key"),
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: ("authority_key_id", "not the issuer's subject key identifier"),
    ExtensionOID.CRL_DISTRIBUTION_POINTS: ("revocation_list", "not at the planned address alone"),
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: (
        "authority_information",
        "not OCSP and the issuer at the planned addresses",
    ),
    ExtensionOID.OCSP_NO_CHECK: ("status", "not the mark of a responder"),
    ExtensionOID.TLS_FEATURE: ("features", "not status_request alone"),  # RFC 7633 section 4.2.3
}


@dataclass(frozen=True, slots=True)
class LintedPlan:
    """A plan and its TBSCertificate, which `lint` found to say the same. Made by `lint` alone."""

    plan: LeafPlan
    tbs: bytes
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        """Refuse to be made by anybody else, `dataclasses.replace` included."""
        if seal is not _SEAL:
            raise TypeError("only lint() makes a LintedPlan")


Lint: TypeAlias = LintedPlan | Refusal


def lint(tbs: bytes, plan: LeafPlan) -> Lint:
    """Check that a TBSCertificate says what was planned and keeps the rules of RFC 5280 and X509-SVID.

    Returns:
        The linted plan, or ISSUANCE_LINT with one piece of evidence for each rule that is broken.
    """
    try:
        findings = dict(_findings(tbs, plan))
    except _UNREADABLE as error:
        findings = {"bytes": f"cannot be read: {str(error)[:200]}"}
    return Refusal(Reason.ISSUANCE_LINT, findings) if findings else LintedPlan(plan, tbs, _SEAL)


def compare(signed: bytes, linted: LintedPlan) -> Refusal | None:
    """Check that a certificate (DER) is the linted bytes, signed with the issuer's key.

    Returns:
        None, or ISSUANCE_MISMATCH.
    """
    try:
        signature = load(signed).signature
        algorithm = linted.plan.issuer.algorithm.identifier
        if signed != der.sequence(linted.tbs, algorithm, der.bit_string(signature)):
            return _mismatch(_differs(signed, linted))
        verify(signature, linted.tbs, linted.plan.issuer.public_key_der)
    except _UNREADABLE:
        return _mismatch("the certificate cannot be read")
    except InvalidSignature:
        return _mismatch("the signature is not the issuer's")
    return None


def _differs(signed: bytes, linted: LintedPlan) -> str:
    if next(der.each(signed)) != linted.tbs:
        return "the signed bytes are not those that were linted"
    return "the certificate around them is not laid out as ours"


def _mismatch(what: str) -> Refusal:
    return Refusal(Reason.ISSUANCE_MISMATCH, {"certificate": what})


def _findings(tbs: bytes, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    certificate, fields = load(der.sequence(tbs, plan.issuer.algorithm.identifier, _DUMMY_SIGNATURE)), der.children(tbs)
    if certificate.version is not x509.Version.v3 or len(fields) != _FIELDS:
        yield "version", "not v3 with its eight fields"
        return
    yield from _raw(fields, plan)
    yield from _serial(certificate.serial_number, plan)
    yield from _times(certificate.not_valid_before_utc, certificate.not_valid_after_utc, plan)
    yield from _names(plan)
    info = key_info(fields[_KEY])
    kind = _kind(info, certificate)
    if not plan.profile.allows(kind):
        yield "key", "of a kind that the profile does not allow"
    yield from _extensions(certificate, fields[-1], expected.extensions(plan, kind.kind, info.key_id))


def _raw(fields: Sequence[bytes], plan: LeafPlan) -> Iterator[tuple[str, str]]:
    """Compare what must be equal byte for byte: a chain is built by comparing names, and a key is its bits."""
    _, _, algorithm, issuer, _, subject, spki, _ = fields
    if algorithm != plan.issuer.algorithm.identifier:
        yield "algorithm", f"not {plan.issuer.algorithm.name}, which the issuer's key signs with"
    if issuer != plan.issuer.subject_der:
        yield "issuer", "not the issuer's subject, byte for byte"
    if subject != expected.subject(plan.common_name):
        yield "subject", "not the planned common name alone"
    if spki != plan.subject.spki:
        yield "key", "not the key of the request"


def _serial(serial: int, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    if serial != plan.serial:
        yield "serial", "not the planned one"
    elif not 64 <= serial.bit_length() <= 159 or serial < 0:
        yield "serial", "not positive with 64 bits or more, in 20 octets (RFC 5280 section 4.1.2.2)"


def _times(begin: datetime, end: datetime, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    if (begin, end) != (plan.window.not_before, plan.window.not_after):
        yield "window", "not the planned one"
    elif end - begin > plan.profile.longest + BACKDATE:
        yield "window", "longer than the profile allows"
    elif begin < plan.issuer.window.not_before or end > plan.issuer.window.not_after:
        yield "window", "not within the issuer's"


def _names(plan: LeafPlan) -> Iterator[tuple[str, str]]:
    """Hold the planned names against the issuer. That the bytes have just these is checked with their extension."""
    if plan.identity.trust_domain != plan.issuer.trust_domain:
        yield "names", "of another trust domain than the issuer's"
    for constraints in plan.issuer.constraints:
        for kind, name in breaches(constraints, plan.identity.trust_domain.name, plan.dns, plan.common_name):
            yield "names", f"{kind} {name}: outside of the issuer's name constraints"


def _kind(info: KeyInfo, certificate: x509.Certificate) -> KeyFacts:
    """Tell what kind of key it is: by its algorithm's name where that says all, and otherwise as the library reads the key."""
    return _NAMED_KEYS.get(info.algorithm) or key_facts(certificate.public_key())


def _extensions(certificate: x509.Certificate, field: bytes, wanted: Extensions) -> Iterator[tuple[str, str]]:
    """Compare the bytes, so that a second spelling is found as well."""
    if field != der.tlv(_EXTENSIONS, der.sequence(*wanted.values())):
        yield from _differences(certificate.extensions, field, wanted)


def _differences(read: x509.Extensions, field: bytes, wanted: Extensions) -> Iterator[tuple[str, str]]:
    """Name the extensions that the library reads and that are not as wanted; each may be, and yet stand in another's place."""
    if {one.oid: one.critical for one in read} != {oid: oid in CRITICAL for oid in wanted}:
        yield "extensions", "not those of the plan, critical where they must be"
    (together,) = der.children(field)
    differing = [
        one.oid for one, found in zip(read, der.children(together), strict=True) if found != wanted.get(one.oid)
    ]
    yield from (_FINDINGS[oid] for oid in differing if oid in wanted)
    if not differing:
        yield "extensions", "not in the order of the plan"
