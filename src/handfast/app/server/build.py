"""The server, put together: authority, ledger, API, metrics, and the certificate that it serves with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handfast.app.keeping import Kept
from handfast.app.server.acme.operating import AcmeOperating
from handfast.app.server.acme.service import AcmeServer
from handfast.app.server.acme.tools import acme_tools
from handfast.app.server.agents import Agents, agent_rows
from handfast.app.server.allowances import Allowances
from handfast.app.server.audit import Audit, keep_sealed
from handfast.app.server.batches import Batches
from handfast.app.server.belonging import check_belonging, claim
from handfast.app.server.callers import Caller, Role, caller_of
from handfast.app.server.certificates import Certificates, issue
from handfast.app.server.discovery import Discovery
from handfast.app.server.endpoints import Application, Endpoint
from handfast.app.server.enrolment import Enrolment
from handfast.app.server.est import Est
from handfast.app.server.handshakes import FailedHandshakes
from handfast.app.server.happenings import Happenings
from handfast.app.server.host_certificates import HostCertificates
from handfast.app.server.inventory import Inventory
from handfast.app.server.joining import Joining
from handfast.app.server.journal import Journal
from handfast.app.server.messages import CertificateAnswer
from handfast.app.server.metrics import Metrics
from handfast.app.server.partners import DIRECTORY as PARTNERS
from handfast.app.server.partners import PartnerSlices
from handfast.app.server.platform import Platform
from handfast.app.server.readiness import Readiness
from handfast.app.server.revocations import Revocations, revoked_event
from handfast.app.server.rotation import Rotation
from handfast.app.server.rotation_api import RotationApi
from handfast.app.server.slices import Work
from handfast.app.server.standing_api import StandingApi
from handfast.app.server.standings import ANSWERS, PartnerStandings
from handfast.app.server.status import NO_STATUS, Status, StatusConfig, settle
from handfast.app.server.worlds import Worlds, authorities
from handfast.base.refusal import Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import audit
from handfast.io.acme_challenges import DEFAULT_LOOKS, LookSettings
from handfast.io.authorities import create_authority
from handfast.io.authority_files import AUTHORITY
from handfast.io.ca_certificates import Wanted
from handfast.io.database import Database
from handfast.io.databases import LEDGER, open_database
from handfast.io.files import explained
from handfast.io.foreign_answers import ForeignAnswers
from handfast.io.foreign_responder import ForeignResponders
from handfast.io.generations import Generations
from handfast.io.issuance import Issuance
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.lists import SharedLists
from handfast.io.ledger.rotation import Rotations
from handfast.io.ledger.status import StatusTable
from handfast.io.ports import Clock
from handfast.io.postgres_session import Address
from handfast.io.responders import Responders
from handfast.io.sealed import Passphrase
from handfast.io.sharing import join, open_sharing
from handfast.sdk.contexts import server_context
from handfast.sdk.front import Front
from handfast.sdk.handshake import ServerContext
from handfast.trust.profile import LEAF
from handfast.trust.revocation import RevocationReason
from handfast.trust.rotation import PACE, Pace

_log = structlog.get_logger("handfast")

SERVER_NAME = "handfast/server"
STATUS = "status"
SERVER_TTL = timedelta(days=7)
KEEP_EVENTS = timedelta(days=90)
INTERRUPTED_AFTER = timedelta(minutes=5)
AGAIN_S = 5.0
_PRUNE_EVERY_S = 3600.0
_SEEN = "handfast.seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a server is started with. ``api`` and ``admin`` are address and port.

    ``directory`` holds all its state, but for the ledger where ``database`` names another place than a file in it.
    """

    directory: Path
    trust_domain: TrustDomain
    api: tuple[str, int]
    admin: tuple[str, int]
    names: tuple[str, ...] = ("localhost",)
    passphrase: Passphrase | None = None
    acme: LookSettings = DEFAULT_LOOKS
    database: Address | None = None
    status: StatusConfig = NO_STATUS
    pace: Pace = PACE


class Server:
    """One control plane. `build_server` makes it; start it, stop it."""

    def __init__(self, config: ServerConfig, platform: Platform, database: Database) -> None:
        """Put the faces in front of the platform; nothing listens yet."""
        self.config, self.platform, self._database = config, platform, database
        self.api_address, self.admin_address = config.api, config.admin
        kept = Kept(config.directory / "server.pem", platform.clock, self._ask, config.pace)
        self._kept, self._context = kept, ServerContext()
        self._acme = AcmeServer(platform, config.names)
        standards = [*Est(platform, self._admit).routes(), *self._acme.routes()]
        app = Application(endpoints(platform), self._admit, standards)
        self._handshakes = FailedHandshakes(platform.ledger, platform.clock, lambda: platform.authorities.known_cas)
        self._front = Front(app, on_failed_handshake=self._handshakes.failed)
        self.status = Status(platform, config.status, database, config.directory / STATUS)
        self._admin_front = Front(Starlette(routes=self._admin_routes()), on_failed_handshake=lambda _: None)
        self._tasks: set[asyncio.Task[None]] = set()
        self.more_metrics: list[Callable[[], Awaitable[bytes]]] = []

    @property
    def socket(self) -> Path:
        """The Unix socket for operators on this machine."""
        return self.config.directory / "server.sock"

    @property
    def url(self) -> str:
        """Where agents and operators reach the API."""
        return f"https://localhost:{self.api_address[1]}"

    async def start(self) -> None:
        """Listen.

        Raises:
            HandfastError: an address is taken, or there is no certificate to serve with.
        """
        await self._settle_interrupted()
        await self.platform.slices.refresh()
        await self.platform.rotation.go_on()  # an authority that has ended meanwhile could not certify this server
        await self._renew()
        self.api_address = await self._front.listen_tls(*self.config.api, lambda: self._context)
        await self._front.listen_unix(self.socket)
        self.admin_address = await self._admin_front.listen_plain(*self.config.admin)
        await self.status.start()
        self.more_metrics.append(self.platform.rotation.metrics)
        follow = (self.platform.rotation.follow, self._follow_rotation, self.status.keep, self._seal, self._discover)
        tidy = (self._prune, self._settle)
        for work in (*self.platform.slices.works(), self.platform.journal.follow, self._keep, *tidy, *follow):
            self._tasks.add(asyncio.create_task(self._insist(work)))

    async def _insist(self, work: Work) -> None:
        """Run what never ends. Where it does, something broke it that may pass: tell, and begin again in a while."""
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it was, revocations and renewals must go on
                _log.error("server.interrupted", work=work.__qualname__, error=str(error) or type(error).__name__)
            await self.platform.clock.sleep(AGAIN_S)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Finish what is being answered, then close."""
        self.platform.slices.current.close()
        self.platform.rotation.settled.close()
        self.platform.rotation.lists.seen.close()
        self.platform.ledger.event_head.close()
        await self._front.stop(grace_s)
        await self._acme.close()
        await self.platform.standings.close()
        await self._admin_front.stop(grace_s)
        await self.status.stop(grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._handshakes.close()
            await self.platform.allowances.tell(self.platform.ledger, self.platform.clock.now(), last=True)
            await self.platform.journal.catch_up()
            await audit.seal_all(self.platform.ledger, self.platform.clock.now())
        except Unavailable as error:  # a database elsewhere may be away, and a server has to end all the same
            _log.warning("server.interrupted", work="stop", error=str(error))
        finally:
            await self._database.close()

    async def _settle_interrupted(self) -> None:
        """Revoke what was about to be signed when something died: perhaps it was signed, and nobody has it by right."""
        now, ledger = self.platform.clock.now(), self.platform.ledger
        while interrupted := await ledger.interrupted(now - INTERRUPTED_AFTER):
            events = [
                revoked_event(record, RevocationReason.UNSPECIFIED, "server: its issuance was interrupted", now)
                for record in interrupted
            ]
            await ledger.revoke([r.serial for r in interrupted], now, RevocationReason.UNSPECIFIED.value, events)

    def _admit(self, scope: MutableMapping[str, Any]) -> Caller:
        """Tell who calls, by what counts at this moment: a connection may be older than a revocation."""
        caller = caller_of(scope, self.platform.trust_domain, self.platform.slices.denied, self.platform.clock.now())
        admitted = self.platform.rotation.admit(caller)
        # Who waited long for an answer is looked at again at its end, and is not seen to use its certificate then.
        if admitted.certificate and not scope.get(_SEEN):
            scope[_SEEN] = True
            self.platform.rotation.used(admitted.certificate.serial)
        return admitted

    # The certificate that the API is served with

    async def _ask(self, csr: str) -> CertificateAnswer:
        identity = self.platform.trust_domain.id(SERVER_NAME)
        itself, held, names = Caller(Role.NOBODY, "server"), self._kept.current.value, self.config.names
        made = await issue(self.platform, itself, identity, csr, dns=names, ttl=SERVER_TTL, own=LEAF)
        if held:
            await self.platform.rotation.renewed(held.leaf.serial, held.window.not_after, made.serial)
        return made

    async def _renew(self) -> None:
        held = await self._kept.ensure()
        # Clients are verified with the roots of this moment, which may be newer than the certificate.
        roots = self.platform.authority.bundle_pem.encode()
        self._context = server_context(held.chain_pem.encode(), held.key_pem.encode(), roots, certificate="optional")
        self.platform.rotation.used(held.leaf.serial)
        await self.platform.rotation.kept(held.leaf.serial)

    async def _keep(self) -> None:
        while True:
            await self._kept.wait()
            await self._renew()

    async def _follow_rotation(self) -> None:
        async for _ in self.platform.rotation.settled.subscribe():
            self._kept.told(self.platform.authorities.counting)
            await self._renew()

    async def _settle(self) -> None:
        """Look after what others left: a server over the same ledger that died, or this one, killed and back within minutes."""
        while True:
            await self.platform.clock.sleep(INTERRUPTED_AFTER.total_seconds())
            await self._settle_interrupted()

    async def _discover(self) -> None:
        await Discovery(self.platform).follow()

    async def _seal(self) -> None:
        await keep_sealed(self.platform)

    async def _prune(self) -> None:
        """Forget events, tokens and counts that are older than the ledger keeps them."""
        while True:
            before = self.platform.clock.now() - KEEP_EVENTS
            await audit.prune(self.platform.ledger, self.platform.authority, before, self.platform.clock.now())
            await self.platform.ledger.forget_discovered(before)
            await self.platform.ledger.prune_join_tokens(before)
            await self.platform.ledger.prune_enrolment_tokens(before)
            await self.platform.ledger.prune_traffic(before)
            await self.platform.ledger.prune_acme(self.platform.clock.now(), before)
            await self.platform.clock.sleep(_PRUNE_EVERY_S)

    # Metrics

    def _admin_routes(self) -> list[Route]:
        async def metrics(_: Request) -> Response:
            return Response(await self._measure(), media_type="text/plain; version=0.0.4; charset=utf-8")

        readiness = Readiness(self._database, self.platform.authorities, self.platform.clock)
        return [Route("/metrics", metrics), *readiness.routes()]

    async def _measure(self) -> bytes:
        platform, now = self.platform, self.platform.clock.now()
        counts = await platform.ledger.counts(now)
        platform.metrics.set_certificates(counts.by_state, counts.soonest_expiry)
        agents = await agent_rows(platform)
        platform.metrics.forget()
        for authority in authorities(platform):
            platform.metrics.set_authority(authority["name"], authority["not_after"])
        for agent in agents:
            age = (now - agent.last_seen).total_seconds()
            platform.metrics.set_agent(agent.name, age, current=agent.current)
        return b"".join([platform.metrics.text(), *[await more() for more in self.more_metrics]])


def endpoints(platform: Platform) -> Sequence[Endpoint]:
    """Give all operations of the API."""
    parts = (Worlds(platform), Certificates(platform), Agents(platform), Joining(platform), Enrolment(platform))
    more = (Revocations(platform), Inventory(platform), Audit(platform), AcmeOperating(platform), RotationApi(platform))
    last = (Happenings(platform), Batches(platform), StandingApi(platform), HostCertificates(platform))
    return [endpoint for part in (*parts, *more, *last) for endpoint in part.endpoints()]


async def build_server(config: ServerConfig, clock: Clock) -> Server:
    """Make a server over its directory: the authority is made at the first start, and opened at each later one.

    Raises:
        BadInput: something in the directory cannot be used.
    """
    with explained("made", config.directory):
        config.directory.mkdir(parents=True, exist_ok=True)
    database = await open_database(config.directory / LEDGER, config.database)
    try:
        return await _server(config, clock, database)
    except BaseException:
        await database.close()
        raise


async def _server(config: ServerConfig, clock: Clock, database: Database) -> Server:
    authorities = await _authorities(config, clock, database)
    ledger, metrics = await SqlLedger.open(database), Metrics()
    rotations = Rotations(database, ledger)
    sharing = await open_sharing(config.directory / AUTHORITY, config.passphrase, database)
    shared = SharedLists(database) if database.has_others else None
    slices = PartnerSlices(config.directory, authorities, ledger, rotations, clock, shared)
    rotation = Rotation(authorities, rotations, slices, ledger, clock, sharing, config.pace)
    await rotation.recall()
    if sharing:
        await sharing.offer(rotation.rows)
    await database.hear(rotation.heard)
    platform = Platform(
        authorities=authorities,
        rotation=rotation,
        issuance=Issuance(authorities, ledger, clock, status=await settle(config.status, authorities, database, clock)),
        ledger=ledger,
        clock=clock,
        journal=Journal(ledger, metrics),
        metrics=metrics,
        slices=slices,
        allowances=Allowances(),
        standings=PartnerStandings(
            slices, ledger, clock, ForeignResponders(), ForeignAnswers(config.directory / PARTNERS / ANSWERS)
        ),
        acme=acme_tools(config.acme, config.passphrase, ledger, clock),
        responders=Responders(
            authorities=authorities,
            ledger=ledger,
            table=StatusTable(database),
            clock=clock,
            directory=config.directory / STATUS,
            passphrase=config.passphrase,
            adopted=rotation.replaced,
        ),
    )
    return Server(config, platform, database)


async def _authorities(config: ServerConfig, clock: Clock, database: Database) -> Generations:
    directory = config.directory / AUTHORITY
    await join(directory, config.trust_domain, config.passphrase, database)
    await check_belonging(database, directory)
    made = not directory.exists()
    if made:
        create_authority(directory, config.trust_domain, clock, config.passphrase, Wanted(site=config.status.site))
    await claim(database, directory, made=made)
    return Generations(directory, config.trust_domain, config.passphrase, config.status.site)
