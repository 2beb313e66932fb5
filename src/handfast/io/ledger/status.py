"""What is asked of the ledger for the world outside: one certificate's standing, and what a revocation list holds.

Decides which entries a list has: those of its range of serials, until one scheduled list has said so after their end. Refuses to know
how lists are written and where they are served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.io.database import Database, Value, placeholders, step
from handfast.io.ledger.events import from_micros, to_micros
from handfast.io.records import CertificateState
from handfast.trust.addresses import shard_bounds

PAGE = 2000
_SECOND = 1_000_000

# With the state as a literal, so that the indexes of the revoked are used.
_LISTED = "select serial, revoked_at, revocation_reason from certificates where issuer = $1 and state = 'revoked'"
_FROM = f"{_LISTED} and serial >= $2 and serial < $3 and not_after > $4 order by serial limit {PAGE}"
_AFTER = _FROM.replace("serial >= $2", "serial > $2")
_SINCE = f"""{_LISTED} and serial >= $2 and serial < $3 and (revoked_at, serial) > ($4, $5)
    order by revoked_at, serial limit {PAGE}"""

Entries = list[tuple[str, int, str]]
"""A part of a list: serial (hex), seconds since 1970, reason."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a certificate stands, as far as strangers are told. ``issuer`` is its issuer's key identifier, hex."""

    issuer: str
    state: CertificateState
    revoked_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListKey:
    """One of the lists of an issuer (its key identifier, hex)."""

    issuer: str
    shard: int
    shards: int

    @property
    def bounds(self) -> tuple[str, str]:
        """The serials that belong to it: from the first on, before the second."""
        return shard_bounds(self.shard, self.shards)


@dataclass(frozen=True, slots=True)
class ScheduledList:
    """A complete list that was made on schedule."""

    number: int
    made_at: datetime


class StatusTable:
    """The ledger, as those see it who only want to know what is revoked."""

    def __init__(self, db: Database) -> None:
        """Stand over ``db``."""
        self._db = db

    async def standing(self, serials: Sequence[str]) -> dict[str, Standing]:
        """Give what is known of these certificates, by serial (hex). What was never recorded is not there.

        Raises:
            Unavailable: the database does not answer.
        """
        sql = f"""select serial, issuer, state, revoked_at, revocation_reason from certificates
            where serial in ({placeholders(len(serials))})"""  # noqa: S608 - placeholders
        return {
            serial: Standing(issuer, CertificateState(state), None if at is None else from_micros(at), reason)
            for serial, issuer, state, at, reason in await self._db.fetch(sql, *serials)
        }

    # Where lists are found

    async def settle(self, issuer: str, shards: int) -> int:
        """Keep how many lists an issuer has, and give it: what was kept first counts for ever.

        Raises:
            BadInput: it has another number of lists.
        """
        await self._db.write(step("insert into status_issuers values ($1, $2) on conflict do nothing", issuer, shards))
        kept = await self.shards(issuer)
        if kept != shards:
            raise BadInput(
                f"this issuer has {kept} revocation lists, and certificates that name them",
                key="crl-shards",
                hint=f"start with --crl-shards {kept}",
            )
        return kept

    async def shards(self, issuer: str) -> int:
        """Give how many lists an issuer has; one where nobody has said."""
        row = await self._db.one("select shards from status_issuers where issuer = $1", issuer)
        return int(row[0]) if row else 1

    async def add_url(self, url: str, now: datetime) -> None:
        """Keep an address that certificates will carry."""
        await self._db.write(
            step("insert into status_urls values ($1, $2) on conflict do nothing", url, to_micros(now))
        )

    async def urls(self) -> list[str]:
        """Give every address that certificates were given, newest first."""
        return [url for (url,) in await self._db.fetch("select url from status_urls order by since desc, url")]

    # What lists hold

    async def revoked(self, key: ListKey, now: datetime) -> AsyncIterator[Entries]:
        """Give what a complete list holds, by serial, in parts.

        An entry stays until one scheduled list was made after its certificate's end (RFC 5280 section 3.3).
        """
        row = await self._db.one(
            "select max(made_at) from status_lists where issuer = $1 and shard = $2", key.issuer, key.shard
        )
        last = row[0] if row and row[0] is not None else to_micros(now)
        low, high = key.bounds
        ends, sql = min(last, to_micros(now)), _FROM
        while rows := await self._db.fetch(sql, key.issuer, low, high, ends):
            low, sql = rows[-1][0], _AFTER
            yield _entries(rows)

    async def revoked_since(self, key: ListKey, moment: datetime) -> AsyncIterator[Entries]:
        """Give what was revoked from a moment on, in the order of time, in parts. Also what has expired since."""
        at, after = to_micros(moment), ""
        while rows := await self._db.fetch(_SINCE, key.issuer, *key.bounds, at, after):
            after, at, _ = rows[-1]
            yield _entries(rows)

    async def scheduled(self, key: ListKey, number: int, made_at: datetime, window: Window) -> None:
        """Keep that a complete list was made on schedule; forget those that nobody holds any more but the newest."""
        args: tuple[Value, ...] = (key.issuer, key.shard)
        await self._db.write(
            step(
                "insert into status_lists values ($1, $2, $3, $4, $5)",
                *args, number, to_micros(made_at), to_micros(window.not_after),
            ),
            step(
                "delete from status_lists where issuer = $1 and shard = $2 and next_update <= $3 and number < $4",
                *args, to_micros(made_at), number,
            ),
        )  # fmt: skip

    async def base(self, key: ListKey, now: datetime) -> ScheduledList | None:
        """Give the oldest scheduled list that still counts: whoever holds that one or a later one can apply changes to it."""
        row = await self._db.one(
            """select number, made_at from status_lists where issuer = $1 and shard = $2 and next_update > $3
            order by number limit 1""",
            key.issuer,
            key.shard,
            to_micros(now),
        )
        return ScheduledList(row[0], from_micros(row[1])) if row else None


def _entries(rows: Sequence[tuple[str, int, str]]) -> Entries:
    return [(serial, at // _SECOND, reason) for serial, at, reason in rows]
