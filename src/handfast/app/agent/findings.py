"""What is wrong with this agent now, and what of it the server has not heard yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from handfast.base.events import FindingRaised
from handfast.base.reasons import Reason
from handfast.io.ids import new_event_id
from handfast.io.ports import Clock

_log = structlog.get_logger("handfast.agent")
MOST = 100
LONGEST = 2048
AGAIN = timedelta(minutes=1)
LIFE = timedelta(minutes=10)


class Findings:
    """The findings of one agent. Each stands until it is resolved; one that nothing resolves, for ten minutes."""

    def __init__(self, source: str, clock: Clock) -> None:
        """Begin with none."""
        self._source, self._clock = source, clock
        self._standing: dict[str, FindingRaised] = {}
        self.untold: list[FindingRaised] = []

    def find(self, reason: Reason, evidence: dict[str, str]) -> None:
        """Raise a finding. The same one is told again after a minute at the earliest."""
        key, now = f"{reason}{sorted(evidence.items())}", self._clock.now()
        held = self._standing.get(key)
        if held and held.at <= now < held.at + AGAIN:  # one of the future is of a clock that was set back
            return
        seen = {name: text[:LONGEST] for name, text in evidence.items()}
        finding = FindingRaised(id=new_event_id(), at=now, source=self._source, reason=reason, evidence=seen)
        self._standing = dict([*self._standing.items(), (key, finding)][-MOST:])
        self.untold = [*self.untold, finding][-MOST:]
        _log.warning(reason.value, **seen)

    def resolve(self, *reasons: Reason) -> None:
        """Take findings back: what they told of is over."""
        self._standing = {key: finding for key, finding in self._standing.items() if finding.reason not in reasons}

    @property
    def standing(self) -> list[FindingRaised]:
        """What is wrong now. What Envoy rejected stands until it has taken something better."""
        now = self._clock.now()
        return [f for f in self._standing.values() if f.at <= now < f.at + LIFE or f.reason is Reason.ENVOY_REJECTED]

    def told(self, findings: Sequence[FindingRaised]) -> None:
        """Keep that the server has heard of these."""
        self.untold = [finding for finding in self.untold if finding not in findings]
