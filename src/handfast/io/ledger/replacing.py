"""Which leaves nobody depends on any more, though they have not ended: those whose holder uses another one by now.

The law of this file. What a holder does counts, and what it says never does alone.

- Whoever proves possession of a leaf gets its *successor*. Nothing follows yet: the answer may be lost, and then the old one is
  all that there is.
- Once the successor was seen in use, the old one is replaced. So is a successor whose answer was lost, where the one in use has its
  key (`handfast.io.ledger.lost`).
- Where the old one is seen in use after that, there is a copy of it elsewhere. It counts again, until a later successor is used. A
  connection to a gateway is such a use, if it began after that; for a successor it proves nothing, as the old one may serve beside it.
- An agent says what its Envoy serves. What the same gateway got before for the same names is replaced.
- All else is decided by time: a leaf counts until it ends.

Refuses to know who waits for it (`handfast.trust.rotation`), and who is seen by what (the callers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from handfast.io.database import Row, Step, placeholders, step
from handfast.io.ledger.events import Events, from_micros, to_micros
from handfast.io.ledger.lost import known, lined_up
from handfast.io.records import CertificateState

CHUNK = 500
REPLACED = """(serial in (select serial from replaced)
    or serial in (select serial from replacing where used_at is not null and again_at is null))"""
"""A condition on certificates: nobody depends on it."""

_FORGET = tuple(f"delete from {table} where ends <= $1" for table in ("replaced", "replacing", "aware"))  # noqa: S608 - names of ours


class Replacements(Events):
    """The part of the ledger that knows what replaced what."""

    async def note_replaced(self, serial: str, ends: datetime, now: datetime) -> None:
        """Keep that the only holder of a leaf uses another one by now, until the leaf expires."""
        await self._db.write(_replaced(serial, to_micros(ends)), *_forget(now))

    async def note_successor(self, successor: str, serial: str, ends: datetime, now: datetime) -> None:
        """Keep that ``successor`` was issued to a holder of the leaf ``serial``, which ends at ``ends``."""
        sql = "insert into replacing (successor, serial, ends) values ($1, $2, $3) on conflict (successor) do nothing"
        await self._db.write(step(sql, successor, serial, to_micros(ends)), *_forget(now))

    async def note_seen(self, seen: Mapping[str, datetime], grace: timedelta) -> None:
        """Keep what follows from the leaves (by serial) that were seen in use, and when.

        What was under way with an old leaf ends within ``grace`` after its successor was first used; later it is a copy.
        """
        serials = sorted(seen)
        for start in range(0, len(serials), CHUNK):
            some = serials[start : start + CHUNK]
            here = placeholders(len(some))
            sql = f"""select successor, serial, used_at from replacing where used_at is null and successor in ({here})
                or used_at is not null and again_at is null and serial in ({here})"""  # noqa: S608 - placeholders
            rows = await self._db.fetch(sql, *some)
            first = {successor: serial for successor, serial, used_at in rows if used_at is None}
            steps = [*await lined_up(self._db, first, seen), *_noted(rows, seen, grace)]
            if steps:
                await self._db.write(*steps)

    async def note_at_gateways(self, seen: Mapping[str, datetime], grace: timedelta) -> None:
        """Keep what follows from the leaves (by fingerprint) that connected to a gateway, and when: some may be copies of replaced ones."""
        shown = sorted(seen)
        for start in range(0, len(shown), CHUNK):
            some = shown[start : start + CHUNK]
            sql = f"""select r.successor, c.fingerprint, r.used_at from certificates c join replacing r on r.serial = c.serial
                where c.fingerprint <> '' and c.fingerprint in ({placeholders(len(some))})
                and r.used_at is not null and r.again_at is null"""  # noqa: S608 - placeholders
            steps = list(_noted(await self._db.fetch(sql, *some), seen, grace))
            if steps:
                await self._db.write(*steps)

    async def note_keeper(self, serial: str, now: datetime) -> None:
        """Keep that the leaf ``serial`` has come to one who asks with a key until its answer comes, and never after.

        What else has its name and its key was lost on the way, and its issuance with it perhaps, before a successor was noted.
        """
        uses = [one for one in await known(self._db, "serial = $1", serial) if one.key]
        where = "name = (select name from certificates where serial = $1) and serial <> $1 and not_after > $2"
        others = await known(self._db, f"{where} and not {REPLACED}", serial, to_micros(now))
        steps = [_replaced(one.serial, one.ends) for one in others if one.key in {use.key for use in uses}]
        if steps:
            await self._db.write(*steps, *_forget(now))

    async def note_aware(self, serial: str, generation: int, ends: datetime, now: datetime) -> None:
        """Keep that a leaf came with the root of ``generation`` in its bundle, whatever the time says."""
        sql = "insert into aware (serial, generation, ends) values ($1, $2, $3) on conflict (serial) do nothing"
        await self._db.write(step(sql, serial, generation, to_micros(ends)), *_forget(now))

    async def note_served(self, name: str, serials: Collection[str], now: datetime) -> None:
        """Keep what follows from the leaves that the one holder of ``name`` serves now. Those of other names are passed over."""
        sql = "select serial, dns, seq, not_after from certificates where name = $1 and not_after > $2 and state in ($3, $4)"
        states = (CertificateState.ISSUED.value, CertificateState.INTENDED.value)
        live = await self._db.fetch(sql, name, to_micros(now), *states)
        newest: dict[str, int] = {}
        for serial, dns, seq, _ in live:
            if serial in serials:
                newest[dns] = max(seq, newest.get(dns, 0))
        steps = [_replaced(serial, ends) for serial, dns, seq, ends in live if seq < newest.get(dns, 0)]
        if steps:
            await self._db.write(*steps, *_forget(now))


def _noted(rows: list[Row], seen: Mapping[str, datetime], grace: timedelta) -> Iterator[Step]:
    for successor, serial, used_at in rows:
        if used_at is None:
            yield _at("used_at", successor, seen[successor])
        elif seen[serial] > from_micros(used_at) + grace:
            yield _at("again_at", successor, seen[serial])


def _at(column: str, successor: str, moment: datetime) -> Step:
    sql = f"update replacing set {column} = $2 where successor = $1 and {column} is null"  # noqa: S608 - names of ours
    return step(sql, successor, to_micros(moment))


def _replaced(serial: str, ends: int) -> Step:
    return step("insert into replaced (serial, ends) values ($1, $2) on conflict (serial) do nothing", serial, ends)


def _forget(now: datetime) -> Iterator[Step]:
    return (step(sql, to_micros(now)) for sql in _FORGET)
