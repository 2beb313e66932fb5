"""Whether the bytes that are about to be signed keep every promise, and whether the signed bytes are those.

Decides by reading the real bytes back with a parser that did not write them. Refuses to know how they were made. The law
of this file: nothing else makes a `LintedPlan`, and only a `LintedPlan` is signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID, NameOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.algorithms import verify
from handfast.trust.constraints import breaches
from handfast.trust.facts import load
from handfast.trust.leaf import assemble
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import BACKDATE, UNREADABLE, key_facts

_T = TypeVar("_T", bound=x509.ExtensionType)
_SEAL = object()
_DUMMY_SIGNATURE = der.sequence(der.integer(1), der.integer(1))
_UNREADABLE = (*UNREADABLE, BadInput)
_CRITICAL = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
}
_STATUS = {ExtensionOID.CRL_DISTRIBUTION_POINTS: False, ExtensionOID.AUTHORITY_INFORMATION_ACCESS: False}
_NOT_CHECKED = {ExtensionOID.OCSP_NO_CHECK: False}


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
        tbs, _, signature = der.children(signed)
        if tbs != linted.tbs:
            return _mismatch("the signed bytes are not those that were linted")
        if signed != assemble(tbs, load(signed).signature) or not signature:
            return _mismatch("the certificate around them is not laid out as ours")
        verify(load(signed).signature, tbs, linted.plan.issuer.public_key_der)
    except _UNREADABLE:
        return _mismatch("the certificate cannot be read")
    except InvalidSignature:
        return _mismatch("the signature is not the issuer's")
    return None


def _mismatch(what: str) -> Refusal:
    return Refusal(Reason.ISSUANCE_MISMATCH, {"certificate": what})


def _findings(tbs: bytes, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    certificate = load(assemble(tbs, _DUMMY_SIGNATURE))
    for check in (_raw, _serial, _times, _subject, _extension_set, _names, _usage, _key_ids, _status):
        yield from check(certificate, plan)


def _raw(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    """Compare what must be equal byte for byte: a chain is built by comparing names, and a key is its bits."""
    fields = der.children(certificate.tbs_certificate_bytes)
    if certificate.version is not x509.Version.v3 or len(fields) != 8:
        yield "version", "not v3 with its eight fields"
        return
    _, _, algorithm, issuer, _, _, spki, _ = fields
    if algorithm != plan.issuer.algorithm.identifier:
        yield "algorithm", f"not {plan.issuer.algorithm.name}, which the issuer's key signs with"
    if issuer != plan.issuer.subject_der:
        yield "issuer", "not the issuer's subject, byte for byte"
    if spki != plan.subject.spki:
        yield "key", "not the key of the request"
    elif not plan.profile.allows(key_facts(certificate.public_key())):
        yield "key", "of a kind that the profile does not allow"


def _serial(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    serial = certificate.serial_number
    if serial != plan.serial:
        yield "serial", "not the planned one"
    elif not 64 <= serial.bit_length() <= 159 or serial < 0:
        yield "serial", "not positive with 64 bits or more, in 20 octets (RFC 5280 section 4.1.2.2)"


def _times(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if (begin, end) != (plan.window.not_before, plan.window.not_after):
        yield "window", "not the planned one"
    elif end - begin > plan.profile.longest + BACKDATE:
        yield "window", "longer than the profile allows"
    elif begin < plan.issuer.window.not_before or end > plan.issuer.window.not_after:
        yield "window", "not within the issuer's"


def _subject(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    if certificate.subject != x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, plan.common_name)]):
        yield "subject", "not the planned common name alone"


def _extension_set(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    wanted = _CRITICAL | (_STATUS if plan.status else {}) | (_NOT_CHECKED if plan.profile.answers_status else {})
    if {found.oid: found.critical for found in certificate.extensions} != wanted:
        yield "extensions", "not those of the plan, critical where they must be"


def _names(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    """X509-SVID section 2: exactly one URI, the SPIFFE id; DNS names beside it, and nothing of another kind."""
    identity = x509.UniformResourceIdentifier(str(plan.identity))
    for names in _values(certificate, x509.SubjectAlternativeName):
        if list(names) != [identity, *map(x509.DNSName, plan.dns)]:
            yield "names", "not the planned identity and DNS names alone"
        if plan.identity.trust_domain != plan.issuer.trust_domain:
            yield "names", "of another trust domain than the issuer's"
    for constraints in plan.issuer.constraints:
        for kind, name in breaches(constraints, plan.identity.trust_domain.name, plan.dns, plan.common_name):
            yield "names", f"{kind} {name}: outside of the issuer's name constraints"


def _usage(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    for constraints in _values(certificate, x509.BasicConstraints):
        if constraints.ca or constraints.path_length is not None:
            yield "constraints", "not those of a leaf"
    for usage in _values(certificate, x509.KeyUsage):
        if usage != _planned_usage(plan):
            yield "usage", "not digitalSignature, with keyEncipherment for RSA alone"
    for extended in _values(certificate, x509.ExtendedKeyUsage):
        if tuple(one.dotted_string for one in extended) != plan.profile.ekus:
            yield "extended_usage", "not the profile's"


def _planned_usage(plan: LeafPlan) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=plan.subject.key.kind == "rsa",
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_ids(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    for ski in _values(certificate, x509.SubjectKeyIdentifier):
        if ski != x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()):
            yield "subject_key_id", "not that of the key"
    for aki in _values(certificate, x509.AuthorityKeyIdentifier):
        if aki != x509.AuthorityKeyIdentifier(plan.issuer.key_id, None, None):
            yield "authority_key_id", "not the issuer's subject key identifier"


def _status(certificate: x509.Certificate, plan: LeafPlan) -> Iterator[tuple[str, str]]:
    """RFC 5280 sections 4.2.1.13 and 4.2.2.1: one list, one responder, one issuer, each at the planned address."""
    if plan.status is None:
        return
    for points in _values(certificate, x509.CRLDistributionPoints):
        if list(points) != [x509.DistributionPoint(_uris(plan.status.crl), None, None, None)]:
            yield "revocation_list", "not at the planned address alone"
    places = [(AuthorityInformationAccessOID.OCSP, plan.status.ocsp)]
    places.append((AuthorityInformationAccessOID.CA_ISSUERS, plan.status.issuer))
    for access in _values(certificate, x509.AuthorityInformationAccess):
        if list(access) != [x509.AccessDescription(method, *_uris(url)) for method, url in places]:
            yield "authority_information", "not OCSP and the issuer at the planned addresses"


def _uris(url: str) -> list[x509.UniformResourceIdentifier]:
    return [x509.UniformResourceIdentifier(url)]


def _values(certificate: x509.Certificate, kind: type[_T]) -> Iterator[_T]:
    """Give the extension's value, or nothing where it is absent: `_extension_set` has said so then."""
    return (found.value for found in certificate.extensions if isinstance(found.value, kind))
