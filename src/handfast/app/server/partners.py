"""The slice with what other authorities have revoked: their lists are fetched beside everything else, and a new one is a new slice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from handfast.access.authority import ForeignAuthority
from handfast.access.world import World
from handfast.app.server.messages import PartnerRow
from handfast.app.server.slices import Slices, Work
from handfast.base.events import SERVER, FindingRaised
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.windows import from_unix
from handfast.io.foreign_status import ForeignStatus
from handfast.io.generations import Generations
from handfast.io.ids import new_event_id
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.lists import SharedLists
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.waiting import first_of
from handfast.trust.foreign import ended
from handfast.trust.foreign_crl import RevocationList

DIRECTORY = "partners"


class PartnerSlices(Slices):
    """Keeps the current slice, and in it the last good revocation lists of the authorities that the world names."""

    def __init__(
        self,
        directory: Path,
        authorities: Generations,
        ledger: SqlLedger,
        rotations: Rotations,
        clock: Clock,
        shared: SharedLists | None = None,
    ) -> None:
        """Keep lists in ``directory``; ``shared`` is where other servers find our own."""
        self._status = ForeignStatus(directory / DIRECTORY)
        self._stirred = asyncio.Event()
        self._told: dict[str, Refusal] = {}
        super().__init__(authorities, ledger, rotations, clock, shared)

    async def refresh(self) -> bool:
        """Make the slice anew, with the lists of others that are known. One that is not known yet is fetched soon after."""
        whole = await super().refresh()
        self._stirred.set()
        return whole

    async def _complete(self, world: World) -> World:
        """Give a world with the lists that are known, and with those that it brings itself."""
        await self._status.follow(world.authorities, self._clock.now())
        return replace(world, lists=self._status.lists_of(world.authorities))

    def works(self) -> tuple[Work, ...]:
        """Give what is to run all the time: also the fetching of lists."""
        return (*super().works(), self.fetch)

    async def fetch(self) -> None:
        """Fetch each list before the one at hand grows old."""
        while True:
            self._stirred.clear()
            now = self._clock.now()
            await asyncio.gather(*(self._status.renew(one, now) for one in self._status.due(now)))
            await self._tell()
            if self._status.lists_of(self.world.authorities) != self.world.lists:
                await self.refresh()
                self._stirred.clear()
            await first_of(self._stirred.wait(), self._clock.sleep(self._status.next_look(self._clock.now())))

    def faults(self, now: datetime) -> dict[str, Refusal]:
        """Give what is wrong with authorities of others, by name."""
        return _ended(self.world, now) | self._status.faults(now)

    async def _tell(self) -> None:
        """Raise a finding for each authority whose list cannot be used, once for each fault."""
        now = self._clock.now()
        faults = self.faults(now)
        fresh = {name: fault for name, fault in faults.items() if self._told.get(name) != fault}
        found = [
            FindingRaised(
                id=new_event_id(),
                at=now,
                source=SERVER,
                reason=fault.reason,
                evidence={"authority": name, **fault.evidence},
            )
            for name, fault in fresh.items()
        ]
        if found:
            await self._ledger.append(found)
        self._told = faults


def _ended(world: World, now: datetime) -> dict[str, Refusal]:
    """Say which authorities have a CA that does not count now: gateways refuse whatever is below it."""
    whys = {name: ended(one.cas, now) for name, one in world.authorities.items()}
    return {name: Refusal(Reason.CHAIN_ISSUER_EXPIRED, {"ca": why}) for name, why in whys.items() if why}


def partner_rows(world: World, faults: Mapping[str, Refusal]) -> list[PartnerRow]:
    """Give the authorities of others with the next date of each."""
    return [_row(one, world.lists.get(name, ()), faults.get(name)) for name, one in sorted(world.authorities.items())]


def _row(authority: ForeignAuthority, lists: Sequence[RevocationList], fault: Refusal | None) -> PartnerRow:
    ways = (("ocsp", authority.responder), ("crl", authority.has_lists))
    return PartnerRow(
        name=authority.name,
        hosts=sorted(authority.hosts),
        ends=min(ca.window.not_after for ca in authority.cas),
        revocation="+".join(name for name, used in ways if used),
        lists_until=from_unix(min(one.until for one in lists)) if lists else None,
        fault=fault.reason.value if fault else "",
    )
