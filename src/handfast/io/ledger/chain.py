"""The audit chain's rows: one link for each event, made right after the events are durable.

Decides who seals, which is nobody in particular: the next link's number is a unique key, so of two who link at the same time
one gets a `Conflict`, and looks again. No lock is held, no writer of events waits, and a dead sealer leaves nothing behind.
Refuses to know what makes a chain right (`handfast.trust.audit`) and who signs an anchor (`handfast.io.audit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from handfast.io.database import Conflict, Step, step
from handfast.io.encoding import decode, encode, from_plain
from handfast.io.ledger.events import MAX_BATCH, Events, bounded, to_micros
from handfast.trust.audit import GENESIS, Entry, Link, Statement, link

_LINKS = "select number, seq, id, hash from audit_links"
_ENTRIES = "select seq, id, kind, at, body from events"
_INSERT = "insert into audit_links (number, seq, id, sealed_at, hash) values ($1, $2, $3, $4, $5)"
_ANCHOR = """insert into audit_anchor (one, number, statement) values (1, $1, $2)
    on conflict (one) do update set number = excluded.number, statement = excluded.statement
    where audit_anchor.number < excluded.number returning number"""


@dataclass(frozen=True, slots=True)
class ChainPage:
    """A piece of the chain: links by number, and all events that stand among what they bind, by seq."""

    links: list[Link]
    entries: list[Entry]


class Chain(Events):
    """The links, and the anchor that stands before the first of them."""

    async def seal(self, now: datetime, limit: int = MAX_BATCH) -> int:
        """Link at most ``limit`` events that are not yet, in the order of their seq, and give how many.

        0 also where another process sealed them meanwhile.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        head = await self.chain_head()
        rows = await self._db.fetch(f"{_ENTRIES} where seq > $1 order by seq limit $2", head.seq, bounded(limit))
        links = _linked(head, [Entry(*row) for row in rows])
        if not links:
            return 0
        try:
            await self._db.write(*(_kept(one, now) for one in links))
        except Conflict:
            return 0
        return len(links)

    async def chain_head(self) -> Link:
        """Give the newest link; where all are pruned the anchor's, and number 0 where nothing was ever sealed."""
        row = await self._db.one(f"{_LINKS} order by number desc limit 1")
        if row:
            return Link(*row)
        anchor = await self.chain_anchor()
        return Link(anchor.number, anchor.seq, "", anchor.hash) if anchor else Link(0, 0, "", GENESIS)

    async def chain_anchor(self) -> Statement | None:
        """Give the signed statement of what was pruned, None where nothing was.

        Raises:
            BadInput: what stands there is not one.
        """
        row = await self._db.one("select statement from audit_anchor where one = 1")
        return from_plain(Statement, decode(row[0].encode())) if row else None

    async def chain_page(self, after: int = 0, after_seq: int = 0, limit: int = MAX_BATCH) -> ChainPage:
        """Give the links after number ``after``, and the events after ``after_seq`` up to the last of what they bind.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        rows = await self._db.fetch(f"{_LINKS} where number > $1 order by number limit $2", after, bounded(limit))
        links = [Link(*row) for row in rows]
        last = max((one.seq for one in links), default=0)
        # Twice the limit: who puts many false events among the true ones shall not make us read all of them.
        sql = f"{_ENTRIES} where seq > $1 and seq <= $2 order by seq limit $3"
        return ChainPage(links, [Entry(*row) for row in await self._db.fetch(sql, after_seq, last, 2 * limit)])

    async def unsealed(self) -> int:
        """Count the events that are not linked yet."""
        head = await self.chain_head()
        ((count,),) = await self._db.fetch("select count(*) from events where seq > $1", head.seq)
        return int(count)

    async def last_to_prune(self, before: datetime, limit: int = MAX_BATCH) -> Link | None:
        """Find the link up to which the chain can go: sealed before ``before``, at most ``limit`` links, oldest first.

        Links go by the time at which they were sealed, not by what an event says of itself: that may come from another
        host's clock, and the chain can only be cut from its beginning.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        anchor = await self.chain_anchor()
        most = (anchor.number if anchor else 0) + bounded(limit)
        sql = f"{_LINKS} where sealed_at < $1 and number <= $2 order by number desc limit 1"
        row = await self._db.one(sql, to_micros(before), most)
        return Link(*row) if row else None

    async def prune_chain(self, anchor: Statement) -> int:
        """Forget all events and links up to the anchor's, and keep the anchor in their place. Give how many events went.

        Raises:
            Conflict: another process pruned that far meanwhile, or the link there is another one.
        """
        number = anchor.number
        results = await self._db.write(
            step("select 1 from audit_links where number = $1 and hash = $2", number, anchor.hash, expect=1),
            step(_ANCHOR, number, encode(anchor).decode(), expect=1),
            step("delete from events where seq in (select seq from audit_links where number <= $1)", number),
            step("delete from audit_links where number <= $1", number),
        )
        return results[2].count


def _linked(head: Link, entries: Sequence[Entry]) -> list[Link]:
    links = []
    for entry in entries:
        head = link(head.hash, head.number + 1, entry)
        links.append(head)
    return links


def _kept(one: Link, now: datetime) -> Step:
    return step(_INSERT, one.number, one.seq, one.id, to_micros(now), one.hash)
