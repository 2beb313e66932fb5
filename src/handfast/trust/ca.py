"""What a CA certificate of ours says, and whether one that somebody else made will do.

Decides names, extensions and limits of root and issuing CA, and of what stands between them. Refuses to know keys, files, how a
certificate becomes bytes (`handfast.trust.ca_bytes`), and who has to confirm a root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID, NameOID

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.trust import der
from handfast.trust.addresses import StatusSite
from handfast.trust.algorithms import algorithm_of
from handfast.trust.constraints import NameConstraints, breaches, exceeds, written
from handfast.trust.constraints import read as constraints_of
from handfast.trust.facts import CertificateFacts, facts, load
from handfast.trust.profile import CLIENT_AUTH, SERVER_AUTH, UNREADABLE

LONGEST_NAME = 64
ROOT_KIND, ISSUING_KIND = "Handfast root", "Handfast issuing CA"

_STRONG = {"", "sha256", "sha384", "sha512"}
_KNOWN_CRITICAL = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
}
_SPKI = 6
Finding = tuple[str, str]
Ca = tuple[x509.Certificate, CertificateFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaPlan:
    """What a CA certificate will say. ``path_length`` is how many CAs there may be below it; ``site`` where its status is found."""

    kind: str
    trust_domain: TrustDomain
    path_length: int
    constraints: NameConstraints | None = None
    site: StatusSite | None = None

    @property
    def name(self) -> x509.Name:
        """The kind and the trust domain, in the 64 characters of a common name."""
        return named(self.kind, self.trust_domain)

    def extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        """Give its extensions, each with whether it is critical, but not the key identifiers.

        RFC 5280 section 4.2.1; X509-SVID section 4: a signing certificate's id has no path.
        """
        identity = x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}")
        always: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=True, path_length=self.path_length), True),
            (_usage(), True),
            (x509.SubjectAlternativeName([identity]), False),
        ]
        return [*always, (written(self.constraints), True)] if self.constraints else always


def named(kind: str, trust_domain: TrustDomain) -> x509.Name:
    """Give a subject: the kind and the trust domain, in the 64 characters of a common name."""
    text = f"{kind} {trust_domain}"
    if len(text) > LONGEST_NAME:
        # Two long trust domains must not become the same name by being cut.
        text = f"{text[:50]}~{sha256(text.encode()).hexdigest()[:13]}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issuing_plan(
    trust_domain: TrustDomain, constraints: NameConstraints | None, site: StatusSite | None = None
) -> CaPlan:
    """Plan an issuing CA: no CA below it."""
    return CaPlan(kind=ISSUING_KIND, trust_domain=trust_domain, path_length=0, constraints=constraints, site=site)


def judge_root(root_der: bytes, trust_domain: TrustDomain, now: datetime) -> Refusal | None:
    """Tell whether a certificate can be this trust domain's root: no URI SAN, or the trust domain alone.

    Returns:
        None, or AUTHORITY_UNFIT with one piece of evidence for each thing that is wrong.

    Raises:
        BadInput: it cannot be read.
    """
    return _refusal(_root_findings(*_read(root_der), trust_domain, now))


def judge_issuing(
    issuing_der: bytes,
    root_der: bytes,
    public_key_der: bytes,
    trust_domain: TrustDomain,
    now: datetime,
    between: Sequence[bytes] = (),
) -> Refusal | None:
    """Tell whether a certificate can be the issuing CA under this root. ``public_key_der`` is the key that was asked for.

    ``between`` are the CAs from the one that signed it up to the one that the root signed.

    Returns:
        None, or AUTHORITY_UNFIT with one piece of evidence for each thing that is wrong.

    Raises:
        BadInput: it cannot be read.
    """
    issuing, *above = (_read(der) for der in (issuing_der, *between, root_der))
    findings = [
        *_ca_findings(*issuing, trust_domain, now),
        *_link_findings(issuing, above[0]),
        *_issuing_findings(*issuing, public_key_der, trust_domain),
        *(finding for one in above for finding in _above_findings(issuing, one)),
    ]
    for below, (one, upper) in enumerate(pairwise(above), 1):
        findings += (
            (f"between_{below}_{name}", text) for name, text in _between_findings(one, upper, below, trust_domain, now)
        )
    if not _is_room(above[-1][0], len(above)):
        findings.append(("root_path_length", f"it permits fewer than the {len(above)} CAs below it"))
    return _refusal(tuple(findings))


def within(inner: NameConstraints | None, root_der: bytes) -> NameConstraints | None:
    """Give the constraints of an issuing CA below this root: ``inner``, or the root's own where none are asked for.

    Raises:
        BadInput: they go beyond the root's.
    """
    outer = constraints_of(load(root_der).extensions)
    if outer is None or inner is None:
        return inner or outer
    beyond = exceeds(inner, outer)
    if beyond:
        raise BadInput(f"the root's name constraints do not permit {beyond}", key="permit-dns")
    return inner


def public_key_of(certificate_der: bytes) -> bytes:
    """Give a certificate's SubjectPublicKeyInfo, DER, byte for byte as it stands there.

    Raises:
        BadInput: it cannot be read.
    """
    return der.children(load(certificate_der).tbs_certificate_bytes)[_SPKI]


def _read(ca_der: bytes) -> Ca:
    return load(ca_der), facts(ca_der)


def _refusal(findings: Iterator[Finding] | tuple[Finding, ...]) -> Refusal | None:
    evidence = dict(findings)
    return Refusal(Reason.AUTHORITY_UNFIT, evidence) if evidence else None


def _root_findings(
    root: x509.Certificate, seen: CertificateFacts, trust_domain: TrustDomain, now: datetime
) -> Iterator[Finding]:
    yield from _ca_findings(root, seen, trust_domain, now)
    if _signature_fault(root, root):
        yield "signature", "not signed by itself: a root is the end of every chain"
    if seen.uri_sans not in {(), (f"spiffe://{trust_domain}",)}:
        yield "uri", f"{', '.join(seen.uri_sans)}: not spiffe://{trust_domain} alone, and not absent"
    constraints = _constraints(root)
    if seen.is_ca and constraints and constraints.ca and constraints.path_length == 0:
        yield "path_length", "0: it may sign no issuing CA"


def _issuing_findings(
    issuing: x509.Certificate, seen: CertificateFacts, public_key_der: bytes, trust_domain: TrustDomain
) -> Iterator[Finding]:
    constraints = _constraints(issuing)
    if constraints is None or constraints.path_length != 0:
        yield "path_length", "not 0: whoever steals its key could make authorities with it"
    if seen.uri_sans != (f"spiffe://{trust_domain}",):
        yield "uri", f"{', '.join(seen.uri_sans) or 'none'}: not spiffe://{trust_domain} alone"
    if der.children(issuing.tbs_certificate_bytes)[_SPKI] != public_key_der:
        yield "key", "not the one that was asked for"


def _between_findings(one: Ca, upper: Ca, below: int, trust_domain: TrustDomain, now: datetime) -> Iterator[Finding]:
    """Check a CA that stands between root and issuing CA, with ``below`` of them under it."""
    certificate, seen = one
    yield from _ca_findings(certificate, seen, trust_domain, now)
    yield from _link_findings(one, upper)
    if seen.uri_sans not in {(), (f"spiffe://{trust_domain}",)}:
        yield "uri", f"{', '.join(seen.uri_sans)}: not spiffe://{trust_domain} alone, and not absent"
    if seen.self_issued:
        yield "subject", "its issuer's own name"
    if not _is_room(certificate, below):
        yield "path_length", f"it permits fewer than the {below} CAs below it"


def _is_room(ca: x509.Certificate, below: int) -> bool:
    """Tell whether a CA's path length lets so many CAs follow below it (RFC 5280 section 4.2.1.9)."""
    constraints = _constraints(ca)
    return constraints is None or constraints.path_length is None or constraints.path_length >= below


def _link_findings(one: Ca, upper: Ca) -> Iterator[Finding]:
    """Check that one CA was signed by the other."""
    (certificate, seen), (above, above_seen) = one, upper
    if _signature_fault(certificate, above):
        yield "signature", "not the root's" if above_seen.self_issued else "not of the CA above it"
    if seen.aki and seen.aki != above_seen.ski:
        yield "authority_key_id", "not the subject key identifier of the CA above it"
    if not seen.self_issued and seen.subject == above_seen.subject:
        yield "subject", "the name of the CA above it"


def _above_findings(issuing: Ca, upper: Ca) -> Iterator[Finding]:
    """Check what each CA above binds: how long the issuing CA may live, and what it may name (RFC 5280 section 6.1)."""
    (certificate, seen), (above, above_seen) = issuing, upper
    if seen.window.not_after > above_seen.window.not_after:
        yield "window", "ends after the root" if above_seen.self_issued else "ends after a CA above it"
    try:
        outer, inner = constraints_of(above.extensions), constraints_of(certificate.extensions)
    except BadInput:
        return  # said already
    if outer and (beyond := exceeds(inner, outer)):
        whose = "the root's" if above_seen.self_issued else f"those of {above_seen.subject}"
        yield "name_constraints", f"beyond {whose}: {beyond}"


def _ca_findings(
    ca: x509.Certificate, seen: CertificateFacts, trust_domain: TrustDomain, now: datetime
) -> Iterator[Finding]:
    """Check what root and issuing CA both need (RFC 5280 sections 4.2.1 and 6.1)."""
    if not seen.is_ca:
        yield "basic_constraints", "not a CA"
    if not _signs(ca):
        yield "key_usage", "without keyCertSign and cRLSign"
    if not seen.ski:
        yield "subject_key_id", "absent"
    if seen.ekus is not None and not {CLIENT_AUTH, SERVER_AUTH} <= set(seen.ekus):
        yield "extended_key_usage", "without clientAuth and serverAuth, so nothing below it has them"
    unknown = [one.oid.dotted_string for one in ca.extensions if one.critical and one.oid not in _KNOWN_CRITICAL]
    if unknown:
        yield "critical_extension", f"{', '.join(unknown)}: not understood by every TLS library"
    if seen.signature_hash not in _STRONG:
        yield "signature_hash", seen.signature_hash
    yield from _key_findings(ca)
    yield from _window_findings(seen.window, now)
    yield from _constraint_findings(ca, trust_domain)


def _key_findings(ca: x509.Certificate) -> Iterator[Finding]:
    try:
        algorithm_of(der.children(ca.tbs_certificate_bytes)[_SPKI])
    except BadInput as error:
        yield "key", str(error)


def _window_findings(window: Window, now: datetime) -> Iterator[Finding]:
    if now < window.not_before:
        yield "window", f"begins at {window.not_before.isoformat()}"
    elif not window.contains(now):
        yield "window", f"ended at {window.not_after.isoformat()}"


def _constraint_findings(ca: x509.Certificate, trust_domain: TrustDomain) -> Iterator[Finding]:
    try:
        constraints = constraints_of(ca.extensions)
    except BadInput as error:
        yield "name_constraints", str(error)
        return
    if constraints and dict(breaches(constraints, trust_domain.name, ())):
        yield "name_constraints", f"do not permit spiffe://{trust_domain}"


def _signature_fault(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (InvalidSignature, *UNREADABLE):
        return True
    return False


def _constraints(ca: x509.Certificate) -> x509.BasicConstraints | None:
    return next((one.value for one in ca.extensions if isinstance(one.value, x509.BasicConstraints)), None)


def _signs(ca: x509.Certificate) -> bool:
    usage = next((one.value for one in ca.extensions if isinstance(one.value, x509.KeyUsage)), None)
    return usage is not None and usage.key_cert_sign and usage.crl_sign


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
