"""How much each agent may have recorded.

Decides by a token bucket for each agent: what comes faster for long is left out, counted, and told in one event a minute. What an
agent says of itself, its findings, has a bucket of its own: a flood of strangers at a gateway must not hide that it is ill. Refuses to know
what an event says. An honest gateway sums up its floods itself (`handfast.envoy.flood`); this is for one that is not ours any more.

Each server has its own buckets, and forgets them when it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from handfast.base.events import Event, EventsOmitted, FindingRaised
from handfast.base.refusal import Unavailable
from handfast.io.ids import new_event_id
from handfast.io.ledger import SqlLedger

TOLD_EVERY = timedelta(minutes=1)
_UNIT = 1024
"""Octets. An event costs one for each that it begins: the records of connections and requests cost one or two."""


class Rate(NamedTuple):
    """What a bucket holds, and what comes back to it in a second."""

    burst: int
    a_second: float


EVENTS = Rate(burst=1_000_000, a_second=200.0)
"""Twenty minutes of a thousand a second, or what a gateway has to tell that was cut off for days; then 17 million a day."""
FINDINGS = Rate(burst=1_000, a_second=1.0)


@dataclass(slots=True)
class Bucket:
    """A token bucket; full at first."""

    rate: Rate
    at: datetime
    level: float = field(init=False)

    def __post_init__(self) -> None:
        """Fill it."""
        self.level = self.rate.burst

    def take(self, cost: int, now: datetime) -> bool:
        """Take ``cost`` out, and tell whether there was as much. A clock that was set back fills nothing."""
        passed = max((now - self.at).total_seconds(), 0.0)
        self.level, self.at = min(self.level + passed * self.rate.a_second, self.rate.burst), now
        if self.level < cost:
            return False
        self.level -= cost
        return True


@dataclass(slots=True)
class _Omitted:
    """What was left out of one agent's since the last event that says so."""

    since: datetime
    due: datetime
    kinds: Counter[str] = field(default_factory=Counter)


class Allowances:
    """The buckets of all agents that this server hears of."""

    def __init__(self, events: Rate = EVENTS, findings: Rate = FINDINGS) -> None:
        """Begin with all of them full."""
        self._rates = {False: events, True: findings}
        self._buckets: dict[tuple[str, bool], Bucket] = {}
        self._omitted: dict[str, _Omitted] = {}

    def admit(self, agent: str, events: Sequence[tuple[Event, int]], now: datetime) -> list[Event]:
        """Give the events that are recorded, in order. Each comes with its size in octets."""
        kept = []
        for event, size in events:
            if self._bucket(agent, now, own=isinstance(event, FindingRaised)).take(1 + size // _UNIT, now):
                kept.append(event)
            else:
                self._omit(agent, event, now)
        return kept

    def _bucket(self, agent: str, now: datetime, *, own: bool) -> Bucket:
        if (agent, own) not in self._buckets:
            self._buckets[agent, own] = Bucket(self._rates[own], now)
        return self._buckets[agent, own]

    def _omit(self, agent: str, event: Event, now: datetime) -> None:
        one = self._omitted.setdefault(agent, _Omitted(now, now))
        if not one.kinds:
            one.since = now
        one.kinds[event.kind] += 1

    async def tell(self, ledger: SqlLedger, now: datetime, *, last: bool = False) -> None:
        """Record what was left out: the first at once, what follows once a minute, the ``last`` when the server ends.

        Raises:
            Unavailable: the ledger does not answer. It is told the next time.
        """
        due = {agent: one for agent, one in self._omitted.items() if last or now >= one.due}
        for agent, one in due.items():
            del self._omitted[agent]
            if one.kinds:
                self._omitted[agent] = _Omitted(now, now + TOLD_EVERY)
                await self._tell(ledger, agent, one, now)

    async def _tell(self, ledger: SqlLedger, agent: str, one: _Omitted, now: datetime) -> None:
        kinds = dict(sorted(one.kinds.items()))
        event = EventsOmitted(
            id=new_event_id(), at=now, agent=agent, count=one.kinds.total(), kinds=kinds, since=one.since
        )
        try:
            await ledger.append([event])
        except Unavailable:
            self._again(agent, one)
            raise

    def _again(self, agent: str, one: _Omitted) -> None:
        """Put back what could not be told."""
        one.kinds.update(self._omitted[agent].kinds if agent in self._omitted else {})
        self._omitted[agent] = one
