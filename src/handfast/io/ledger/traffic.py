"""Traffic, counted by the hour: what a change of policy would have met.

Decides the buckets: hour, host, route, identity, method, decision. Refuses to keep paths, addresses, or single requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from handfast.base.refusal import BadInput
from handfast.io.database import placeholders, step
from handfast.io.ledger.events import MAX_BATCH, Events, bounded, to_micros

MAX_COUNTS = 10_000
MAX_TOTALS = 10_000
MAX_KINDS = 20_000
"""How many kinds of requests are told apart in an hour: gateways name the identities, and one of them may not be ours any more."""
TOO_MANY = "!"
"""Stands for the identities of further ones; no name of ours has such a character."""
_DIMENSIONS = "host, route, identity, method, decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficCount:
    """How many requests were alike. ``identity`` is empty without a certificate; ``decision`` is a word such as ``deny``."""

    host: str
    route: str
    identity: str
    method: str
    decision: str
    count: int


class Traffic(Events):
    """The counts of requests."""

    async def add_traffic(self, hour: datetime, counts: Sequence[TrafficCount]) -> None:
        """Add counts, 10,000 at most, to the bucket of ``hour`` (cut to the whole hour, UTC).

        Where the hour has `MAX_KINDS` already, those of new kinds are added under the identity `TOO_MANY`.

        Raises:
            BadInput: they are too many, or one is negative.
        """
        if len(counts) > MAX_COUNTS:
            raise BadInput(f"more than {MAX_COUNTS} counts at once", hint="send them in several requests")
        if any(one.count < 0 for one in counts):
            raise BadInput("a count is negative", key="count")
        if not counts:
            return
        bucket = to_micros(_whole_hour(hour))
        counts = await self._fitting(bucket, counts)
        sql = f"""insert into traffic (hour, {_DIMENSIONS}, count) values ($1, $2, $3, $4, $5, $6, $7)
            on conflict (hour, {_DIMENSIONS}) do update set count = traffic.count + excluded.count"""  # noqa: S608 - names
        steps = [
            step(sql, bucket, one.host, one.route, one.identity, one.method, one.decision, one.count) for one in counts
        ]
        await self._db.write(*steps)

    async def _fitting(self, bucket: int, counts: Sequence[TrafficCount]) -> list[TrafficCount]:
        """Give the counts, those of new kinds under one identity where the hour has no room for all."""
        ((kept,),) = await self._db.fetch("select count(*) from traffic where hour = $1", bucket)
        if kept + len(counts) <= MAX_KINDS:
            return list(counts)
        names = _DIMENSIONS.split(", ")
        known = f"select 1 from traffic where hour = $1 and ({_DIMENSIONS}) = ({placeholders(len(names), 2)})"  # noqa: S608 - names
        return [
            one
            if await self._db.one(known, bucket, *(getattr(one, name) for name in names))
            else replace(one, identity=TOO_MANY)
            for one in counts
        ]

    async def traffic(self, since: datetime) -> list[TrafficCount]:
        """Give the sums from the hour of ``since`` on, the largest first, 10,000 at most."""
        sql = f"""select {_DIMENSIONS}, cast(sum(count) as bigint) as total from traffic where hour >= $1
            group by {_DIMENSIONS} order by total desc, {_DIMENSIONS} limit {MAX_TOTALS}"""  # noqa: S608 - names
        return [
            TrafficCount(host=host, route=route, identity=identity, method=method, decision=decision, count=count)
            for host, route, identity, method, decision, count in await self._db.fetch(
                sql, to_micros(_whole_hour(since))
            )
        ]

    async def prune_traffic(self, before: datetime, limit: int = MAX_BATCH) -> int:
        """Forget the oldest hours that ended before ``before``, at most ``limit`` of them, and give how many rows.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = """delete from traffic where hour in
            (select distinct hour from traffic where hour < $1 order by hour limit $2)"""
        results = await self._db.write(step(sql, to_micros(_whole_hour(before)), bounded(limit)))
        return results[0].count


def _whole_hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
