"""The slice that agents get: made from the ledger and the authority whenever one of them changed, and kept ready as bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from handfast.access.slice import document_of, make_slice
from handfast.access.world import World
from handfast.access.world_file import parse_world
from handfast.io.authorities import Authority
from handfast.io.ledger import RevokedCertificate, SqlLedger
from handfast.io.ports import Clock
from handfast.io.topic import Topic
from handfast.trust.revocation import RevocationReason, Revoked

REFRESH = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PreparedSlice:
    """A slice as it goes over the wire."""

    digest: str
    body: bytes


class Slices:
    """Keeps the current slice. One for all agents, as each host may be served by each gateway for now."""

    def __init__(self, authority: Authority, ledger: SqlLedger, clock: Clock) -> None:
        """Make nothing yet; `refresh` does."""
        self._authority, self._ledger, self._clock = authority, ledger, clock
        self.current: Topic[PreparedSlice | None] = Topic(None)
        self.world = World(authority.trust_domain)
        self.revision = 0
        self.denied: frozenset[str] = frozenset()

    async def refresh(self) -> None:
        """Make the slice anew. An equal one wakes nobody."""
        latest = await self._ledger.latest_revision()
        if latest and latest.number != self.revision:
            self.world, self.revision = parse_world(latest.document), latest.number
        revoked = await self._ledger.revoked_live(self._clock.now())
        self.denied = frozenset(one.fingerprint for one in revoked if one.fingerprint)
        slice_ = make_slice(
            revision=self.revision,
            world=self.world,
            roots=(self._authority.bundle_pem,),
            issuers=(self._authority.bundle_pem, self._authority.chain_pem),
            crls=await self._crls(revoked),
            denied=tuple(self.denied),
        )
        self.current.publish(PreparedSlice(slice_.digest, json.dumps(document_of(slice_)).encode()))

    async def _crls(self, revoked: Sequence[RevokedCertificate]) -> tuple[str, ...]:
        """Give a list for every CA in the chain, or none while nothing is revoked: lists cost at each handshake."""
        if not revoked:
            return ()
        number = await self._ledger.next_counter("crl")
        listed = [_listed(one) for one in revoked]
        return (self._authority.root_crl_pem, await self._authority.crl(listed, number, self._clock.now()))

    async def keep_fresh(self) -> None:
        """Follow the ledger's changes, and refresh hourly so that no CRL grows old."""
        while True:
            seen = self._ledger.changes.value  # before the refresh, so that what comes meanwhile is not slept through
            await self.refresh()
            await self._change_or_hour(seen)

    async def _change_or_hour(self, seen: int) -> None:
        change = asyncio.create_task(self._ledger.changes.wait_for_change(seen))
        hour = asyncio.create_task(self._clock.sleep(REFRESH.total_seconds()))
        try:
            await asyncio.wait((change, hour), return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()
            hour.cancel()


def _listed(one: RevokedCertificate) -> Revoked:
    return Revoked(
        serial=one.serial,
        fingerprint=one.fingerprint,
        at=one.revoked_at,
        reason=RevocationReason(one.reason),
        not_after=one.not_after,
    )
