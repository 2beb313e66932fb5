"""The slice that agents get: made from the ledger and the authorities whenever one of them changed, and kept ready as bytes.

While one authority follows another, it holds all that count: roots, issuers and their lists. The first issuer is the one that
issues: by that agents know when to renew early.

Gateways refuse whom a slice denies, with a list or without. So a revocation waits for no key that signs lists: where that takes
long, or fails, those of the slice before go along until the next ones are made. Nor does it wait for the lists of a revocation
before: where they take long, they give way to what came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from handfast.access.slice import Slice, make_slice, written
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.app.server.revoked import Fingerprints, Revoked
from handfast.base.refusal import Refusal, Unavailable
from handfast.io import off_loop
from handfast.io.authorities import Authority
from handfast.io.generations import Generations
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.lists import SharedLists
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.slice_lists import SliceLists
from handfast.io.topic import Topic
from handfast.io.waiting import first_of
from handfast.trust.facts import pem
from handfast.trust.rotation import Generations as Rows
from handfast.trust.rotation import Stage, coming

_log = structlog.get_logger("handfast")
REFRESH = timedelta(hours=1)
PROMPT_S = 0.25
"""So long a slice waits for its revocation lists."""
PATIENCE_S = 5.0
"""So long whoever changed something waits for the lists that come with it."""
OLD = timedelta(days=1)
"""Lists count for days. Those that are older than this give way to nothing, however much comes meanwhile."""

Work = Callable[[], Awaitable[None]]
"""What runs as long as the server does."""

_GOES_ON = "the server goes on trying; look at its log, and at 'handfast status'"


@dataclass(frozen=True, slots=True)
class PreparedSlice:
    """A slice as it goes over the wire."""

    digest: str
    body: bytes


class Slices:
    """Keeps the current slice. One for all agents, as each host may be served by each gateway for now."""

    def __init__(
        self,
        authorities: Generations,
        ledger: SqlLedger,
        rotations: Rotations,
        clock: Clock,
        shared: SharedLists | None = None,
    ) -> None:
        """Make nothing yet; `refresh` does. ``rotations`` keeps which slices contain an authority that is to come.

        ``shared`` is where other servers find the revocation lists.
        """
        self._lists = SliceLists(lambda: ledger.next_counter("crl"), shared)
        self._authorities, self._ledger, self._rotations, self._clock = authorities, ledger, rotations, clock
        self.current: Topic[PreparedSlice | None] = Topic(None)
        self.world = World(authorities.trust_domain)
        self.revision = 0
        self.denied = Fingerprints()
        self._given: Slice | None = None
        self._listed, self._covered = clock.now(), 0
        self._alone = asyncio.Lock()

    async def refresh(self) -> bool:
        """Make the slice anew. An equal one wakes nobody. Tell whether its lists are: if not, another change came before, and brings them."""
        # A long list takes its time, and a slice from before it must not come after one that began later.
        async with self._alone:
            return await self._refresh()

    async def refresh_soon(self) -> str:
        """Refresh, and give why lists are late, or nothing: gateways have the change all the same, and the server goes on trying.

        Raises:
            Unavailable: gateways do not have it yet.
        """
        change = self._ledger.changes.value
        try:
            async with asyncio.timeout(PATIENCE_S):
                late = "" if await self.refresh() else "another change came before"
        except (Unavailable, TimeoutError) as error:
            late = str(error) or f"it takes longer than {PATIENCE_S:g} s"
            if self._covered < change:
                raise Unavailable(
                    f"the change counts, and gateways do not have it yet: {late}", hint=_GOES_ON
                ) from error
        if late:
            _log.warning("lists.late", error=late)
        return late

    async def _refresh(self) -> bool:
        latest = await self._ledger.latest_revision()
        newer = latest if latest and latest.number != self.revision else None
        self.world = await self._complete(parse_world(newer.document) if newer else self.world)
        self.revision = newer.number if newer else self.revision
        seen = self._ledger.changes.value  # before what is revoked is read: a list of this revision has all of it
        revoked, before_it = await self._revoked(), self.denied
        self.denied = revoked.denied
        rows, delivered = self._authorities.rows, self._authorities.delivered
        roots = tuple(map(pem, self._authorities.roots))
        issuers = (*(one.chain_pem for one in delivered), *roots)
        slice_with = partial(
            make_slice, revision=self.revision, world=self.world, roots=roots, issuers=issuers, denied=self.denied
        )
        making = asyncio.create_task(self._crls(revoked, delivered, seen))
        try:
            await asyncio.wait({making}, timeout=PROMPT_S)
            if (before := self._given) and before.issuers == issuers and not _is_made(making):
                await self._give(partial(slice_with, crls=before.crls), rows)
                self._covered = seen
                if await self._gives_way(making, seen):
                    await before_it.forget()
                    return False
            await self._give(partial(slice_with, crls=await making), rows)
            self._listed, self._covered = self._clock.now(), seen
        finally:
            making.cancel()
        await revoked.forget_lists()
        await before_it.forget()
        return True

    async def _gives_way(self, lists: asyncio.Task[tuple[str, ...]], seen: int) -> bool:
        """Wait for lists, or for a change after ``seen``, whose revocations must not wait for them; tell whether it is that."""
        if not self._listed <= self._clock.now() < self._listed + OLD:
            return False
        await first_of(asyncio.wait({lists}), self._ledger.changes.wait_for_change(seen))
        return not lists.done()

    async def _complete(self, world: World) -> World:
        """Give a world with what belongs to it and does not stand in it: nothing here. No slice is made of it before."""
        return world

    async def _give(self, make: Callable[[], Slice], rows: Rows) -> None:
        long = len(self.denied) + self.world.listed > off_loop.MANY
        slice_, body = await off_loop.run(_made, make, long=long)
        if (new := coming(rows)) and new.stage is Stage.PUBLISHED:
            await self._rotations.note_slice(slice_.digest, new.number)  # before any agent can acknowledge it
        self.current.publish(PreparedSlice(slice_.digest, body))
        self._given = slice_

    async def _revoked(self) -> Revoked:
        found = Revoked()
        async for part in self._ledger.revoked_live(self._clock.now()):
            found.take(part)
        return found

    async def _crls(self, revoked: Revoked, delivered: Sequence[Authority], revision: int) -> tuple[str, ...]:
        """Give a list for every CA in any chain, or none while nothing is revoked: lists cost at each handshake."""
        now = self._clock.now()
        if not revoked.listed and not self._authorities.revoked(now):
            return ()
        issued = [
            await self._lists.list_of(one, revoked.by(one.issuer_facts.key_id.hex()), revision, now)
            for one in delivered
        ]
        return (*self._authorities.root_crls(), *issued)

    def faults(self, _: datetime) -> dict[str, Refusal]:
        """Give what is wrong with authorities of others, by name: none is looked after here."""
        return {}

    def works(self) -> tuple[Work, ...]:
        """Give what is to run all the time. What fails there is begun again, each by itself."""
        return (self.keep_fresh,)

    async def keep_fresh(self) -> None:
        """Follow the ledger's changes, and refresh hourly so that no CRL grows old."""
        while True:
            seen = self._ledger.changes.value  # before the refresh, so that what comes meanwhile is not slept through
            await self.refresh()
            await first_of(self._ledger.changes.wait_for_change(seen), self._clock.sleep(REFRESH.total_seconds()))


def _is_made(lists: asyncio.Task[tuple[str, ...]]) -> bool:
    return lists.done() and not lists.cancelled() and lists.exception() is None


def _made(make: Callable[[], Slice]) -> tuple[Slice, bytes]:
    slice_ = make()
    return slice_, written(slice_)
