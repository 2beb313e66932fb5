"""What a CA says of the one that answers OCSP in its place, and whether a certificate that somebody else made says it.

Decides name and extensions of a responder's certificate (RFC 6960 section 4.2.2.2), and the judgement of one that came from
elsewhere. Refuses to know keys, files and answers.

It names no identity: it can answer OCSP, and nothing else. Nobody is to ask for its own status (id-pkix-ocsp-nocheck), so it lives
as long as the issuing CA that it came with, at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import TrustDomain
from handfast.trust.ca import Finding, named, public_key_of
from handfast.trust.facts import CertificateFacts, facts, load
from handfast.trust.profile import OCSP_SIGNING, UNREADABLE

RESPONDER_KIND = "Handfast CA responder"
GRACE = timedelta(days=1)
"""How much later than the issuing CA it may end: a keeper signs one after the other, and each for so many days."""


@dataclass(frozen=True, slots=True)
class ResponderPlan:
    """What a responder's certificate will say."""

    trust_domain: TrustDomain

    site = None
    """Nobody is to ask for its status."""

    @property
    def name(self) -> x509.Name:
        """The kind and the trust domain. A CA may not answer under its own name, which this cannot be."""
        return named(RESPONDER_KIND, self.trust_domain)

    def extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        """Give its extensions, each with whether it is critical, but not the key identifiers."""
        return [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), False),
            (x509.OCSPNoCheck(), False),
        ]


def is_responder(certificate_der: bytes) -> bool:
    """Tell whether a certificate is one for answering OCSP, good or not.

    Raises:
        BadInput: it cannot be read.
    """
    seen = facts(certificate_der)
    return not seen.is_ca and OCSP_SIGNING in (seen.ekus or ())


def may_answer(responder_der: bytes, signer_der: bytes, public_key_der: bytes) -> bool:
    """Tell whether a certificate lets this key answer OCSP for the CA ``signer_der``, whenever that is.

    Raises:
        BadInput: it cannot be read.
    """
    unfit = dict(_findings(load(responder_der), facts(responder_der), load(signer_der)))
    return not unfit and public_key_of(responder_der) == public_key_der


def judge_responder(
    responder_der: bytes, issuing_der: bytes, signer_der: bytes, public_key_der: bytes, now: datetime
) -> Refusal | None:
    """Tell whether a certificate lets a key answer OCSP for ``signer_der``, the CA that signed the issuing CA.

    Returns:
        None, or AUTHORITY_UNFIT with one piece of evidence for each thing that is wrong.

    Raises:
        BadInput: it cannot be read.
    """
    responder, seen = load(responder_der), facts(responder_der)
    findings = dict(_findings(responder, seen, load(signer_der)))
    if public_key_of(responder_der) != public_key_der:
        findings["responder_key"] = "not the one that was asked for"
    if not seen.window.contains(now) or seen.window.not_after > facts(issuing_der).window.not_after + GRACE:
        findings["responder_window"] = (
            "not valid now, or ends after the issuing CA: nobody can learn that it was revoked"
        )
    return Refusal(Reason.AUTHORITY_UNFIT, findings) if findings else None


def _findings(responder: x509.Certificate, seen: CertificateFacts, signer: x509.Certificate) -> Iterator[Finding]:
    if not _issued(responder, signer):
        yield "responder_signature", "not of the CA that signed the issuing CA"
    if seen.is_ca or seen.ekus != (OCSP_SIGNING,):
        yield "responder_usage", "not for OCSPSigning alone (RFC 6960 section 4.2.2.2)"
    kinds = {type(one.value) for one in responder.extensions}
    if x509.OCSPNoCheck not in kinds:
        yield "responder_nocheck", "without id-pkix-ocsp-nocheck: clients would ask for its own status"
    if not _may_sign(responder):
        yield "responder_key_usage", "without digitalSignature"
    if not seen.ski:
        yield "responder_key_id", "absent"


def issued(certificate_der: bytes, signer_der: bytes) -> bool:
    """Tell whether a CA signed a certificate under its own name.

    Raises:
        BadInput: one of the two cannot be read.
    """
    return _issued(load(certificate_der), load(signer_der))


def _issued(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _may_sign(responder: x509.Certificate) -> bool:
    usage = next((one.value for one in responder.extensions if isinstance(one.value, x509.KeyUsage)), None)
    return usage is not None and usage.digital_signature


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
