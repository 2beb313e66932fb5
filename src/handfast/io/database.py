"""The thin layer over a database: statements, rows, and units of work that happen whole or not at all.

Decides what every store must do, so that SQL is written once: parameters are ``$1``, ``$2`` …, and what is used beyond
plain SQL is ``on conflict`` and ``returning``, which SQLite and PostgreSQL spell alike. Refuses to know which database it is.

A unit of work is a sequence of steps, not a callable: it can be queued, joined with its neighbours in one transaction, and
tried again by itself. What depends on a read says so by ``expect``, and its caller reads again after a `Conflict`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Value = str | int | bytes | None
Row = tuple[Any, ...]


class Step(NamedTuple):
    """One statement with its arguments. ``expect`` is how many rows it must touch; None is any number."""

    sql: str
    args: tuple[Value, ...] = ()
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a step did: the rows that ``returning`` gave, and how many rows it touched."""

    rows: list[Row]
    count: int


Committed = Callable[[list[Result]], None]
Outcome = list[Result] | Exception
Heard = Callable[[], Awaitable[None]]


class Conflict(Exception):
    """The database is not as the unit expected: the row is there already, or ``expect`` did not hold.

    Internal to `handfast.io`: who wrote the unit decides whether that is a refusal or a reason to read again.
    """


@dataclass(frozen=True, slots=True)
class Unit:
    """One caller's steps, and where it waits for them."""

    steps: tuple[Step, ...]
    future: asyncio.Future[list[Result]]
    then: Committed | None

    def settle(self, outcome: Outcome) -> None:
        """Tell the caller what became of its steps, and ``then`` also where the caller has gone."""
        loop = self.future.get_loop()
        if not isinstance(outcome, Exception) and self.then is not None:
            loop.call_soon(self.then, outcome)
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


def step(sql: str, *args: Value, expect: int | None = None) -> Step:
    """Put a statement and its arguments together."""
    return Step(sql, args, expect)


def placeholders(count: int, first: int = 1) -> str:
    """Give ``$1, $2, …`` for a list of ``count`` values, counted from ``first``."""
    return ", ".join(f"${number}" for number in range(first, first + count))


class Database(ABC):
    """What the ledger asks of a store. ``has_others`` tells whether other processes may use it at the same time."""

    has_others = False

    @abstractmethod
    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Read rows. Sees what is committed, and whole units only.

        Raises:
            Unavailable: the database does not answer.
        """

    @abstractmethod
    async def write(self, *steps: Step, then: Committed | None = None) -> list[Result]:
        """Do the steps as one unit, all or nothing, and return when they are durable.

        Units that are asked for at the same time may share a transaction; the failure of one does not touch the others.
        ``then`` gets the results as soon as they are durable, even where the caller has gone by then. It must not raise.
        A unit that has a ``then`` is also told to the other processes on this database, see `hear`.

        Raises:
            Conflict: a unique value is taken, or ``expect`` did not hold. Nothing was written.
            Unavailable: the database does not answer. Nothing was written, as far as can be known: where a remote one went
                away while it committed, the message says that it may have been.
        """

    @abstractmethod
    async def hear(self, heard: Heard) -> None:
        """Have ``heard`` called whenever another process committed a unit that has a ``then``, or may have.

        Calls do not overlap, and several commits may be one call. What it raises as `Unavailable` is tried again later.
        May be asked for more than once. Where a database has one process alone there is nothing to hear.
        """

    @abstractmethod
    async def close(self) -> None:
        """Write what is queued, and let go of the database."""

    async def one(self, sql: str, *args: Value) -> Row | None:
        """Read the first row, or None."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None
