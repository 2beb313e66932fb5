"""Who a certificate is of, and whether it stands now.

Decides on certificates whose chain TLS has verified: never call it on one that merely arrived. Refuses to know how they were
verified, and who may do what. `envoy/access.lua` says the same inside Envoy, check by check and in this order.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from datetime import datetime

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust.facts import CertificateFacts

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
FEWEST_RSA_BITS = 2048
WEAK_HASHES = frozenset({"md2", "md5", "sha1", "unknown"})
"""``unknown`` is how facts call a signature algorithm that nobody here knows: it cannot be called strong."""

_SHOWN = 200


def identify(facts: CertificateFacts, *, trust: Collection[TrustDomain]) -> SpiffeId | Refusal:
    """Read the one identity that a verified leaf carries.

    A leaf is for client authentication (RFC 5280 section 4.2.1.12; ``anyExtendedKeyUsage`` alone is not enough) and has
    exactly one URI SAN, a SPIFFE id (X509-SVID section 2) of one of the trust domains in ``trust``.
    """
    return unfit(facts) or _identity(facts.uri_sans, trust)


def standing(facts: CertificateFacts, *, revoked: Container[str], now: datetime) -> Refusal | None:
    """Tell what counts against a certificate now: revoked, expired, or not yet valid, in this order.

    ``revoked`` holds SHA-256 fingerprints in lower case hex. A certificate has ended as ``not_after`` begins.
    """
    if facts.fingerprint in revoked:
        return Refusal(Reason.REVOKED, {"serial": facts.serial})
    if now >= facts.window.not_after:
        return Refusal(Reason.CERT_EXPIRED, {"not_after": facts.window.not_after.isoformat()})
    if now < facts.window.not_before:
        return Refusal(Reason.CERT_NOT_YET_VALID, {"not_before": facts.window.not_before.isoformat()})
    return None


def unfit(facts: CertificateFacts) -> Refusal | None:
    """Tell what keeps a leaf from proving who a client is, whoever issued it: its uses, its key, its signature."""
    if facts.is_ca:
        return Refusal(Reason.CERT_IS_CA)
    if facts.ekus is None:
        return Refusal(Reason.CERT_NO_EKU)
    if CLIENT_AUTH not in facts.ekus:
        return Refusal(Reason.CERT_WRONG_EKU, {"eku": ", ".join(facts.ekus)[:_SHOWN]})
    return _unfit_key(facts) or _weak_signature(facts)


def _unfit_key(facts: CertificateFacts) -> Refusal | None:
    match facts.key_kind:
        case "rsa" if facts.key_bits < FEWEST_RSA_BITS:
            return Refusal(Reason.CERT_WEAK_KEY, {"key": f"rsa {facts.key_bits}"})
        case "rsa" | "ed25519":
            return None
        case "ec" if facts.curve in CURVES:
            return None
        case _:
            return Refusal(Reason.CERT_UNSUPPORTED_KEY, {"key": f"{facts.key_kind} {facts.curve}".strip()})


def _weak_signature(facts: CertificateFacts) -> Refusal | None:
    if facts.signature_hash in WEAK_HASHES:
        return Refusal(Reason.CERT_WEAK_SIGNATURE, {"hash": facts.signature_hash})
    return None


def _identity(uri_sans: tuple[str, ...], trust: Collection[TrustDomain]) -> SpiffeId | Refusal:
    if not uri_sans:
        return Refusal(Reason.IDENTITY_NO_URI_SAN)
    if len(uri_sans) > 1:
        return Refusal(Reason.IDENTITY_SEVERAL_URI_SANS, {"uri_sans": ", ".join(uri_sans)[:_SHOWN]})
    try:
        identity = SpiffeId.parse(uri_sans[0])
    except BadInput as error:
        return Refusal(Reason.IDENTITY_NOT_SPIFFE, {"uri_san": uri_sans[0][:_SHOWN], "why": error.message})
    if identity.trust_domain not in trust:
        return foreign(identity)
    return identity


def foreign(identity: SpiffeId) -> Refusal:
    """Give the refusal of an identity whose trust domain does not count at a host."""
    return Refusal(Reason.IDENTITY_FOREIGN_DOMAIN, {"trust_domain": identity.trust_domain.name})
