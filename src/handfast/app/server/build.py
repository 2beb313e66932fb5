"""The server, put together: authority, ledger, API, metrics, and the certificate that it serves with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from handfast.app.keeping import Kept
from handfast.app.server.agents import Agents, agent_rows
from handfast.app.server.callers import Caller, Role, caller_of
from handfast.app.server.certificates import Certificates, issue
from handfast.app.server.endpoints import Endpoint, routes, unserved
from handfast.app.server.handshakes import refused
from handfast.app.server.happenings import Happenings
from handfast.app.server.journal import Journal
from handfast.app.server.messages import CertificateAnswer
from handfast.app.server.metrics import Metrics
from handfast.app.server.platform import Platform
from handfast.app.server.slices import Slices
from handfast.app.server.worlds import Worlds, authorities
from handfast.base.events import CertificateRevoked, Event
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority, create_authority, open_authority
from handfast.io.ids import new_event_id
from handfast.io.issuance import Issuance
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock
from handfast.io.sealed import Passphrase
from handfast.io.sqlite import SqliteDatabase
from handfast.sdk.contexts import server_context
from handfast.sdk.front import Front
from handfast.sdk.handshake import FailedHandshake, ServerContext
from handfast.trust.revocation import RevocationReason

_log = structlog.get_logger("handfast")

SERVER_NAME = "handfast/server"
SERVER_TTL = timedelta(days=7)
KEEP_EVENTS = timedelta(days=90)
INTERRUPTED_AFTER = timedelta(minutes=5)
AGAIN_S = 5.0
_PRUNE_EVERY_S = 3600.0
_MOST_PRUNED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What a server is started with. ``directory`` holds all its state; ``api`` and ``admin`` are address and port."""

    directory: Path
    trust_domain: TrustDomain
    api: tuple[str, int]
    admin: tuple[str, int]
    names: tuple[str, ...] = ("localhost",)
    passphrase: Passphrase | None = None


class Server:
    """One control plane. `build_server` makes it; start it, stop it."""

    def __init__(self, config: ServerConfig, platform: Platform, database: SqliteDatabase) -> None:
        """Put the faces in front of the platform; nothing listens yet."""
        self.config, self.platform, self._database = config, platform, database
        self.api_address, self.admin_address = config.api, config.admin
        kept = Kept(config.directory / "server.pem", platform.clock, self._ask)
        self._kept, self._context = kept, ServerContext()
        app = Starlette(routes=routes(endpoints(platform), self._admit), exception_handlers={HTTPException: unserved})
        self._front = Front(app, on_failed_handshake=self._handshake_failed)
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
        await self._renew()
        self.api_address = await self._front.listen_tls(*self.config.api, lambda: self._context)
        await self._front.listen_unix(self.socket)
        self.admin_address = await self._admin_front.listen_plain(*self.config.admin)
        for work in (self.platform.slices.keep_fresh, self.platform.journal.follow, self._keep, self._prune):
            self._tasks.add(asyncio.create_task(self._insist(work)))

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
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
        self.platform.ledger.event_head.close()
        await self._front.stop(grace_s)
        await self._admin_front.stop(grace_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.platform.journal.catch_up()
        await self._database.close()

    async def _settle_interrupted(self) -> None:
        """Revoke what was about to be signed when something died: perhaps it was signed, and nobody has it by right."""
        now, ledger = self.platform.clock.now(), self.platform.ledger
        interrupted = await ledger.interrupted(now - INTERRUPTED_AFTER)
        events = [
            CertificateRevoked(
                id=new_event_id(),
                at=now,
                serial=record.serial,
                fingerprint=record.fingerprint,
                identity=record.identity,
                crl_reason=RevocationReason.UNSPECIFIED.value,
                requester="server: its issuance was interrupted",
            )
            for record in interrupted
        ]
        await ledger.revoke([r.serial for r in interrupted], now, RevocationReason.UNSPECIFIED.value, events)

    def _admit(self, scope: Mapping[str, Any]) -> Caller:
        """Tell who calls, by what counts at this moment: a connection may be older than a revocation."""
        return caller_of(scope, self.platform.trust_domain, self.platform.slices.denied, self.platform.clock.now())

    # The certificate that the API is served with

    async def _ask(self, csr: str) -> CertificateAnswer:
        identity = self.platform.trust_domain.id(SERVER_NAME)
        itself = Caller(Role.NOBODY, "server")
        return await issue(self.platform, itself, identity, csr, dns=self.config.names, ttl=SERVER_TTL, reserved=True)

    async def _renew(self) -> None:
        held = await self._kept.ensure()
        self._context = server_context(
            held.chain_pem.encode(), held.key_pem.encode(), held.bundle_pem.encode(), certificate="optional"
        )

    async def _keep(self) -> None:
        while True:
            await self.platform.clock.sleep(self._kept.next_look())
            await self._renew()

    async def _prune(self) -> None:
        """Forget events, tokens and counts that are older than the ledger keeps them."""
        while True:
            before = self.platform.clock.now() - KEEP_EVENTS
            for _ in range(_MOST_PRUNED):
                if not await self.platform.ledger.prune_events(before):
                    break
            await self.platform.ledger.prune_join_tokens(before)
            await self.platform.ledger.prune_traffic(before)
            await self.platform.clock.sleep(_PRUNE_EVERY_S)

    def _handshake_failed(self, failed: FailedHandshake) -> None:
        authority = self.platform.authority
        event = refused(failed, (authority.root_der, authority.issuing_der), self.platform.clock.now())
        task = asyncio.create_task(self._record(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _record(self, event: Event) -> None:
        await self.platform.ledger.append([event])

    # Metrics

    def _admin_routes(self) -> list[Route]:
        async def metrics(_: Request) -> Response:
            return Response(await self._measure(), media_type="text/plain; version=0.0.4; charset=utf-8")

        async def ready(_: Request) -> Response:
            return PlainTextResponse("ready\n")

        return [Route("/metrics", metrics), Route("/ready", ready)]

    async def _measure(self) -> bytes:
        platform, now = self.platform, self.platform.clock.now()
        counts = await platform.ledger.counts(now)
        platform.metrics.set_certificates(counts.by_state, counts.soonest_expiry)
        for authority in authorities(platform):
            platform.metrics.set_authority(authority["name"], authority["not_after"])
        for agent in await agent_rows(platform):
            age = (now - agent.last_seen).total_seconds()
            platform.metrics.set_agent(agent.name, age, current=agent.current)
        return b"".join([platform.metrics.text(), *[await more() for more in self.more_metrics]])


def endpoints(platform: Platform) -> Sequence[Endpoint]:
    """Give all operations of the API."""
    parts = (Worlds(platform), Certificates(platform), Agents(platform), Happenings(platform))
    return [endpoint for part in parts for endpoint in part.endpoints()]


async def build_server(config: ServerConfig, clock: Clock) -> Server:
    """Make a server over its directory: the authority is made at the first start, and opened at each later one.

    Raises:
        BadInput: something in the directory cannot be used.
    """
    authority = _authority(config, clock)
    database = await SqliteDatabase.open(config.directory / "ledger.sqlite")
    ledger, metrics = await SqlLedger.open(database), Metrics()
    slices = Slices(authority, ledger, clock)
    platform = Platform(
        authority=authority,
        issuance=Issuance(authority, ledger, clock),
        ledger=ledger,
        clock=clock,
        journal=Journal(ledger, metrics),
        metrics=metrics,
        slices=slices,
    )
    return Server(config, platform, database)


def _authority(config: ServerConfig, clock: Clock) -> Authority:
    directory = config.directory / "authority"
    if not directory.exists():
        return create_authority(directory, config.trust_domain, clock, config.passphrase)
    return open_authority(directory, config.trust_domain, config.passphrase)
