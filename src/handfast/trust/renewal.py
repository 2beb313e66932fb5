"""When a credential is replaced: in time before its end, and early where its authority is no longer the one that counts.

Decides by the two windows of time and by what the slice says. Refuses to know who renews, and how.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from handfast.base.windows import Window
from handfast.trust.facts import facts, fingerprint
from handfast.trust.rotation import PACE, Pace


@dataclass(frozen=True, slots=True)
class Counting:
    """What counts now: the key identifier (hex) of the CA that issues, and the fingerprints of the roots that are delivered."""

    issuer: str
    roots: frozenset[str]


def counting(issuing_der: bytes, roots: Iterable[bytes]) -> Counting:
    """Read what counts from the certificates themselves (DER).

    Raises:
        BadInput: the issuing CA's certificate cannot be read.
    """
    return Counting(facts(issuing_der).ski, frozenset(map(fingerprint, roots)))


def superseded(issuer: str, roots: Iterable[bytes], now: Counting) -> bool:
    """Tell whether a credential should be replaced early: another CA issues by now, or other roots are delivered.

    ``issuer`` is the leaf's authority key identifier (hex), ``roots`` the bundle that came with it (DER).
    """
    return issuer != now.issuer or frozenset(map(fingerprint, roots)) != now.roots


def renew_at(window: Window, jitter: float, superseded_since: datetime | None, pace: Pace = PACE) -> datetime:
    """Give the time to replace a credential. ``jitter`` is from -1 to 1, and spreads both kinds of renewal.

    An early one waits for the pace's ``settle``, so that whoever is asked knows what superseded it; then it comes within its
    ``spread``, or a twentieth of a short life.
    """
    in_time = window.renew_at(jitter)
    if superseded_since is None:
        return in_time
    spread = min(pace.spread, window.length / 20)
    return min(in_time, superseded_since + pace.settle + spread * ((jitter + 1) / 2))
