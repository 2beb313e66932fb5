"""The rotation of authorities, driven: looks what the world is like, takes the steps that are safe, and begins one in time.

Decides the order of files, ledger and slices within a step, so that a server that dies at any point goes on at its next start.
Which step is next, and who holds it up, is decided in `handfast.trust.rotation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from handfast.app.server.callers import AGENT_PREFIX, Caller, Role
from handfast.app.server.lists_above import ListsAbove
from handfast.app.server.messages import GATEWAY_NAME
from handfast.app.server.rotation_metrics import rotation_text
from handfast.app.server.sightings import Sightings
from handfast.app.server.slices import Slices
from handfast.base.events import SERVER, CertificateRevoked, Event, FindingRaised, RotationStepped
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refusal, Refused, Unavailable, require
from handfast.io.generations import Generations
from handfast.io.ids import new_event_id
from handfast.io.issuance import IssuedCertificate
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.sharing import Sharing
from handfast.io.topic import Topic
from handfast.io.waiting import first_of
from handfast.trust import rotation
from handfast.trust.facts import CertificateFacts, facts, pem
from handfast.trust.revocation import RevocationReason
from handfast.trust.rotation import NO_LEAVES, PACE, Facts, Generation, Leaves, Outlook, Pace, Stage, Step, Verb

RENEWED_FOR = timedelta(minutes=1)
"""How long a new certificate has to be there before the compromised one of the same name counts as replaced."""

ITSELF = "server: a third of the issuing authority's life was left"

_log = structlog.get_logger("handfast")
_T = TypeVar("_T")


class Rotation:
    """Rotates the authorities of one trust domain. Several servers may do so over one ledger.

    ``sharing`` is there where generations travel between them by the ledger.
    """

    def __init__(
        self,
        authorities: Generations,
        rotations: Rotations,
        slices: Slices,
        ledger: SqlLedger,
        clock: Clock,
        sharing: Sharing | None = None,
        pace: Pace = PACE,
    ) -> None:
        """Know nothing yet; `recall` does."""
        self._pace = pace
        self._authorities, self._rotations, self.lists = (
            authorities,
            rotations,
            ListsAbove(authorities, slices, sharing),
        )
        self._ledger, self._clock, self._sharing = ledger, clock, sharing
        self._begun: set[int] = set()
        self._cutting: set[str] = set()
        self._news = asyncio.Event()
        self.settled: Topic[rotation.Generations] = Topic(())
        self.fault = ""
        self._failing: datetime | None = None
        self._in_use: dict[str, datetime] = {}
        self._sightings = Sightings(rotations, pace.settle)
        self._alone = asyncio.Lock()

    @property
    def rows(self) -> rotation.Generations:
        """The generations, as they are here."""
        return self._authorities.rows

    async def recall(self) -> None:
        """Take what the ledger says; at the very first start, tell the ledger what the directory holds.

        Raises:
            BadInput: a file that is needed cannot be used.
        """
        await self._sightings.note()
        rows = await self._rotations.generations()
        if not rows:
            await self._rotations.save((), self._authorities.first(self._clock.now()))
            rows = await self._rotations.generations()
        changed = rows != self.settled.value or rows != self.rows
        await self.lists.bring(rows)
        if changed:
            self._authorities.settle(rows)
        await self.lists.look(anew=changed)
        self.settled.publish(rows)

    async def follow(self) -> None:
        """Go on every few seconds, for ever."""
        while True:
            self._news.clear()
            await self.go_on()
            await first_of(self._news.wait(), self._clock.sleep(self._pace.every_s))

    async def heard(self) -> None:
        """Look whether another server has taken a step or a newer list, and let `follow` go on at once where it has."""
        if (rows := await self._rotations.generations()) != self.rows or await self.lists.has_news(rows):
            self._news.set()

    async def go_on(self, requester: str = SERVER) -> None:
        """Take every step that is safe now. What stands in the way is a finding, told once."""
        async with self._alone:
            await self.recall()
            try:
                if rotation.due(self.rows, self._clock.now()):
                    await self._begin(root=False, compromised=False, requester=ITSELF)
                while (step := (await self._outlook()).step) and await self._take(step, requester):
                    pass
                self.fault, self._failing = "", None
            except HandfastError as error:
                await self._stuck(str(error))

    async def outlook(self) -> Outlook:
        """Tell what comes next, and who holds it up."""
        async with self._alone:
            await self.recall()
            return await self._outlook()

    async def begin(self, *, root: bool, compromised: bool, requester: str) -> None:
        """Begin a rotation, and go as far as is safe at once.

        Raises:
            Refused: one is coming already, or the root has ended.
            BadInput: the root's key is not there.
            Unavailable: another server began one at the same time.
        """
        async with self._alone:
            await self.recall()
            await self._begin(root=root, compromised=compromised, requester=requester)
        await self.go_on(requester)

    async def back(self, requester: str) -> None:
        """Undo the rotation that is under way.

        Raises:
            Refused: there is none, or no way back.
        """
        async with self._alone:
            await self.recall()
            await self._take_now(require(rotation.back(self.rows, self._clock.now())), requester)
        await self.go_on(requester)

    async def force(self, confirmed: int, requester: str) -> None:
        """Take the step that is held up, whoever is cut off by it.

        Raises:
            Refused: ``confirmed`` is not the number of those who are, or there are none.
        """
        async with self._alone:
            await self.recall()
            step = require(rotation.forced(await self._outlook(), confirmed))
            await self._take_now(step, requester, stranded=confirmed)
        await self.go_on(requester)

    async def leaves_of(self, one: Generation) -> Leaves:
        """Count the live leaves of a generation, without those that their holder has replaced."""
        return await self._rotations.leaves_of(one.issuer, self._clock.now(), self._in_use) if one.issuer else NO_LEAVES

    async def cut_short(self, one: Generation) -> int:
        """Count the live leaves that end with the issuing CA itself, where that issues still."""
        if one.stage is not Stage.ISSUING or one.window is None:
            return 0
        return await self._rotations.cut_short(one.issuer, one.window.not_after, self._clock.now())

    async def copies(self, one: Generation) -> int:
        """Count the live leaves of a generation that were renewed, and are in use again."""
        return await self._rotations.copies(one.issuer, self._clock.now()) if one.issuer else 0

    def admit(self, caller: Caller) -> Caller:
        """Give the caller back, unless its authority does not count here any more; remember which certificate an agent uses.

        TLS looks at roots alone: an issuing CA that was retired or revoked still has a root that counts.

        Raises:
            Refused: the issuer of its certificate is none that counts.
        """
        held = caller.certificate
        if held and not self._authorities.accepts(held.aki):
            raise Refused(Refusal(Reason.REVOKED_ISSUER, {"issuer": held.aki[:64], "serial": held.serial}))
        if held and caller.role is Role.AGENT:
            name = f"{AGENT_PREFIX}{caller.name}"
            self._in_use[name] = max(held.window.not_before, self._in_use.get(name, held.window.not_before))
        return caller

    async def issued(self, one: IssuedCertificate) -> None:
        """Keep that a leaf came with the root that is just being published. Its holder has no reason to ask for another one.

        Of the first leaf that is cut short because its issuer was not replaced in time there is a finding.
        """
        if one.cut_short:
            await self._cut_short(facts(one.der).aki)
        new = rotation.coming(self.rows)
        if new is None or new.stage is not Stage.PUBLISHED or new.root == rotation.issuing(self.rows).root:
            return
        above, early = self._authorities.by_issuer(new.issuer), one.event.at < new.since + 2 * self._pace.settle
        if above and early and pem(above.root_der) in one.bundle_pem:
            await self._rotations.note_aware(one.serial, new.number, one.event.not_after, self._clock.now())

    def used(self, serial: str) -> None:
        """Remember that a leaf was seen in use: it is written down before anything is decided by it."""
        self._sightings.at_api(serial, self._clock.now())

    def told(self, events: Iterable[Event]) -> None:
        """Remember the leaves that connected to a gateway, as `used`."""
        self._sightings.at_gateways(events, self._clock.now())

    async def renewed(self, serial: str, ends: datetime, successor: str) -> None:
        """Keep that whoever holds the leaf ``serial`` was given another one. The old one counts until the new one was `used`."""
        await self._rotations.note_successor(successor, serial, ends, self._clock.now())

    async def serves(self, agent: str, serials: Collection[str]) -> None:
        """Take an agent's word for the host certificates that its Envoy has taken: those that they replace count no more."""
        await self._rotations.note_served(f"{GATEWAY_NAME}{agent}", serials, self._clock.now())

    async def replaced(self, leaf: CertificateFacts) -> None:
        """Take the word of a leaf's only holder that it uses another one by now."""
        await self._rotations.note_replaced(leaf.serial, leaf.window.not_after, self._clock.now())

    async def kept(self, serial: str) -> None:
        """Take the word of the platform's own keepers: this leaf is kept, and no other one of its key ever was, or will be."""
        await self._rotations.note_keeper(serial, self._clock.now())

    async def forget_agent(self, name: str, requester: str) -> None:
        """Let an agent go that will not come back: it is unknown from now on, and holds nothing up.

        Raises:
            Refused: there is no such agent.
        """
        if not await self._rotations.remove_agent(name):
            raise Refused(Refusal(Reason.NOT_FOUND, {"agent": name}))
        await self.go_on(requester)

    async def metrics(self) -> bytes:
        """Give the rotation's gauges in Prometheus' text format."""
        outlook = await self.outlook()  # which may change the rows
        return rotation_text(self.rows, outlook, self.fault)

    # One step

    async def _begin(self, *, root: bool, compromised: bool, requester: str) -> None:
        after = require(rotation.begin(self.rows, self._clock.now(), root=root, compromised=compromised))
        new = rotation.coming(after)
        assert new
        if new not in self.rows:
            await self._aside(new.root, partial(self._authorities.check_root, new.root))
        if not await self._rotations.save(self.rows, after, [self._event("begin", new, requester)]):
            raise Unavailable("another server began a rotation at the same time", hint="see 'handfast ca status'")
        self._begun.add(new.number)
        await self.recall()

    async def _take_now(self, step: Step, requester: str, stranded: int = 0) -> None:
        if not await self._take(step, requester, stranded):
            raise Unavailable(
                "another server took a step at the same time", hint="see 'handfast ca status', and try again"
            )

    async def _take(self, step: Step, requester: str, stranded: int = 0) -> bool:
        """Take a step: files first, then the ledger, then what follows from it. Tell whether nobody else was faster."""
        before, now = self.rows, self._clock.now()
        one = rotation.by_number(before, step.number)
        if (
            step.verb is Verb.MAKE
            and self._rotations.has_others
            and one.number not in self._begun
            and now < one.since + self._pace.settle
            and not rotation.issuing(before).ended(now)  # no server could start until it is made
        ):
            return False  # who began it makes it: the root's key may be there alone
        if step.verb is Verb.MAKE:
            after = await self._aside(one.root, partial(self._authorities.make, one, before, now))
        else:
            after = rotation.taken(before, step, now)
        if step.verb is Verb.PUBLISH:
            # From this moment on all bundles have the root. The ledger's moment of publication must not be an earlier one.
            self._authorities.settle(after)
        if step.verb is Verb.RETIRE and one.compromised:
            await self._revoke_all(one, requester)
        shared = await self._sharing.steps(before, after) if self._sharing else ()
        event = self._event(step.verb.value, one, requester, stranded)
        saved = await self._rotations.save(before, after, [event], shared)
        if saved and step.verb in {Verb.SWITCH, Verb.BACK}:
            await self._rotations.forget_slices(step.number)
        await self.recall()
        return saved

    async def _aside(self, root: int, work: Callable[[], _T]) -> _T:
        """Do what a root's key is needed for. A token may let us wait for it: nobody else waits with us then."""
        return await asyncio.to_thread(work) if self._authorities.in_token(root) else work()

    async def _revoke_all(self, gone: Generation, requester: str) -> None:
        """Revoke what is left of a compromised CA: gateways and services that know no list of its root refuse it by this."""
        reason, now = RevocationReason.CA_COMPROMISE.value, self._clock.now()
        while left := await self._rotations.serials_of(gone.issuer, now):
            events = [
                CertificateRevoked(
                    id=new_event_id(),
                    at=now,
                    serial=serial,
                    fingerprint=fingerprint,
                    identity=identity,
                    crl_reason=reason,
                    requester=requester,
                )
                for serial, fingerprint, identity in left
            ]
            await self._ledger.revoke([serial for serial, _, _ in left], now, reason, events)

    def _event(self, verb: str, one: Generation, requester: str, stranded: int = 0) -> Event:
        return RotationStepped(
            id=new_event_id(),
            at=self._clock.now(),
            step=verb,
            generation=one.number,
            root=one.root,
            issuer=one.issuer,
            stranded=stranded,
            requester=requester,
        )

    async def _stuck(self, error: str) -> None:
        """Tell what stands in the way, once. What may be missing here alone is given time: another server can take the step.

        Not where the authority has ended: without it no server can start.
        """
        now = self._clock.now()
        self._failing = self._failing or now
        patient = self._rotations.has_others and not rotation.issuing(self.rows).ended(now)
        if error == self.fault or (patient and now < self._failing + self._pace.spread):
            return
        self.fault = error
        await self._raise(Reason.ROTATION_STUCK, {"error": error[:1000]})

    async def _cut_short(self, issuer: str) -> None:
        """Tell that an issuer near its end cuts leaves short: once for each, whichever server issues, however often it starts.

        A long life that was asked of an issuer with most of its own to come is nobody's fault.
        """
        window = next((row.window for row in self.rows if row.issuer == issuer), None)
        if issuer in self._cutting or window is None or self._clock.now() < rotation.third_left(window):
            return
        self._cutting.add(issuer)
        if await self._ledger.next_counter(f"cut-short/{issuer}") == 1:
            evidence = {"issuer": issuer, "issuer_ends": window.not_after.isoformat()}
            await self._raise(Reason.ISSUANCE_CUT_SHORT, evidence)

    async def _raise(self, reason: Reason, evidence: dict[str, str]) -> None:
        now = self._clock.now()
        finding = FindingRaised(id=new_event_id(), at=now, source=SERVER, reason=reason, evidence=evidence)
        await self._ledger.append([finding])

    # Facts

    async def _outlook(self) -> Outlook:
        rows, now = self.rows, self._clock.now()
        new, dependent = rotation.coming(rows), {}
        for one in rows:
            if one.stage is Stage.RETIRING:
                dependent[one.number] = await self._dependent(one, now)
        if new is None or new.stage is not Stage.PUBLISHED:
            return rotation.outlook(rows, Facts(now=now, pace=self._pace, dependent=dependent))
        agents = await self._rotations.agents_seen(new.number)
        unaware = NO_LEAVES
        if new.root != rotation.issuing(rows).root:
            settled = new.since + self._pace.settle
            unaware = await self._rotations.leaves_from_before(settled, new.number, now, self._in_use)
        facts = Facts(now=now, pace=self._pace, agents=agents, unaware=unaware, dependent=dependent)
        return rotation.outlook(rows, facts)

    async def _dependent(self, one: Generation, now: datetime) -> Leaves:
        if not one.compromised:
            return await self._rotations.leaves_of(one.issuer, now, self._in_use)
        by = rotation.issuing(self.rows).issuer
        return await self._rotations.leaves_not_renewed(one.issuer, by, now - RENEWED_FOR, now)
