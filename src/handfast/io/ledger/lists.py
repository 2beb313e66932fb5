"""Revocation lists that servers over one ledger share: signed by one of them, served by all.

Decides which of two lists for one place counts: the one that knows more changes, or else the one that came first. Refuses to judge
what is in a list: whoever takes one has to verify it.

A *revision* is the ledger's count of changes that agents must know. A list of a revision has at least what was revoked by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handfast.io.database import Database, step
from handfast.io.ledger.events import from_micros, to_micros

MAX_BYTES = 16 * 1024 * 1024
"""The ledger is no place for longer lists."""

_HEAD = "select path, number, revision, made_at, scheduled_at from shared_lists"
_FIRST_WINS = """insert into shared_lists (path, number, revision, made_at, scheduled_at, content) values ($1, $2, $3, $4, $5, $6)
    on conflict (path) do update set number = excluded.number, revision = excluded.revision, made_at = excluded.made_at,
        scheduled_at = case when excluded.scheduled_at > shared_lists.scheduled_at
            then excluded.scheduled_at else shared_lists.scheduled_at end,
        content = excluded.content
    where shared_lists.number < excluded.number and (shared_lists.revision < excluded.revision
        or (shared_lists.revision = excluded.revision and shared_lists.scheduled_at < $7))
    returning number"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListHead:
    """What is known of a list without its octets. ``scheduled_at`` is when the last one for this place was made on schedule."""

    path: str
    number: int
    revision: int
    made_at: datetime
    scheduled_at: datetime


class SharedLists:
    """The newest list of each path."""

    def __init__(self, db: Database) -> None:
        """Stand over ``db``."""
        self._db = db

    async def heads(self, prefix: str) -> dict[str, ListHead]:
        """Give what is known of the lists whose path begins with ``prefix``, by path.

        Raises:
            Unavailable: the database does not answer.
        """
        rows = await self._db.fetch(f"{_HEAD} where path >= $1 and path < $2", prefix, f"{prefix}~")
        heads = (
            ListHead(path=p, number=n, revision=r, made_at=from_micros(at), scheduled_at=from_micros(on))
            for p, n, r, at, on in rows
        )
        return {head.path: head for head in heads}

    async def content(self, head: ListHead) -> bytes | None:
        """Give the octets of a list; None where another one has taken its place, or it is larger than any of ours."""
        sql = "select content from shared_lists where path = $1 and number = $2 and length(content) <= $3"
        row = await self._db.one(sql, head.path, head.number, MAX_BYTES)
        return bytes(row[0]) if row else None

    async def offer(self, head: ListHead, content: bytes, due: datetime) -> bool:
        """Put a list in its place, and tell whether it is the one that counts.

        It does not where one of the same revision is there whose last scheduled one was made at ``due`` or later, or one of a later
        revision, or of a higher number.

        Raises:
            Unavailable: the database does not answer.
        """
        times = (to_micros(head.made_at), to_micros(head.scheduled_at))
        (result,) = await self._db.write(
            step(_FIRST_WINS, head.path, head.number, head.revision, *times, content, to_micros(due))
        )
        return result.count == 1

    async def forget(self, before: datetime) -> None:
        """Forget lists that were made before a moment: of issuers that are over, as others are made anew long before."""
        await self._db.write(step("delete from shared_lists where made_at < $1", to_micros(before)))
