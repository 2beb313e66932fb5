"""The tokens with which devices enrol.

Decides that a token is good for one name, for a number of times, until it expires: one statement takes a use, so two devices
can never both have the last one. Keeps a token's SHA-256 alone; a token is random and long, so a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from handfast.base.events import EnrolmentGranted, EnrolmentRevoked
from handfast.base.refusal import BadInput
from handfast.io.database import Conflict, step
from handfast.io.ledger.events import MAX_BATCH, Events, bounded, to_micros

SHORTEST_TOKEN, LONGEST_TOKEN = 22, 256
_ID_DIGITS = 12


def token_id(token: str) -> str:
    """Name a token in records without giving it away: the first 12 hex digits of its SHA-256."""
    return _hash(token)[:_ID_DIGITS]


class Enrolment(Events):
    """The enrolment tokens."""

    async def add_enrolment_token(self, token: str, event: EnrolmentGranted) -> None:
        """Let ``token`` be used as often, for the name and until the time that the event says. Its SHA-256 is kept.

        Raises:
            BadInput: it is shorter than 22 characters (128 bits in base64), longer than 256, or was added before.
        """
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            raise BadInput(
                f"an enrolment token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters", hint="make it random"
            )
        sql = "insert into enrolment_tokens (sha256, name, uses_left, expires_at) values ($1, $2, $3, $4)"
        insert = step(sql, _hash(token), event.name, event.uses, to_micros(event.expires_at))
        try:
            await self._commit(insert, events=[event])
        except Conflict as conflict:
            raise BadInput("the enrolment token was added before", hint="make a new one") from conflict

    async def enrolment_name(self, token: str, now: datetime) -> str | None:
        """Give the name that ``token`` is good for now. Unknown, used up and expired are one answer: a stranger learns nothing."""
        sql = "select name from enrolment_tokens where sha256 = $1 and uses_left > 0 and expires_at > $2"
        row = await self._db.one(sql, _hash(token), to_micros(now))
        return str(row[0]) if row else None

    async def use_enrolment_token(self, token: str, now: datetime) -> bool:
        """Take one use of ``token``, and tell whether there was one."""
        sql = """update enrolment_tokens set uses_left = uses_left - 1
            where sha256 = $1 and uses_left > 0 and expires_at > $2"""
        results = await self._db.write(step(sql, _hash(token), to_micros(now)))
        return results[0].count == 1

    async def withdraw_enrolment_tokens(self, event: EnrolmentRevoked) -> int:
        """Forget all tokens of a name that could still be used, and give how many there were."""
        delete = step("delete from enrolment_tokens where name = $1 and uses_left > 0 and expires_at > $2",
                      event.name, to_micros(event.at))  # fmt: skip
        (deleted,) = await self._commit(delete, events=[event])
        return deleted.count

    async def prune_enrolment_tokens(self, before: datetime, limit: int = MAX_BATCH) -> int:
        """Forget at most ``limit`` tokens that expired before ``before``, used or not, and give how many.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = """delete from enrolment_tokens where sha256 in
            (select sha256 from enrolment_tokens where expires_at < $1 order by expires_at limit $2)"""
        results = await self._db.write(step(sql, to_micros(before), bounded(limit)))
        return results[0].count


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
