"""What a revocation list says: which serials, why, since when, until when it counts.

Decides the content and the bytes of a CRL (RFC 5280 section 5). Refuses to know where revocations are kept, and who
publishes the list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from handfast.base.refusal import BadInput
from handfast.base.windows import Window, whole_second
from handfast.trust import der
from handfast.trust.facts import IssuerFacts
from handfast.trust.leaf import ECDSA_SHA256, authority_key_id
from handfast.trust.profile import BACKDATE

CRL_LIFE = timedelta(days=7)
_VERSION_2 = der.integer(1)


class RevocationReason(StrEnum):
    """The reasons of RFC 5280 section 5.3.1 that can be given here.

    ``certificateHold`` and ``removeFromCRL`` are not among them: nothing that was revoked comes back.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"

    @property
    def code(self) -> int:
        """The number of the CRLReason."""
        return _CODES[self]


_CODES = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.CA_COMPROMISE: 2,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
    RevocationReason.AA_COMPROMISE: 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """One revoked certificate. ``serial`` and ``fingerprint`` are lower case hex; ``not_after`` is the certificate's own end."""

    serial: str
    fingerprint: str
    at: datetime
    reason: RevocationReason
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlPlan:
    """Everything that a CRL will say. ``entries`` have each serial once, in the order of the serials."""

    issuer: IssuerFacts
    number: int
    window: Window
    entries: tuple[Revoked, ...]


def live(revoked: Iterable[Revoked], now: datetime) -> tuple[Revoked, ...]:
    """Drop those whose certificate has expired, as it is refused for that alone."""
    return tuple(one for one in revoked if now < one.not_after)


def crl_plan(
    revoked: Iterable[Revoked],
    issuer: IssuerFacts,
    *,
    number: int,
    now: datetime,
    until: datetime | None = None,
) -> CrlPlan:
    """Plan a CRL of the revocations that are live.

    ``number`` grows with every list of this issuer. ``until`` is when the next one is due: in 7 days where it is not given. A
    serial that stands there twice keeps its first revocation.

    Raises:
        BadInput: the number is negative or needs more than 20 octets (RFC 5280 section 5.2.3).
    """
    if number < 0 or number.bit_length() > 159:
        raise BadInput("a CRL's number is positive and fits into 20 octets")
    first: dict[str, Revoked] = {}
    for one in sorted(live(revoked, now), key=lambda one: one.at):
        first.setdefault(one.serial, one)
    # Backdated as leaves are: a host whose clock is behind would refuse every certificate for a list that is not valid yet.
    begin = whole_second(now) - BACKDATE
    window = Window(begin, whole_second(until or now + CRL_LIFE))
    entries = tuple(sorted(first.values(), key=lambda one: int(one.serial, 16)))
    return CrlPlan(issuer=issuer, number=number, window=window, entries=entries)


def tbs(plan: CrlPlan) -> bytes:
    """Write the TBSCertList of a plan, for an issuer that signs with ECDSA and SHA-256 (RFC 5280 section 5.1)."""
    entries = der.sequence(*map(_entry, plan.entries)) if plan.entries else b""  # absent, never empty (5.1.2.6)
    extensions = der.sequence(
        authority_key_id(plan.issuer.key_id), der.extension("2.5.29.20", der.integer(plan.number))
    )
    return der.sequence(
        _VERSION_2,
        ECDSA_SHA256,
        plan.issuer.subject_der,
        der.time(plan.window.not_before),
        der.time(plan.window.not_after),
        entries,
        der.tlv(0xA0, extensions),
    )


def _entry(one: Revoked) -> bytes:
    """Write one revoked certificate; "unspecified" is said by saying nothing (RFC 5280 section 5.3.1)."""
    code = one.reason.code
    reason = der.sequence(der.extension("2.5.29.21", der.integer(code, tag=0x0A))) if code else b""
    return der.sequence(der.integer(int(one.serial, 16)), der.time(one.at), reason)
