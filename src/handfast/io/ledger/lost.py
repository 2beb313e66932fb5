"""Which leaves nobody got, though they were issued: their answers were lost, and their holder asked again with the same key.

The law of this file. Who uses a leaf has its key. So whoever got several successors of one leaf with one key is one holder, and what
that holder did not use before is replaced by what it uses. A key that the old leaf has already tells nothing: copies share it.

Decides who is put behind whom, once one of them is used. Refuses to know what follows from that (`handfast.io.ledger.replacing`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from handfast.io.database import Database, Step, Value, placeholders, step
from handfast.io.ledger.events import to_micros
from handfast.trust.tbs import key_digest

MOST = 100
"""So many leaves are compared, the newest ones."""


class Known(NamedTuple):
    """A leaf: the digest of its key (empty where it has none that can be read), and its end in microseconds."""

    serial: str
    key: str
    ends: int


async def lined_up(db: Database, used: Mapping[str, str], seen: Mapping[str, datetime]) -> list[Step]:
    """Give the steps that put each successor that is used now behind those of the same holder that never were.

    ``used`` names the leaf that each is a successor of, ``seen`` everything that is in use now, and since when; all are serials.
    """
    steps: list[Step] = []
    for serial in await _of_several(db, set(used.values())):
        held = await known(db, "serial = $1", serial)
        promised = await known(
            db, "serial in (select successor from replacing where serial = $1 and used_at is null)", serial
        )
        for new in (one for one in promised if one.serial in used):
            lost = [one for one in promised if one.serial not in seen and one.key == new.key]
            if held and lost and held[0].key and new.key not in {"", held[0].key}:
                line = [*held, *lost, new]
                steps += [_behind(before, one, seen[new.serial]) for before, one in pairwise(line)]
    return steps


async def _of_several(db: Database, serials: Collection[str]) -> list[str]:
    if not serials:
        return []
    sql = f"""select serial from replacing where used_at is null and serial in ({placeholders(len(serials))})
        group by serial having count(*) > 1"""  # noqa: S608 - placeholders
    return [row[0] for row in await db.fetch(sql, *sorted(serials))]


async def known(db: Database, where: str, *args: Value) -> list[Known]:
    """Give the newest leaves of a condition, newest first."""
    sql = f"select serial, tbs, not_after from certificates where {where} order by seq desc limit {MOST}"  # noqa: S608 - words of ours
    return [Known(row[0], key_digest(row[1]), row[2]) for row in await db.fetch(sql, *args)]


def _behind(before: Known, one: Known, moment: datetime) -> Step:
    sql = "update replacing set serial = $2, ends = $3, used_at = $4 where successor = $1 and used_at is null"
    return step(sql, one.serial, before.serial, before.ends, to_micros(moment))
