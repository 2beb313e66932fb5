"""How certificates of other authorities stand: agents ask, and their responders are asked in turn.

Decides for which certificates a responder is asked: those that a CA of the authority signed and that count now, whatever an agent
says. An operator is told of a responder that is away or answers wrongly, and not more often than once a minute for each authority.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from handfast.access.authority import ForeignAuthority
from handfast.app.server.slices import Slices
from handfast.base.events import FindingRaised
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused, Unavailable
from handfast.io.foreign_responder import ForeignResponders
from handfast.io.ids import new_event_id
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock
from handfast.io.standings import Standings
from handfast.trust.facts import fingerprint
from handfast.trust.foreign import ForeignCa, read_ca
from handfast.trust.foreign_ocsp import issuer_of
from handfast.trust.standing import Standing

_log = structlog.get_logger("handfast")
TELL_EVERY = timedelta(minutes=1)


@dataclass(slots=True)
class _Fault:
    """What was wrong with an authority's responder last, None since it answers, and when that was told."""

    reason: Reason | None
    told: datetime


class PartnerStandings:
    """What this server knows of the certificates of other authorities."""

    def __init__(self, slices: Slices, ledger: SqlLedger, clock: Clock, responders: ForeignResponders) -> None:
        """Go by the world of ``slices``; ask ``responders``."""
        self._slices, self._ledger, self._clock, self._responders = slices, ledger, clock, responders
        self._standings = Standings(clock)
        self._faults: dict[str, _Fault] = {}

    async def of(self, authority: str, leaf: bytes) -> Standing:
        """Give the standing of a leaf (DER) with an authority of the world.

        Raises:
            Refused: no responder is asked for that authority. BadInput: none of its CAs signed the leaf, or it does not count now.
        """
        self._standings.follow(self._slices.world.authorities)
        named = self._slices.world.authorities.get(authority)
        if named is None or not named.responder:
            raise Refused(Refusal(Reason.NOT_FOUND, {"authority": authority}))
        ca = issuer_of(leaf, named.cas, self._clock.now())
        if ca is None:
            raise BadInput("no CA of this authority issued it, or it does not count now", key="certificate")
        return await self._standings.of(authority, fingerprint(leaf), lambda: self._ask(named, ca, leaf))

    async def close(self) -> None:
        """Ask no more."""
        await self._responders.close()

    async def _ask(self, authority: ForeignAuthority, ca: ForeignCa, leaf: bytes) -> Standing | None:
        serial = read_ca(leaf).serial
        said = await self._responders.ask(authority.responder, ca, int(serial, 16), self._clock.now())
        if isinstance(said, Standing):
            if authority.name in self._faults:
                self._faults[authority.name].reason = None
            return said
        await self._tell(authority.name, said, serial)
        return None

    async def _tell(self, authority: str, fault: Refusal, serial: str) -> None:
        now, told = self._clock.now(), self._faults.get(authority)
        if told and (told.reason is fault.reason or now - told.told < TELL_EVERY):
            return
        evidence = {"authority": authority, "serial": serial, **fault.evidence}
        found = FindingRaised(id=new_event_id(), at=now, source="server", reason=fault.reason, evidence=evidence)
        self._faults[authority] = _Fault(fault.reason, now)  # before it waits: who asks meanwhile need not tell it too
        try:
            await self._ledger.append([found])
        except Unavailable as error:
            _log.warning(fault.reason.value, authority=authority, untold=str(error))
            del self._faults[authority]
