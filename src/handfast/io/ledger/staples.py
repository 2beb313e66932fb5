"""Until when the OCSP responses count that gateways staple to their hosts' certificates, as their agents say.

Decides nothing: it keeps an agent's last word on each host. Refuses to know responses (`handfast.trust.staple`) and hosts (the world).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from handfast.io.database import Step, step
from handfast.io.ledger.events import Events, from_micros, to_micros

_BELOW = "staple/"


class StapleEnd(NamedTuple):
    """When the response that an agent's gateway staples for a host is due to be replaced (``nextUpdate``, RFC 6960 section 4.2.2.1)."""

    agent: str
    host: str
    ends: datetime


class StapleEnds(Events):
    """The ends of staples. They stand among the ledger's single values, one for each agent and host."""

    async def note_staples(self, agent: str, ends: Mapping[str, datetime | None]) -> None:
        """Keep an agent's word on some hosts; ``None`` where it has no response any more."""
        if ends:
            await self._db.write(*(_written(f"{_BELOW}{agent}/{host}", end) for host, end in ends.items()))

    async def staples(self) -> list[StapleEnd]:
        """Give what is known, by host and agent."""
        sql = "select key, value from meta where substr(key, 1, $1) = $2"
        found = [_read(key, value) for key, value in await self._db.fetch(sql, len(_BELOW), _BELOW)]
        return sorted(found, key=lambda one: (one.host, one.agent))


def forgotten(agent: str) -> Step:
    """Give the step that forgets all that an agent said."""
    own = f"{_BELOW}{agent}/"
    return step("delete from meta where substr(key, 1, $1) = $2", len(own), own)


def _written(key: str, end: datetime | None) -> Step:
    if end is None:
        return step("delete from meta where key = $1", key)
    sql = "insert into meta (key, value) values ($1, $2) on conflict (key) do update set value = excluded.value"
    return step(sql, key, str(to_micros(end)))


def _read(key: str, value: str) -> StapleEnd:
    agent, _, host = key.removeprefix(_BELOW).partition("/")
    return StapleEnd(agent, host, from_micros(int(value)))
