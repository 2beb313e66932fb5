"""The slice that agents get: made from the ledger and the authorities whenever one of them changed, and kept ready as bytes.

While one authority follows another, it holds all that count: roots, issuers and their lists. The first issuer is the one that
issues: by that agents know when to renew early.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handfast.access.slice import document_of, make_slice
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.base.refusal import Refusal
from handfast.io.authorities import Authority
from handfast.io.generations import Generations
from handfast.io.ledger import RevokedCertificate, SqlLedger
from handfast.io.ledger.lists import SharedLists
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.slice_lists import SliceLists
from handfast.io.topic import Topic
from handfast.io.waiting import first_of
from handfast.trust.facts import pem
from handfast.trust.revocation import RevocationReason, Revoked
from handfast.trust.rotation import Stage, coming

REFRESH = timedelta(hours=1)


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
        self.denied: frozenset[str] = frozenset()
        self._alone = asyncio.Lock()

    async def refresh(self) -> None:
        """Make the slice anew. An equal one wakes nobody."""
        # A long list takes its time, and a slice from before it must not come after one that began later.
        async with self._alone:
            await self._refresh()

    async def _refresh(self) -> None:
        latest = await self._ledger.latest_revision()
        if latest and latest.number != self.revision:
            self.world, self.revision = parse_world(latest.document), latest.number
        seen = self._ledger.changes.value  # before what is revoked is read: a list of this revision has all of it
        revoked = await self._ledger.revoked_live(self._clock.now())
        self.denied = frozenset(one.fingerprint for one in revoked if one.fingerprint)
        rows, delivered = self._authorities.rows, self._authorities.delivered
        roots = tuple(map(pem, self._authorities.roots))
        slice_ = make_slice(
            revision=self.revision,
            world=self.world,
            roots=roots,
            issuers=(*(one.chain_pem for one in delivered), *roots),
            crls=await self._crls(revoked, delivered, seen),
            denied=tuple(self.denied),
        )
        if (new := coming(rows)) and new.stage is Stage.PUBLISHED:
            await self._rotations.note_slice(slice_.digest, new.number)  # before any agent can acknowledge it
        self.current.publish(PreparedSlice(slice_.digest, json.dumps(document_of(slice_)).encode()))

    async def _crls(
        self, revoked: Sequence[RevokedCertificate], delivered: Sequence[Authority], revision: int
    ) -> tuple[str, ...]:
        """Give a list for every CA in any chain, or none while nothing is revoked: lists cost at each handshake."""
        now = self._clock.now()
        if not revoked and not self._authorities.revoked(now):
            return ()
        above = self._authorities.root_crls()
        return (*above, *[await self._lists.list_of(one, _listed(revoked, one), revision, now) for one in delivered])

    def faults(self, _: datetime) -> dict[str, Refusal]:
        """Give what is wrong with authorities of others, by name: none is looked after here."""
        return {}

    async def keep_fresh(self) -> None:
        """Follow the ledger's changes, and refresh hourly so that no CRL grows old."""
        while True:
            seen = self._ledger.changes.value  # before the refresh, so that what comes meanwhile is not slept through
            await self.refresh()
            await first_of(self._ledger.changes.wait_for_change(seen), self._clock.sleep(REFRESH.total_seconds()))


def _listed(revoked: Sequence[RevokedCertificate], by: Authority) -> list[Revoked]:
    """Give what an authority's own list holds: the revoked certificates that it issued."""
    issuer = by.issuer_facts.key_id.hex()
    return [
        Revoked(
            serial=one.serial,
            fingerprint=one.fingerprint,
            at=one.revoked_at,
            reason=RevocationReason(one.reason),
            not_after=one.not_after,
        )
        for one in revoked
        if one.issuer == issuer
    ]
