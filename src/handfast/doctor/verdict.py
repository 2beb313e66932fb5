"""Why a handshake failed, with what a person needs to see of it.

Decides between causes that Envoy reports alike, by looking at the certificate that the client sent. Refuses to believe that
certificate: what it says of itself is evidence of what the client uses, never of who the client is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId
from handfast.envoy.failures import FailureReport, printable, read_words, recognise
from handfast.trust.chain import explain_chain
from handfast.trust.facts import CertificateFacts, facts, pem_certificates

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
_USAGES = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    CLIENT_AUTH: "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}
_MOST_NAMES = 32
_CHAIN_CAUSES = frozenset(
    {
        Reason.CHAIN_UNKNOWN_AUTHORITY,
        Reason.CHAIN_MISSING_INTERMEDIATE,
        Reason.CHAIN_SAME_NAME_OTHER_KEY,
        Reason.CERT_SELF_SIGNED,
    }
)


@dataclass(frozen=True, slots=True)
class _Case:
    """All that one verdict looks at. ``depth`` is where in the chain Envoy saw the fault: 0 is the leaf."""

    report: FailureReport
    leaf: CertificateFacts
    depth: int
    known: Sequence[bytes]
    now: datetime


def verdict(report: FailureReport, offered_pem: str, known_cas: Sequence[bytes], now: datetime) -> Refusal:
    """Tell why a handshake failed.

    ``offered_pem`` is the leaf that the client sent, or empty. ``known_cas`` are the DER of every CA certificate known here,
    roots and issuing ones. The evidence holds short texts: what is wrong with the certificate, and under ``also`` what else
    would have stopped it, as Envoy reports the first error alone.
    """
    reason, words = recognise(report), read_words(report.failure)
    der, leaf = _read(offered_pem)
    said = _evidence_without_leaf(reason, report, words.alert)
    if leaf is None:
        return Refusal(reason, said)
    if reason in _CHAIN_CAUSES:
        reason = _chain_cause(reason, der, report, known_cas)
    if reason is Reason.IDENTITY_SAN_NOT_ALLOWED:
        reason = _name_cause(leaf)
    case = _Case(report, leaf, max(words.depth, 0), known_cas, now)
    seen = EVIDENCE.get(reason, _nothing)(case)
    also = [text for cause, text in _defects(case) if cause is not reason]
    evidence = {**said, **seen, **({"also": "; ".join(also)} if also else {})}
    return Refusal(reason, {name: printable(text) for name, text in evidence.items()})


def _read(offered_pem: str) -> tuple[bytes, CertificateFacts | None]:
    try:
        der = next(iter(pem_certificates(offered_pem)), b"") if offered_pem else b""
        return der, facts(der) if der else None
    except BadInput:
        return b"", None


# Causes that Envoy reports alike


def _chain_cause(reason: Reason, der: bytes, report: FailureReport, known: Sequence[bytes]) -> Reason:
    cause = explain_chain(der, sent_others=max(report.chain_length - 1, 0), known=known)
    # A certificate that Envoy could read and we cannot keeps the reason that Envoy gave.
    return cause if cause in _CHAIN_CAUSES else reason


def _name_cause(leaf: CertificateFacts) -> Reason:
    if not leaf.uri_sans:
        return Reason.IDENTITY_NO_URI_SAN
    if len(leaf.uri_sans) > 1:
        return Reason.IDENTITY_SEVERAL_URI_SANS
    try:
        SpiffeId.parse(leaf.uri_sans[0])
    except BadInput:
        return Reason.IDENTITY_NOT_SPIFFE
    return Reason.IDENTITY_SAN_NOT_ALLOWED


def _defects(case: _Case) -> list[tuple[Reason, str]]:
    """Everything that is wrong with the leaf in itself, each with the reason that it would have had."""
    leaf, now, found = case.leaf, case.now, list[tuple[Reason, str]]()
    if now >= leaf.window.not_after:
        found.append((Reason.CERT_EXPIRED, f"it expired {span(now - leaf.window.not_after)} ago"))
    if now < leaf.window.not_before:
        found.append((Reason.CERT_NOT_YET_VALID, f"it is valid in {span(leaf.window.not_before - now)}"))
    if leaf.ekus is not None and CLIENT_AUTH not in leaf.ekus:
        found.append((Reason.CERT_WRONG_EKU, f"it is for {_usages(leaf)}, not for clientAuth"))
    if leaf.is_ca:
        found.append((Reason.CERT_IS_CA, "it is a CA certificate"))
    return found


# Evidence


def _evidence_without_leaf(reason: Reason, report: FailureReport, alert: str) -> dict[str, str]:
    if reason is Reason.TLS_UNKNOWN_NAME:
        return {"asked_for": printable(report.server_name) or "no name"}
    return {"alert": printable(alert)} if alert else {}


def _nothing(_: _Case) -> dict[str, str]:
    return {}


def _expiry(case: _Case) -> dict[str, str]:
    end = case.leaf.window.not_after
    return (
        {"not_after": stamp(end), "expired": f"{span(case.now - end)} ago"} if end <= case.now else _gateway_ahead(case)
    )


def _gateway_ahead(case: _Case) -> dict[str, str]:
    return {"not_after": stamp(case.leaf.window.not_after), "clock": f"here it is {stamp(case.now)}"}


def _beginning(case: _Case) -> dict[str, str]:
    begin = case.leaf.window.not_before
    begins = (
        {"begins": f"in {span(begin - case.now)}"} if case.now < begin else {"clock": f"here it is {stamp(case.now)}"}
    )
    return {"not_before": stamp(begin), **begins}


def _issuer(case: _Case) -> dict[str, str]:
    """Name the leaf's issuer where it is the certificate at fault, and else say how far up the fault is."""
    return {"issuer": case.leaf.issuer} if case.depth <= 1 else {"depth": str(case.depth)}


def _list_issuer(case: _Case) -> dict[str, str]:
    """Name the authority whose revocation list it is: the issuer of the certificate that Envoy was looking at."""
    return {"issuer": case.leaf.issuer} if case.depth == 0 else {"issuer": f"the one above {case.leaf.issuer}"}


def _expired_issuer(case: _Case) -> dict[str, str]:
    """Add the issuer's dates where it is known here: what the client sent of it, Envoy does not report."""
    ends = [ca.window.not_after for ca in _known(case.known) if case.depth == 1 and ca.subject == case.leaf.issuer]
    past = max((end for end in ends if end <= case.now), default=None)
    return {**_issuer(case), **({"not_after": stamp(past), "expired": f"{span(case.now - past)} ago"} if past else {})}


def _known(cas: Sequence[bytes]) -> list[CertificateFacts]:
    found = []
    for der in cas:
        try:
            found.append(facts(der))
        except BadInput:
            continue
    return found


def _names(case: _Case) -> dict[str, str]:
    names = (*case.leaf.uri_sans, *case.leaf.dns_sans)
    return {"names": ", ".join(names[:_MOST_NAMES]) or "none"}


def _usages(leaf: CertificateFacts) -> str:
    return ", ".join(_USAGES.get(oid, oid) for oid in (leaf.ekus or ())[:_MOST_NAMES]) or "nothing"


EVIDENCE: Mapping[Reason, Callable[[_Case], dict[str, str]]] = {
    Reason.CERT_EXPIRED: _expiry,
    Reason.CERT_NOT_YET_VALID: _beginning,
    Reason.CERT_WRONG_EKU: lambda case: {"usages": _usages(case.leaf)},
    Reason.CHAIN_MISSING_INTERMEDIATE: lambda case: {"missing": case.leaf.issuer},
    Reason.CHAIN_UNKNOWN_AUTHORITY: lambda case: {"issuer": case.leaf.issuer},
    Reason.CHAIN_SAME_NAME_OTHER_KEY: lambda case: {"issuer": case.leaf.issuer},
    Reason.CERT_SELF_SIGNED: lambda case: {"subject": case.leaf.subject},
    Reason.CHAIN_ISSUER_EXPIRED: _expired_issuer,
    Reason.CHAIN_ISSUER_NOT_YET_VALID: _issuer,
    Reason.CHAIN_ISSUER_WRONG_EKU: _issuer,
    Reason.CHAIN_ISSUER_NOT_A_CA: _issuer,
    Reason.CHAIN_PATH_LENGTH: _issuer,
    Reason.CHAIN_NAME_CONSTRAINT: _names,
    Reason.REVOKED: lambda case: {"serial": case.leaf.serial},
    Reason.REVOKED_ISSUER: _issuer,
    Reason.REVOCATION_NO_CRL: _list_issuer,
    Reason.REVOCATION_CRL_EXPIRED: _list_issuer,
    Reason.REVOCATION_CRL_NOT_YET_VALID: _list_issuer,
    Reason.REVOCATION_CRL_UNUSABLE: _list_issuer,
    Reason.IDENTITY_SAN_NOT_ALLOWED: _names,
    Reason.IDENTITY_NO_URI_SAN: _names,
    Reason.IDENTITY_SEVERAL_URI_SANS: _names,
    Reason.IDENTITY_NOT_SPIFFE: _names,
    Reason.CHAIN_PIN_MISMATCH: lambda case: {"fingerprint": case.leaf.fingerprint},
}


# Words for times


def stamp(moment: datetime) -> str:
    """Write a moment as ``2026-11-21 04:02:43 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(length: timedelta) -> str:
    """Write a length of time with its two largest units, such as ``1 day 3 hours``; below a second, ``0 seconds``."""
    rest, parts = max(int(length.total_seconds()), 0), list[str]()
    for name, seconds in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, seconds)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " ".join(parts[:2]) or "0 seconds"
