"""Windows of time: from when until when something counts, and when to replace it.

All times are aware datetimes in UTC, in whole seconds where X.509 needs them (RFC 5280 section 4.1.2.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handfast.base.refusal import BadInput


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A certificate's validity. It counts from ``not_before`` on, and has ended at ``not_after``.

    RFC 5280 lets a certificate live through the second named ``not_after``; we end it as that second begins, so that an
    open connection can never outlive its certificate by part of a second.
    """

    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        """Refuse an empty window, and times without a zone."""
        if self.not_before.tzinfo is None or self.not_after.tzinfo is None:
            raise BadInput("a window's times need a time zone")
        if self.not_after <= self.not_before:
            raise BadInput("the window ends before it begins")

    def contains(self, now: datetime) -> bool:
        """Tell whether ``now`` lies in it."""
        return self.not_before <= now < self.not_after

    @property
    def length(self) -> timedelta:
        """How long it is."""
        return self.not_after - self.not_before

    def renew_at(self, jitter: float) -> datetime:
        """Give the time to replace it: two thirds of its life, moved by ``jitter`` (-1 to 1) twentieths of it."""
        return self.not_before + self.length * (2 / 3 + jitter / 20)


def whole_second(moment: datetime) -> datetime:
    """Cut off the fraction of a second, as X.509 times have none."""
    return (moment if moment.tzinfo is UTC else moment.astimezone(UTC)).replace(microsecond=0)


def from_unix(seconds: float) -> datetime:
    """Give the UTC time of a count of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def to_unix(moment: datetime) -> int:
    """Give whole seconds since 1970."""
    return int(moment.timestamp())
