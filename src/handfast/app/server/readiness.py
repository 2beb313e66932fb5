"""Whether this server can do its work now: what a load balancer asks.

Decides it by two things: the database answers in time, and there is an authority that may issue. Refuses to tell more than why not, and
looks once a second at most, whoever asks how often.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from handfast.base.refusal import HandfastError, Unavailable
from handfast.io.database import Database
from handfast.io.generations import Generations
from handfast.io.ports import Clock

ANSWERS_S = 2.0
LASTS = timedelta(seconds=1)


class Readiness:
    """Answers ``/ready`` and ``/live``."""

    def __init__(self, database: Database, authorities: Generations, clock: Clock, limit: float = ANSWERS_S) -> None:
        """Look at nothing yet. ``limit`` is how many seconds the database has."""
        self._database, self._authorities, self._clock, self._limit = database, authorities, clock, limit
        self._looked: tuple[datetime, str] | None = None
        self._alone = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Give the two endpoints."""
        return [Route("/ready", self._ready), Route("/live", _live)]

    async def why_not(self) -> str:
        """Say why this server cannot do its work; empty where it can."""
        async with self._alone:
            now = self._clock.now()
            if self._looked is None or not timedelta(0) <= now - self._looked[0] < LASTS:
                self._looked = now, await self._look(now)
            return self._looked[1]

    async def _look(self, now: datetime) -> str:
        try:
            async with asyncio.timeout(self._limit):
                await self._database.one("select count(*) from migrations")
        except TimeoutError:
            return f"the database did not answer within {self._limit:.0f} s"
        except Unavailable as error:
            return str(error)
        return self._why_nothing_is_issued(now)

    def _why_nothing_is_issued(self, now: datetime) -> str:
        try:
            window = self._authorities.current.issuer_facts.window
        except HandfastError as error:
            return str(error)
        return (
            ""
            if window.contains(now)
            else f"the issuing authority counts from {window.not_before} to {window.not_after}"
        )

    async def _ready(self, _: Request) -> Response:
        why = await self.why_not()
        return PlainTextResponse(f"not ready: {why}\n", 503) if why else PlainTextResponse("ready\n")


async def _live(_: Request) -> Response:
    """Answer as long as the process does: a database that is away is no reason to start it anew."""
    return PlainTextResponse("live\n")
