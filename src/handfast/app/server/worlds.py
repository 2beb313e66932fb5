"""Endpoints for the world: apply, diff, export, and the platform's status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from handfast import __version__
from handfast.access.authority import ForeignAuthority
from handfast.access.authority_file import own_confusion
from handfast.access.cautions import endings, unstapled
from handfast.access.effect import Effect, Traffic, as_text, effect
from handfast.access.policy import Host
from handfast.access.world import World
from handfast.access.world_file import digest, parse_world, warnings
from handfast.app.server.agents import agent_rows
from handfast.app.server.callers import EVERYONE, OPERATORS, Caller
from handfast.app.server.certificates import NEWEST, bounded_number
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import (
    AuthorityAnswer,
    RevisionList,
    RevisionRow,
    StatusAnswer,
    WorldAnswer,
)
from handfast.app.server.partners import partner_rows
from handfast.app.server.platform import Platform
from handfast.base.events import WorldApplied
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.io.ids import new_event_id
from handfast.io.ledger import TrafficCount
from handfast.io.ledger.staples import StapleEnd
from handfast.trust.facts import facts
from handfast.trust.foreign import ended, read_ca
from handfast.trust.foreign_crl import crl_ders, judge_crl

TRAFFIC_WINDOW = timedelta(days=7)
LATEST = -1


@dataclass(frozen=True, slots=True)
class Worlds:
    """The endpoints that concern the world file and the platform as a whole."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(method="PUT", path="/v1/world", handler=self.apply, roles=OPERATORS, body=str, answer=WorldAnswer),
            Endpoint(
                method="POST", path="/v1/world/diff", handler=self.diff, roles=OPERATORS, body=str, answer=WorldAnswer
            ),
            Endpoint(method="GET", path="/v1/world", handler=self.export, roles=OPERATORS, query=("revision",)),
            Endpoint(
                method="GET",
                path="/v1/world/revisions",
                handler=self.revisions,
                roles=OPERATORS,
                query=("before", "limit"),
                answer=RevisionList,
            ),
            Endpoint(method="GET", path="/v1/status", handler=self.status, roles=OPERATORS, answer=StatusAnswer),
            Endpoint(
                method="GET", path="/v1/authority", handler=self.authority, roles=EVERYONE, answer=AuthorityAnswer
            ),
        )

    async def apply(self, caller: Caller, _: Request, body: str) -> WorldAnswer:
        """Make a world file the one that counts."""
        world, change = await self._weigh(body)
        before = self.platform.slices.revision
        event = WorldApplied(
            id=new_event_id(),
            at=self.platform.clock.now(),
            revision=before + 1,
            digest=digest(body),
            requester=str(caller),
        )
        number = await self.platform.ledger.apply(body, event.digest, event.requester, event.at, event)
        late = await self.platform.slices.refresh_soon()
        answer = self._answer(number, body, world, change, changed=number != before)
        if late:
            answer.warnings.append(f"revocation lists are late, and the server goes on trying: {late}")
        return answer

    async def diff(self, _: Caller, __: Request, body: str) -> WorldAnswer:
        """Tell what an apply would change, and change nothing."""
        world, change = await self._weigh(body)
        latest = await self.platform.ledger.latest_revision()
        changed = latest is None or latest.digest != digest(body)
        return self._answer(self.platform.slices.revision, body, world, change, changed=changed)

    async def _weigh(self, text: str) -> tuple[World, Effect]:
        world = parse_world(text)
        if world.trust_domain != self.platform.trust_domain:
            raise BadInput(
                f"this server's trust domain is {self.platform.trust_domain}, not {world.trust_domain}",
                key="trust_domain",
                hint="a trust domain is chosen once, at the first start; use another data directory for another one",
            )
        self._refuse_unfit(world)
        since = self.platform.clock.now() - TRAFFIC_WINDOW
        old = self.platform.slices.world if self.platform.slices.revision else None
        traffic = [_seen(counted) for counted in await self.platform.ledger.traffic(since)]
        return world, effect(old, world, traffic, days=TRAFFIC_WINDOW.days)

    def _refuse_unfit(self, world: World) -> None:
        """Refuse authorities of others that cannot count: with a CA that has ended, or one that could be taken for ours.

        A CA or a list that ended in the world in force is a caution: it lets nobody in, and must not stand in the way of other changes.
        """
        ours, now = [read_ca(der) for der in self.platform.authorities.known_cas], self.platform.clock.now()
        before = self.platform.slices.world.authorities
        held = {ca.fingerprint for one in before.values() for ca in one.cas}
        for name, authority in world.authorities.items():
            if why := ended((ca for ca in authority.cas if ca.fingerprint not in held), now):
                raise BadInput(why, key=f"authorities.{name}", hint="leave it out, or put its successor in its place")
            if why := _bad_list(authority, _lists_in(before.get(name)), now):
                key = f"authorities.{name}.revocation.crl_pem"
                raise BadInput(why, key=key, hint="give the newest whole list of that CA")
            if why := own_confusion(authority, ours):
                raise BadInput(
                    why, key=f"authorities.{name}", hint="an authority of somebody else has a name and a key of its own"
                )

    def _answer(self, number: int, text: str, world: World, change: Effect, *, changed: bool) -> WorldAnswer:
        return WorldAnswer(
            revision=number,
            digest=digest(text),
            changed=changed,
            effect=as_text(change).splitlines(),
            warnings=[*warnings(world), *self._cautions(world)],
        )

    def _cautions(self, world: World) -> list[str]:
        """Give what is to be pointed at because of the time, and of how this server runs."""
        platform = self.platform
        return [*endings(world, platform.clock.now()), *(() if platform.issuance.names_status else unstapled(world))]

    async def export(self, _: Caller, request: Request, __: None) -> Response:
        """Give the world file that counts, as it was written."""
        wanted = bounded_number(request.query_params.get("revision"), "revision", LATEST, NEWEST)
        ledger = self.platform.ledger
        revision = await (ledger.latest_revision() if wanted == LATEST else ledger.revision(wanted))
        if revision is None and wanted != LATEST:
            raise Refused(Refusal(Reason.NOT_FOUND, {"revision": str(wanted)}))
        if revision is None:
            raise BadInput("no world was applied yet", hint="apply a world file first (handfast apply)")
        headers = {"etag": f'"{revision.digest}"', "handfast-revision": str(revision.number)}
        return Response(revision.document, media_type="application/yaml", headers=headers)

    async def revisions(self, _: Caller, request: Request, __: None) -> RevisionList:
        """Tell which worlds were applied, when and by whom."""
        before = bounded_number(request.query_params.get("before"), "before", NEWEST, NEWEST)
        limit = bounded_number(request.query_params.get("limit"), "limit", 100, 1000)
        found = await self.platform.ledger.applied(limit, before)
        rows = [RevisionRow(**one._asdict()) for one in found]
        return RevisionList(revisions=rows, next=rows[-1].number if len(rows) == limit else 0)

    async def authority(self, _: Caller, __: Request, ___: None) -> AuthorityAnswer:
        """Give the trust domain's roots and issuing certificates. They are public."""
        authority = self.platform.authority
        return AuthorityAnswer(
            trust_domain=authority.trust_domain.name, bundle=authority.bundle_pem, issuers=authority.chain_pem
        )

    async def status(self, _: Caller, __: Request, ___: None) -> StatusAnswer:
        """Give the platform at a glance."""
        platform, now = self.platform, self.platform.clock.now()
        counts = await platform.ledger.counts(now)
        current, world = platform.slices.current.value, platform.slices.world
        agents, staples = await agent_rows(platform), await platform.ledger.staples()
        return StatusAnswer(
            version=__version__,
            trust_domain=platform.trust_domain.name,
            revision=platform.slices.revision,
            digest=current.digest if current else "",
            authority=authorities(platform),
            certificates=counts.by_state,
            next_expiry=counts.soonest_expiry,
            next_name=counts.soonest_name,
            hosts=[_host(host, [one for one in staples if one.host == host.name]) for host in world.hosts.values()],
            agents=agents,
            partners=partner_rows(world, platform.slices.faults(now)),
        )


def authorities(platform: Platform) -> list[dict[str, Any]]:
    """Give root and issuing authority with their ends."""
    named = (("root", platform.authority.root_der), ("issuing", platform.authority.issuing_der))
    read = [(name, facts(der)) for name, der in named]
    return [{"name": n, "subject": f.subject, "not_after": f.window.not_after} for n, f in read]


def _bad_list(authority: ForeignAuthority, held: tuple[bytes, ...], now: datetime) -> str:
    """Say what is wrong with a revocation list that stands in the world itself, or nothing. One that is ``held`` may have ended."""
    for der in _lists_in(authority):
        judged = judge_crl(der, authority.cas, now)
        if isinstance(judged, Refusal) and not (judged.reason is Reason.REVOCATION_CRL_EXPIRED and der in held):
            return str(Refused(judged))
    return ""


def _lists_in(authority: ForeignAuthority | None) -> tuple[bytes, ...]:
    revocation = authority.revocation if authority else None
    return crl_ders(revocation.pem.encode()) if revocation and revocation.pem else ()


def _seen(counted: TrafficCount) -> Traffic:
    """Give a count as what-if takes it. The route's own path stands for the paths below it, which are not kept."""
    return Traffic(counted.host, counted.route, counted.identity, counted.method, counted.count)


def _host(host: Host, staples: Sequence[StapleEnd]) -> dict[str, Any]:
    return {
        "name": host.name,
        "listen": str(host.listen),
        "certificate": host.clients.certificate.value,
        "routes": len(host.routes),
        "staples": [{"agent": one.agent, "next_update": one.ends} for one in staples],
    }
