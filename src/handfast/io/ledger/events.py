"""The journal: what happened, in the order in which it was written.

Decides the order (``seq``, which never goes back), and who is told: `event_head` has the newest seq, `changes` the
generation of what agents must know. Both move only after the commit, and also where the caller was cancelled meanwhile.
Refuses to know what an event means.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from handfast.base.events import KINDS, Event
from handfast.base.refusal import BadInput
from handfast.io.database import Database, Result, Row, Step, placeholders, step
from handfast.io.encoding import decode_event, encode_event
from handfast.io.topic import Topic

MAX_BATCH = 1000
NEWEST = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_GENERATION = "generation"

_INSERT = "insert into events (id, kind, at, body) values ($1, $2, $3, $4) returning seq"
_INSERT_NEW = (
    "insert into events (id, kind, at, body) values ($1, $2, $3, $4) on conflict (id) do nothing returning seq"
)
_BODIES = "select seq, body from events where seq > $1 order by seq limit $2"
_COUNT = """insert into meta (key, value) values ($1, '1')
    on conflict (key) do update set value = cast(cast(meta.value as bigint) + 1 as text)
    returning cast(value as bigint)"""


def to_micros(moment: datetime) -> int:
    """Give microseconds since 1970, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Give the UTC time of a count of microseconds since 1970."""
    return _EPOCH + micros * _MICROSECOND


def bounded(limit: int) -> int:
    """Give ``limit`` back.

    Raises:
        BadInput: it is not from 1 to 1000.
    """
    if not 1 <= limit <= MAX_BATCH:
        raise BadInput(f"{limit} is not from 1 to {MAX_BATCH}", key="limit")
    return limit


def count_up(name: str) -> Step:
    """Give the step that raises the counter ``name`` and returns it."""
    return step(_COUNT, name)


class Events:
    """The events, and the topics that say that something is new."""

    def __init__(self, db: Database) -> None:
        """Stand over ``db``. The topics begin at 0, until `refresh` or a commit."""
        self._db = db
        self.changes = Topic(0)
        self.event_head = Topic(0)

    async def refresh(self) -> None:
        """Bring the topics to what the database says; another process may have written to it."""
        head = await self._db.one("select coalesce(max(seq), 0) from events")
        generation = await self._db.one("select cast(value as bigint) from meta where key = $1", _GENERATION)
        self._advance(self.event_head, [head] if head else [])
        self._advance(self.changes, [generation] if generation else [])

    async def append(self, events: Sequence[Event]) -> list[Event]:
        """Keep events, 1000 at most, and give those that were new. An id that is known is passed over: agents send again.

        Raises:
            BadInput: they are too many, or one cannot be written as JSON.
        """
        if len(events) > MAX_BATCH:
            raise BadInput(f"more than {MAX_BATCH} events at once", hint="send them in several requests")
        if not events:
            return []
        steps = [_insert(event, _INSERT_NEW) for event in events]
        results = await self._db.write(*steps, then=self._announce_events)
        return [event for event, result in zip(events, results, strict=True) if result.count]

    async def page(self, after: int = 0, limit: int = 100, kinds: Collection[str] = ()) -> list[tuple[int, Event]]:
        """Give the events after seq ``after``, oldest first, with their seq. No kinds named means all.

        Raises:
            BadInput: the limit is not from 1 to 1000, or a kind is unknown.
        """
        where, names = _of_kinds(kinds, first=3)
        sql = f"select seq, body from events where seq > $1 {where} order by seq limit $2"  # noqa: S608 - placeholders
        return [_event(row) for row in await self._db.fetch(sql, after, bounded(limit), *names)]

    async def bodies(self, after: int, limit: int = MAX_BATCH) -> list[tuple[int, bytes]]:
        """Give the events after seq ``after`` as `page` does, each as the JSON that was written.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        rows = await self._db.fetch(_BODIES, after, bounded(limit))
        return [(seq, body.encode()) for seq, body in rows]

    async def recent(self, limit: int = 100, kinds: Collection[str] = ()) -> list[tuple[int, Event]]:
        """Give the newest events, newest first, with their seq.

        Raises:
            BadInput: the limit is not from 1 to 1000, or a kind is unknown.
        """
        where, names = _of_kinds(kinds, first=2)
        sql = f"select seq, body from events where seq > 0 {where} order by seq desc limit $1"  # noqa: S608 - placeholders
        return [_event(row) for row in await self._db.fetch(sql, bounded(limit), *names)]

    async def event(self, event_id: str) -> Event | None:
        """Find an event by its id: for a denied request, the request id that the client got."""
        row = await self._db.one("select seq, body from events where id = $1", event_id)
        return _event(row)[1] if row else None

    async def _commit(self, *steps: Step, events: Sequence[Event] = (), changes: bool = False) -> list[Result]:
        """Write steps and their events as one unit; ``changes`` where agents must know. Give the steps' results.

        Raises:
            Conflict: as `Database.write`; also where an event's id is taken.
        """
        own = len(steps)
        inserts = [_insert(event) for event in events]
        bump = [count_up(_GENERATION)] if changes else []

        def announce(results: list[Result]) -> None:
            self._announce_events(results[own : own + len(inserts)])
            self._advance(self.changes, [row for result in results[own + len(inserts) :] for row in result.rows])

        results = await self._db.write(*steps, *inserts, *bump, then=announce)
        return results[:own]

    def _announce_events(self, results: list[Result]) -> None:
        self._advance(self.event_head, [row for result in results for row in result.rows])

    def _advance(self, topic: Topic[int], rows: list[Row]) -> None:
        topic.publish(max([topic.value, *(row[0] for row in rows)]))


def _insert(event: Event, sql: str = _INSERT) -> Step:
    return step(sql, event.id, event.kind, to_micros(event.at), encode_event(event).decode())


def _of_kinds(kinds: Collection[str], first: int) -> tuple[str, list[str]]:
    names = sorted(set(kinds))
    if unknown := [name for name in names if name not in KINDS]:
        raise BadInput(f"{unknown[0][:80]!r} is no kind of event", hint=f"one of {', '.join(KINDS)}", key="kinds")
    return (f"and kind in ({placeholders(len(names), first)})" if names else "", names)


def _event(row: Row) -> tuple[int, Event]:
    seq, body = row
    return seq, decode_event(body.encode())
