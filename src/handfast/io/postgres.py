"""The store of several servers: PostgreSQL, with group commit and one writer at a time.

Decides how units of work share a commit: what is asked for while the group before is being committed is the next group. One
group is one transaction and few round trips; where a unit fails, the transaction is rolled back and done again with a
savepoint around each unit. Refuses to know what is stored.

Writers of one ledger take turns, over all processes: a group begins with an advisory lock that its commit releases. So numbers that a
column counts up become visible in their order, a reader that pages by them skips nothing, and two groups never deadlock.

A connection that ends before the commit was sent has written nothing, and the group is tried once more on a new one. One
that ends during it may have: that is `Unavailable`, in words that say so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import asyncpg

from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.io.database import Committed, Conflict, Database, Heard, Outcome, Result, Row, Step, Unit, Value
from handfast.io.migrations import HISTORY, Migration, for_postgres, load, pending
from handfast.io.postgres_batches import Batch, Tables, batches, by_step, joinable, numbered
from handfast.io.postgres_hearing import Hearing
from handfast.io.postgres_session import (
    CONNECT_SECONDS,
    Address,
    Pool,
    Session,
    check_schema,
    connect,
    gone,
    not_connected,
    quoted,
    translated,
)
from handfast.io.schemas import channel, lock, make

MAX_GROUP = 256
MAX_GROUP_STEPS = 4096
MAX_QUEUE = 10_000
READERS = 4
CLOSE_SECONDS = 15.0
MIGRATE_SECONDS = 600.0

_TABLES = "select relname from pg_class where relkind in ('r', 'p', 'v', 'm') and pg_table_is_visible(oid)"
_REFERENCES = """select one.relname, other.relname from pg_constraint
    join pg_class one on one.oid = conrelid join pg_class other on other.oid = confrelid
    where contype = 'f' and pg_table_is_visible(one.oid)"""
_TRIGGERS = """select relname from pg_trigger join pg_class on pg_class.oid = tgrelid
    where not tgisinternal and pg_table_is_visible(tgrelid)"""


class PostgresDatabase(Database):
    """One PostgreSQL database, of which other processes may be writers too. Belongs to one event loop."""

    has_others = True

    def __init__(self, address: Address, writer: Session, readers: Pool, tables: Tables) -> None:
        """Take an open connection and a pool of readers; `open` makes them."""
        self._address, self._readers, self._tables = address, readers, tables
        self._begin = f"begin; {lock(address.schema)}"
        self._notify = f"notify {quoted(channel(address.schema))}; "
        self._writer: Session | None = writer
        self._queue: deque[Unit] = deque()
        self._wanted = asyncio.Event()
        self._closing = False
        self._working = asyncio.create_task(self._work())
        self._heard: list[Heard] = []
        self._hearing: Hearing | None = None

    @classmethod
    async def open(cls, address: Address, migrations: Sequence[Migration] | None = None) -> PostgresDatabase:
        """Connect, and bring the schema up to date.

        Raises:
            BadInput: it cannot be used: its address, its encoding, our rights in it, or a newer version wrote it.
            Unavailable: nothing answers.
        """
        writer = await connect(address)
        try:
            await check_encoding(writer)
            await migrate(writer, load() if migrations is None else migrations, address.schema)
            tables = await _tables(writer)
            readers = await _readers(address)
        except Exception as error:  # noqa: BLE001 - each becomes one of ours, or stays as it is
            writer.terminate()
            raise translated(error) from (None if isinstance(error, HandfastError) else error)
        return cls(address, writer, readers, tables)

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Read rows, as `Database.fetch` says. Where the connection has ended, once more on another."""
        self._require_open()
        try:
            return await self._fetch(sql, args)
        except Exception as error:
            if not gone(error):
                raise translated(error) from error
        try:
            await self._readers.expire_connections()
            return await self._fetch(sql, args)
        except Exception as error:
            raise translated(error) from error

    async def _fetch(self, sql: str, args: tuple[Value, ...]) -> list[Row]:
        async with self._readers.acquire(timeout=CONNECT_SECONDS) as reader:
            return [tuple(row) for row in await reader.fetch(sql, *args)]

    async def write(self, *steps: Step, then: Committed | None = None) -> list[Result]:
        """Do the steps as one unit, as `Database.write` says. A caller that is cancelled in the queue writes nothing."""
        self._require_open()
        if len(self._queue) >= MAX_QUEUE:
            raise Unavailable("too many writes wait for the database", hint="try again later")
        unit = Unit(steps, asyncio.get_running_loop().create_future(), then)
        self._queue.append(unit)
        self._wanted.set()
        return await unit.future

    async def hear(self, heard: Heard) -> None:
        """Listen to the other processes, as `Database.hear` says, over one connection for all who ask."""
        self._heard.append(heard)
        if self._hearing:
            self._hearing.suspect()
            return
        self._hearing = Hearing(self._address, self._tell, lambda: self._writer.get_server_pid() if self._writer else 0)

    async def _tell(self) -> None:
        for heard in self._heard:
            await heard()

    async def close(self) -> None:
        """Write what is queued, and let go of the database. May be called again."""
        self._closing = True
        self._wanted.set()
        if self._hearing:
            await self._hearing.stop()
        await asyncio.wait([self._working], timeout=CLOSE_SECONDS)
        self._working.cancel()
        self._fail_queue(Unavailable("the database is closed"))
        if self._writer is not None:
            with contextlib.suppress(Exception):
                await self._writer.close(timeout=1)
        self._drop_writer()
        self._readers.terminate()

    def _require_open(self) -> None:
        if self._closing:
            raise Unavailable("the database is closed")

    # The one writer of this process

    async def _work(self) -> None:
        while not (self._closing and not self._queue):
            await self._wanted.wait()
            while group := self._next_group():
                for unit, outcome in zip(group, await self._committed(group), strict=True):
                    unit.settle(outcome)
            if not self._closing:
                self._wanted.clear()

    def _next_group(self) -> list[Unit]:
        group: list[Unit] = []
        steps = 0
        while (
            self._queue
            and len(group) < MAX_GROUP
            and (not group or steps + len(self._queue[0].steps) <= MAX_GROUP_STEPS)
        ):
            unit = self._queue.popleft()
            if not unit.future.done():
                group.append(unit)
                steps += len(unit.steps)
        return group

    async def _committed(self, units: list[Unit]) -> Sequence[Outcome]:
        """Give each unit's outcome, whatever happens: a caller waits for it."""
        try:
            return await self._tried(units)
        except Exception as error:  # noqa: BLE001 - every waiting caller gets it
            self._drop_writer()
            return [translated(error)] * len(units)

    async def _tried(self, units: list[Unit]) -> Sequence[Outcome]:
        held = self._writer is not None
        try:
            return await self._together(await self._session(), units)
        except Exception as error:
            if not (held and gone(error)):
                raise
        # The connection was idle, and has ended since: a restarted database is no error that anybody should see.
        self._drop_writer()
        return await self._together(await self._session(), units)

    async def _session(self) -> Session:
        if self._writer is None:
            try:
                self._writer = await connect(self._address)
            except HandfastError as error:
                self._fail_queue(Unavailable(error.message, hint=error.hint))
                raise Unavailable(error.message, hint=error.hint) from error
        return self._writer

    def _fail_queue(self, error: Exception) -> None:
        """Let nobody wait for its own turn to learn that the database is away."""
        while self._queue:
            self._queue.popleft().settle(error)

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.terminate()
            self._writer = None
        if self._hearing:
            self._hearing.suspect()

    async def _together(self, writer: Session, units: list[Unit]) -> Sequence[Outcome]:
        try:
            await writer.execute(self._begin)
            outcomes = await self._run(writer, units)
            await self._commit(writer, units)
        except Exception as error:
            if isinstance(translated(error), Unavailable):
                raise
            await writer.execute("rollback")
            if len(units) == 1:
                return [translated(error)]
        else:
            return outcomes
        await writer.execute(self._begin)
        apart = [await self._run_apart(writer, unit) for unit in units]
        await self._commit(writer, units)
        return apart

    async def _commit(self, writer: Session, units: list[Unit]) -> None:
        """Commit, and tell the other processes where there is something to tell."""
        await _commit(writer, self._notify if any(unit.then for unit in units) else "")

    async def _run_apart(self, writer: Session, unit: Unit) -> Outcome:
        await writer.execute("savepoint unit")
        try:
            (outcome,) = await self._run(writer, [unit])
            await writer.execute("set constraints all immediate; release unit")
        except Exception as error:
            failure = translated(error)
            if isinstance(failure, Unavailable):
                raise
            await writer.execute("rollback to unit; release unit")
            return failure
        return outcome

    async def _run(self, writer: Session, units: list[Unit]) -> list[list[Result]]:
        """Do the units' steps in their order, and give each unit's results."""
        results: dict[int, Result] = {}
        for batch in batches((step for unit in units for step in unit.steps), self._tables.of):
            results |= await _rows(writer, batch)
        placed = iter(sorted(results))
        return [[results[next(placed)] for _ in unit.steps] for unit in units]


async def _rows(writer: Session, batch: Batch) -> dict[int, Result]:
    """Do one batch.

    Raises:
        Conflict: a step touched another number of rows than it expects.
    """
    if not joinable(batch.sql):
        ((place, step),) = batch.steps
        rows: dict[int, list[Row]] = {place: [tuple(row) for row in await writer.fetch(step.sql, *step.args)]}
    else:
        arguments = [(*step.args, place) for place, step in batch.steps]
        touched = await writer.fetchmany(numbered(batch.sql), arguments)
        rows = dict(by_step(touched, (place for place, _ in batch.steps)))
    for place, step in batch.steps:
        if step.expect not in {None, len(rows[place])}:
            raise Conflict(f"{len(rows[place])} rows, not {step.expect}")
    return {place: Result([row for row in found if row], len(found)) for place, found in rows.items()}


async def _commit(writer: Session, before: str = "") -> None:
    """Commit, with a statement ``before`` it in the same round trip.

    Raises:
        Unavailable: the connection ended, and nobody knows whether it was committed.
    """
    try:
        done = await writer.execute(f"{before}commit")
    except Exception as error:
        if isinstance(translated(error), Unavailable):
            raise Unavailable(
                "the database went away while it committed: this may have been written, or not",
                hint="look before you try again",
            ) from error
        raise
    if done != "COMMIT":
        raise Unavailable(f"the database answered {done} to a commit: nothing was written", hint="try again")


async def check_encoding(session: Session) -> None:
    """Check that every text fits.

    Raises:
        BadInput: the database's encoding is another than UTF-8.
    """
    encoding = await session.fetchval("show server_encoding")
    if encoding != "UTF8":
        raise BadInput(f"the database's encoding is {encoding}", key="database", hint="createdb --encoding UTF8")


async def migrate(session: Session, known: Sequence[Migration], schema: str = "") -> None:
    """Apply the migrations that a schema lacks, all in one transaction; who comes at the same time waits, and finds them.

    Raises:
        BadInput: the database is newer than ``known``, or differs from it.
    """
    await session.execute(f"begin; set local statement_timeout = '{MIGRATE_SECONDS:.0f}s'")
    await session.execute(lock(schema), timeout=MIGRATE_SECONDS)
    await make(session, schema)
    await apply_migrations(session, known)
    await _commit(session)


async def apply_migrations(session: Session, known: Sequence[Migration]) -> None:
    """Apply the migrations that are lacking, in the transaction that is open.

    Raises:
        BadInput: the database is newer than ``known``, or differs from it.
    """
    if await session.fetchval("select to_regclass('migrations')") is None:  # who may not create may still use it
        await session.execute(for_postgres(HISTORY))
    applied = dict(await session.fetch("select number, checksum from migrations"))
    for migration in pending(applied, known):
        for statement in migration.statements():
            await session.execute(for_postgres(statement), timeout=MIGRATE_SECONDS)
        await session.execute(
            "insert into migrations values ($1, $2, $3, (extract(epoch from clock_timestamp()) * 1000000)::bigint)",
            migration.number,
            migration.name,
            migration.checksum,
        )


async def _tables(session: Session) -> Tables:
    """Learn what belongs together. A trigger may touch anything, so with one everything does."""
    names = [name for (name,) in await session.fetch(_TABLES)]
    references = [tuple(pair) for pair in await session.fetch(_REFERENCES)]
    if await session.fetchval(f"select exists ({_TRIGGERS})"):
        references += [(names[0], name) for name in names]
    return Tables(names, references)


async def _readers(address: Address) -> Pool:
    """Give a pool that cannot write, and that does not tidy up after a read: there is nothing to tidy."""

    async def as_it_is(_: Session) -> None:
        """Reset nothing."""

    async def look(reader: Session) -> None:
        await check_schema(reader, address)

    arguments = address.arguments(default_transaction_read_only="on")
    try:
        return await asyncpg.create_pool(min_size=1, max_size=READERS, reset=as_it_is, init=look, **arguments)
    except HandfastError:
        raise
    except Exception as error:  # noqa: BLE001 - each becomes one of ours
        raise not_connected(error, address) from None
