"""The world's revisions: every document that was applied, as the user wrote it.

Decides a revision's number: one more than the latest, whoever applies at the same time. Refuses to read the document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from handfast.base.events import WorldApplied
from handfast.base.refusal import BadInput, Unavailable
from handfast.io.database import Conflict, Row, step
from handfast.io.ledger.events import NEWEST, Events, bounded, from_micros, to_micros

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
_TRIES = 16
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SELECT = "select number, digest, document, applied_at, requester from revisions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One applied document. ``digest`` is SHA-256, lower case hex."""

    number: int
    digest: str
    document: str
    applied_at: datetime
    requester: str


class Applied(NamedTuple):
    """A revision without its document."""

    number: int
    digest: str
    applied_at: datetime
    requester: str


class Revisions(Events):
    """The revisions of the world."""

    async def apply(self, document: str, digest: str, requester: str, at: datetime, event: WorldApplied) -> int:
        """Make ``document`` the revision that counts, and give its number.

        The event is kept with that number, whatever it says. Where the latest revision has the same digest nothing
        happens, and its number is given. An older digest may come back, under a new number.

        Raises:
            BadInput: the document is longer than 4 MiB, or the digest is not SHA-256 in hex.
            Unavailable: others applied at the same time again and again.
        """
        if len(document.encode()) > MAX_DOCUMENT_BYTES:
            raise BadInput(f"the document is longer than {MAX_DOCUMENT_BYTES} bytes")
        if not _DIGEST.fullmatch(digest):
            raise BadInput("the digest is not SHA-256 in lower case hex", key="digest")
        for _ in range(_TRIES):
            latest = await self._db.one("select number, digest from revisions order by number desc limit 1")
            number, latest_digest = latest or (0, "")
            if latest_digest == digest:
                return int(number)
            revision = Revision(number=number + 1, digest=digest, document=document, applied_at=at, requester=requester)
            try:
                await self._insert(revision, event)
            except Conflict:
                continue
            return revision.number
        raise Unavailable("others apply at the same time", hint="try again")

    async def latest_revision(self) -> Revision | None:
        """Give the revision that counts; None before the first."""
        row = await self._db.one(f"{_SELECT} order by number desc limit 1")
        return _revision(row) if row else None

    async def revision(self, number: int) -> Revision | None:
        """Give the revision with this number."""
        row = await self._db.one(f"{_SELECT} where number = $1", number)
        return _revision(row) if row else None

    async def applied(self, limit: int = 100, before: int = NEWEST) -> list[Applied]:
        """Give what was applied, newest first, without the documents: the revisions before number ``before``.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        rows = await self._db.fetch(
            "select number, digest, applied_at, requester from revisions where number < $1 order by number desc limit $2",
            before,
            bounded(limit),
        )
        return [Applied(number, digest, from_micros(at), requester) for number, digest, at, requester in rows]

    async def _insert(self, revision: Revision, event: WorldApplied) -> None:
        insert = step(
            "insert into revisions (number, digest, document, applied_at, requester) values ($1, $2, $3, $4, $5)",
            revision.number,
            revision.digest,
            revision.document,
            to_micros(revision.applied_at),
            revision.requester,
        )
        await self._commit(insert, events=[replace(event, revision=revision.number)], changes=True)


def _revision(row: Row) -> Revision:
    number, digest, document, applied_at, requester = row
    return Revision(
        number=number, digest=digest, document=document, applied_at=from_micros(applied_at), requester=requester
    )
