"""How certificates of other authorities stand: agents ask, and their responders are asked in turn.

Decides for which certificates a responder is asked: those that a CA of the authority signed and that count now, whatever an agent
says. What it answered outlives this server (`handfast.io.foreign_answers`). An operator is told of a responder that is away or answers
wrongly, and not more often than once a minute for each authority.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from handfast.access.authority import ForeignAuthority
from handfast.app.server.slices import Slices
from handfast.base.events import SERVER, FindingRaised
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.io.foreign_answers import Answer, ForeignAnswers
from handfast.io.foreign_responder import ForeignResponders
from handfast.io.ids import new_event_id
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock
from handfast.io.standings import Record, Standings
from handfast.trust.facts import fingerprint, hex_serial
from handfast.trust.foreign import ForeignCa, read_ca
from handfast.trust.foreign_ocsp import issuer_of
from handfast.trust.standing import Standing

_log = structlog.get_logger("handfast")
ANSWERS = "answers"
TELL_EVERY = timedelta(minutes=1)


@dataclass(slots=True)
class _Fault:
    """What was wrong with an authority's responder last, None since it answers, and when that was told."""

    reason: Reason | None
    told: datetime


@dataclass(slots=True)
class _Question:
    """A certificate that is asked for, by its fingerprint; of which authority and CA, by its serial; and what was answered."""

    authority: ForeignAuthority
    ca: ForeignCa
    certificate: str
    serial: int
    heard: Answer | None = None


class PartnerStandings:
    """What this server knows of the certificates of other authorities."""

    def __init__(
        self, slices: Slices, ledger: SqlLedger, clock: Clock, responders: ForeignResponders, answers: ForeignAnswers
    ) -> None:
        """Go by the world of ``slices``; ask ``responders``, and keep in ``answers`` what they say."""
        self._slices, self._ledger, self._clock, self._responders = slices, ledger, clock, responders
        self._standings, self._answers = Standings(clock), answers
        self._followed: Mapping[str, ForeignAuthority] = {}
        self._faults: dict[str, _Fault] = {}

    async def of(self, authority: str, leaf: bytes) -> Standing:
        """Give the standing of a leaf (DER) with an authority of the world.

        Raises:
            Refused: no responder is asked for that authority. BadInput: none of its CAs signed the leaf, or it does not count now.
        """
        await self._follow(self._slices.world.authorities)
        named = self._slices.world.authorities.get(authority)
        if named is None or not named.responder:
            raise Refused(Refusal(Reason.NOT_FOUND, {"authority": authority}))
        ca = issuer_of(leaf, named.cas, self._clock.now())
        if ca is None:
            raise BadInput("no CA of this authority issued it, or it does not count now", key="certificate")
        question = _Question(named, ca, fingerprint(leaf), int(read_ca(leaf).serial, 16))
        record = Record(lambda: self._recall(question), lambda _: self._keep(question))
        return await self._standings.of(authority, question.certificate, lambda: self._ask(question), record)

    async def close(self) -> None:
        """Ask no more."""
        await self._responders.close()

    async def _follow(self, authorities: Mapping[str, ForeignAuthority]) -> None:
        self._standings.follow(authorities)
        if authorities is not self._followed:
            self._followed = authorities
            await asyncio.to_thread(self._answers.follow, authorities)

    async def _ask(self, question: _Question) -> Standing | None:
        authority, now = question.authority, self._clock.now()
        said = await self._responders.ask(authority.responder, question.ca, question.serial, now)
        if isinstance(said, Answer):
            if authority.name in self._faults:
                self._faults[authority.name].reason = None
            question.heard = said
            return said.standing
        await self._tell(authority.name, said, hex_serial(question.serial))
        return None

    async def _recall(self, question: _Question) -> Standing | None:
        now, recall = self._clock.now(), self._answers.recall
        return await asyncio.to_thread(
            recall, question.authority, question.certificate, question.ca, question.serial, now
        )

    async def _keep(self, question: _Question) -> None:
        """Keep the answer that counts now. Where that cannot be, a server that begins anew asks again."""
        assert question.heard
        try:
            await asyncio.to_thread(self._answers.keep, question.authority, question.certificate, question.heard)
        except HandfastError as error:
            _log.warning("standing.unkept", authority=question.authority.name, error=str(error))

    async def _tell(self, authority: str, fault: Refusal, serial: str) -> None:
        now, told = self._clock.now(), self._faults.get(authority)
        if told and (told.reason is fault.reason or told.told <= now < told.told + TELL_EVERY):
            return
        evidence = {"authority": authority, "serial": serial, **fault.evidence}
        found = FindingRaised(id=new_event_id(), at=now, source=SERVER, reason=fault.reason, evidence=evidence)
        self._faults[authority] = _Fault(fault.reason, now)  # before it waits: who asks meanwhile need not tell it too
        try:
            await self._ledger.append([found])
        except Unavailable as error:
            _log.warning(fault.reason.value, authority=authority, untold=str(error))
            self._faults.pop(authority, None)  # another one may have waited as long
