"""The generations of authorities, and what a rotation has to know: who has which slice, whose leaf hangs on what.

Decides that a step is written only over the states that it was decided on, so two servers never take two steps at once. Refuses to
decide steps: `handfast.trust.rotation` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from handfast.base.events import Event
from handfast.base.windows import Window
from handfast.io.database import Conflict, Database, Row, Step, Value, step
from handfast.io.ledger.events import Events, from_micros, to_micros
from handfast.io.ledger.replacing import REPLACED, Replacements
from handfast.io.ledger.staples import forgotten
from handfast.io.records import CertificateState
from handfast.trust.entries import RESERVED
from handfast.trust.rotation import AgentSeen, Generation, Generations, Holder, Leaves, Stage

SHOWN = 20
_COLUMNS = "number, root, predecessor, stage, since, issuer, begins, ends, root_begins, root_ends, compromised"
_UNREVOKED = "not_after > $1 and state in ($2, $3)"
_LIVE = f"{_UNREVOKED} and not {REPLACED}"
_BY_NAME = """name, count(*), max(not_after), max(not_before),
    sum(case when serial in (select serial from replacing) then 1 else 0 end),
    sum(case when serial in (select serial from replacing where again_at is not null) then 1 else 0 end)"""
_UNLIKE = f"(name < '{RESERVED}' or name >= '{RESERVED[:-1]}0')"
_LIKE = f"name >= '{RESERVED}' and name < '{RESERVED[:-1]}0'"

InUse = Mapping[str, datetime]
"""For names that have one holder: when the certificate which it was seen with began."""


class Rotations(Replacements):
    """The rotation's part of the ledger, over the ledger's own database."""

    def __init__(self, db: Database, told: Events | None = None) -> None:
        """Stand over ``db``, and move the topics of ``told``, so that who follows those hears of steps at once."""
        super().__init__(db)
        if told:
            self.changes, self.event_head = told.changes, told.event_head

    @property
    def has_others(self) -> bool:
        """Whether other servers may be at work over the same ledger."""
        return self._db.has_others

    async def generations(self) -> Generations:
        """Give all generations by number."""
        return tuple(map(_generation, await self._db.fetch(f"select {_COLUMNS} from generations order by number")))  # noqa: S608 - names of ours

    async def save(
        self, before: Generations, after: Generations, events: Sequence[Event] = (), also: Sequence[Step] = ()
    ) -> bool:
        """Write what differs, with its events and ``also`` more, and tell whether ``before`` was still what the ledger said."""
        known = {one.number: one for one in before}
        # The one that no longer issues comes first: there is only one at any time.
        ordered = sorted(after, key=lambda one: one.stage is Stage.ISSUING)
        changed = [one for one in ordered if known.get(one.number) != one]
        try:
            await self._commit(*(_written(known.get(one.number), one) for one in changed), *also, events=events)
        except Conflict:
            return False
        return True

    async def note_slice(self, digest: str, generation: int) -> None:
        """Keep that a slice contains a generation."""
        sql = "insert into slices (digest, generation) values ($1, $2) on conflict (digest, generation) do nothing"
        await self._db.write(step(sql, digest, generation))

    async def forget_slices(self, generation: int) -> None:
        """Forget the slices of a generation that nobody asks for any more."""
        await self._db.write(step("delete from slices where generation = $1", generation))

    async def agents_seen(self, generation: int) -> tuple[AgentSeen, ...]:
        """Give all agents, and whether the slice that each acknowledged contains ``generation``."""
        sql = """select a.name, a.last_seen, s.digest is not null from agents a
            left join slices s on s.digest = a.acknowledged and s.generation = $1 order by a.name"""
        return tuple(AgentSeen(n, from_micros(at), bool(has)) for n, at, has in await self._db.fetch(sql, generation))

    async def remove_agent(self, name: str) -> bool:
        """Forget an agent, and tell whether it was known."""
        results = await self._db.write(step("delete from agents where name = $1", name), forgotten(name))
        return results[0].count == 1

    async def leaves_from_before(self, moment: datetime, generation: int, now: datetime, in_use: InUse) -> Leaves:
        """Give the live leaves that were recorded before ``moment``, and came without the root of ``generation`` for all that is known.

        Those that their one holder has replaced are not among them.
        """
        aware = f"serial in (select serial from aware where generation = {generation:d})"  # noqa: S608 - a number
        return await self._leaves(f"recorded_at < $4 and not {aware}", to_micros(moment), now, in_use)

    async def leaves_of(self, issuer: str, now: datetime, in_use: InUse) -> Leaves:
        """Give the live leaves of an issuing CA, without those that their one holder has replaced."""
        return await self._leaves("issuer = $4", issuer, now, in_use)

    async def cut_short(self, issuer: str, ends: datetime, now: datetime) -> int:
        """Count the live leaves of an issuing CA that end when it does, at ``ends``."""
        return (await self._counted("issuer = $4 and not_after = $5", issuer, now, to_micros(ends))).count

    async def copies(self, issuer: str, now: datetime) -> int:
        """Count the live leaves of an issuing CA that are in use again, though their successor was used."""
        again = "serial in (select serial from replacing where again_at is not null)"
        return (await self._counted(f"issuer = $4 and {again}", issuer, now)).count

    async def leaves_not_renewed(self, issuer: str, by: str, before: datetime, now: datetime) -> Leaves:
        """Give the live leaves of ``issuer`` whose name has no live one of the CA ``by`` that was recorded before ``before``."""
        renewed = f"name not in (select name from certificates where {_LIVE} and issuer = $5 and recorded_at < $6)"  # noqa: S608 - words of ours
        return await self._counted(f"issuer = $4 and {renewed}", issuer, now, by, to_micros(before))

    async def serials_of(self, issuer: str, now: datetime, limit: int = 1000) -> list[tuple[str, str, str]]:
        """Give serial, fingerprint and identity of live leaves of an issuing CA, ``limit`` at most."""
        sql = f"select serial, fingerprint, identity from certificates where {_UNREVOKED} and issuer = $4 order by seq limit $5"  # noqa: S608 - words of ours
        return [(row[0], row[1], row[2]) for row in await self._db.fetch(sql, *_live(now), issuer, limit)]

    async def _leaves(self, where: str, value: Value, now: datetime, in_use: InUse) -> Leaves:
        """Count the workloads' in the database, and look at the platform's own by name: those may be known as replaced."""
        theirs = await self._counted(f"{where} and {_UNLIKE}", value, now)
        sql = f"""select {_BY_NAME} from certificates where {_LIVE} and {where} and {_LIKE}
            group by name order by max(not_after) desc, name"""  # noqa: S608 - words of ours
        rows = await self._db.fetch(sql, *_live(now), value)
        ours = [_holder(row) for row in rows if row[0] not in in_use or in_use[row[0]] <= from_micros(row[3])]
        ends = [one.until for one in ours] + ([theirs.until] if theirs.until else [])
        holders = (*ours, *theirs.holders)[:SHOWN]
        return Leaves(theirs.count + sum(one.count for one in ours), holders, max(ends, default=None))

    async def _counted(self, where: str, value: Value, now: datetime, *more: Value) -> Leaves:
        args = (*_live(now), value, *more)
        sql = f"select count(*), max(not_after) from certificates where {_LIVE} and {where}"  # noqa: S608 - words of ours
        ((count, until),) = await self._db.fetch(sql, *args)
        if not count:
            return Leaves()
        sql = f"""select {_BY_NAME} from certificates where {_LIVE} and {where}
            group by name order by max(not_after) desc, name limit {SHOWN}"""  # noqa: S608 - words of ours
        return Leaves(int(count), tuple(map(_holder, await self._db.fetch(sql, *args))), from_micros(until))


def _live(now: datetime) -> tuple[Value, ...]:
    """Give what `_LIVE` asks for. An intent counts, as it may become a certificate."""
    return to_micros(now), CertificateState.ISSUED.value, CertificateState.INTENDED.value


def _holder(row: Row) -> Holder:
    name, count, until, _, successors, copies = row
    return Holder(name, int(count), from_micros(until), int(successors) - int(copies), int(copies))


def _written(before: Generation | None, one: Generation) -> Step:
    if before is None:
        sql = f"insert into generations ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"  # noqa: S608 - names of ours
        return step(sql, one.number, one.root, one.before, *_changing(one))
    sql = """update generations set stage = $2, since = $3, issuer = $4, begins = $5, ends = $6, root_begins = $7, root_ends = $8,
        compromised = $9 where number = $1 and stage = $10 and since = $11 and issuer = $12 and compromised = $13"""
    expected = (before.stage.value, to_micros(before.since), before.issuer, int(before.compromised))
    return step(sql, one.number, *_changing(one), *expected, expect=1)


def _changing(one: Generation) -> tuple[Value, ...]:
    return (
        one.stage.value,
        to_micros(one.since),
        one.issuer,
        *_ends(one.window),
        *_ends(one.root_window),
        int(one.compromised),
    )


def _ends(window: Window | None) -> tuple[Value, Value]:
    return (to_micros(window.not_before), to_micros(window.not_after)) if window else (None, None)


def _generation(row: Row) -> Generation:
    number, root, predecessor, stage, since, issuer, begins, ends, root_begins, root_ends, compromised = row
    return Generation(
        number=number,
        root=root,
        before=predecessor,
        stage=Stage(stage),
        since=from_micros(since),
        issuer=issuer,
        window=_window(begins, ends),
        root_window=_window(root_begins, root_ends),
        compromised=bool(compromised),
    )


def _window(begins: int | None, ends: int | None) -> Window | None:
    return None if begins is None or ends is None else Window(from_micros(begins), from_micros(ends))
