"""The agent, put together: its own certificate, the watch on the world, the gateway, the reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.applications import Starlette

from handfast.access.slice import Slice, parse_slice
from handfast.app.agent.findings import Findings
from handfast.app.agent.gateway import GatewayKeeper
from handfast.app.agent.partner_hosts import PartnerHosts
from handfast.app.agent.paths import AgentPaths
from handfast.app.agent.reporting import InService, Known, Reporter
from handfast.app.agent.session import Sessions
from handfast.app.agent.standings import GatewayStandings
from handfast.app.agent.stapling import host_source
from handfast.app.client import Api
from handfast.app.keeping import Kept
from handfast.app.server.messages import (
    GATEWAY_NAME,
    AgentReport,
    CertificateAnswer,
    JoinRequest,
    Nothing,
    RenewRequest,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refused, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.envoy.bootstrap import bootstrap
from handfast.io import off_loop
from handfast.io.ads import AdsServer
from handfast.io.credentials import Credential
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.io.envoy_process import EnvoyProcess, Exit
from handfast.io.files import private_directory, write
from handfast.io.ports import Clock
from handfast.io.standing_files import StandingFiles
from handfast.sdk.contexts import RotatingSSLContext, anonymous_context, client_context
from handfast.sdk.front import Front
from handfast.trust.facts import pem_certificates
from handfast.trust.renewal import Counting, counting
from handfast.trust.rotation import PACE, Pace

_log = structlog.get_logger("handfast.agent")
WATCH_S = 50
RETRY_S = 0.5
_GONE = {
    Reason.REVOKED: Reason.AGENT_REVOKED,
    Reason.AGENT_REVOKED: Reason.AGENT_REVOKED,
    Reason.AGENT_FORGOTTEN: Reason.AGENT_FORGOTTEN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What an agent is started with.

    ``bundle_pem`` are the roots by which it knows the server. ``token`` is asked for a join token whenever the agent has no
    certificate that counts: at its first start, and when its host slept for longer than a certificate lives. After the first
    time it has to be one that was made for ``name``.
    ``envoy`` is a path, or None for the one that comes with the package. ``concurrency`` is Envoy's number of workers.
    """

    name: str
    directory: Path
    server_url: str
    bundle_pem: str
    trust_domain: TrustDomain
    token: Callable[[], Awaitable[str]]
    envoy: Path | None = None
    concurrency: int = 2
    drain_s: float = 2.0
    pace: Pace = PACE


class Agent:
    """One agent. Start it, wait for `ready`, stop it."""

    def __init__(self, config: AgentConfig, clock: Clock) -> None:
        """Put the parts together; nothing runs yet."""
        self.config, self._clock = config, clock
        self.paths = paths = AgentPaths(config.directory)
        for directory in (paths.root, paths.envoy, paths.host("x").parent, paths.run):
            private_directory(directory)
        self._identity = Kept(paths.identity, clock, self._ask_for_identity, config.pace)
        self._context = RotatingSSLContext(anonymous_context(config.bundle_pem.encode()))
        self._api = Api.remote(config.server_url, self._context)
        self._slice: Slice | None = None
        self._partner_hosts = PartnerHosts(paths.partner_hosts)
        self._known = Known(partners_at=self._partner_hosts.names)
        self._used: Credential | None = None
        self._admin = EnvoyAdmin(paths.socket("admin"))
        by = config.trust_domain.id(f"{GATEWAY_NAME}{config.name}")
        self._sessions = Sessions(paths.session_key, str(by), config.trust_domain, clock)
        self._findings = Findings(config.name, clock)
        self._reporter = Reporter(
            name=config.name,
            clock=clock,
            send=self._send,
            admin=self._admin,
            log=paths.access_log,
            known=self._known,
            findings=self._findings,
        )
        self._ads = AdsServer()
        self._gateway = GatewayKeeper(
            paths=paths, ads=self._ads, clock=clock, source=host_source(self._api), by=str(by), jwks=self._sessions.jwks,
            findings=self._findings,
        )  # fmt: skip
        self._gateway.pace = config.pace
        self._ads.on_rejected(self._gateway.rejected)
        self._standings = GatewayStandings(self._api, clock, StandingFiles(paths.standings, clock))
        asked = Starlette(routes=[*self._sessions.app().routes, *self._standings.app().routes])
        self._front = Front(asked, on_failed_handshake=lambda _: None)
        self._envoy = EnvoyProcess(
            config.envoy,
            bootstrap(node=config.name, ads_socket=str(paths.socket("ads"))),
            paths.run,
            concurrency=config.concurrency,
            on_exit=self._envoy_died,
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def acknowledged(self) -> str:
        """The digest of the slice that Envoy took whole last."""
        return self._gateway.state.acknowledged.value

    async def start(self) -> None:
        """Get the certificate, the slice and Envoy going.

        Raises:
            HandfastError: there is no certificate and none is to be had, or Envoy cannot be started.
        """
        await self._ensure_identity()
        await self._ads.start(self.paths.socket("ads"))
        await self._front.listen_unix(self.paths.socket("session"))
        await self._recall()
        await self._envoy.start()
        for work in (self._watch(), self._keep_identity(), self._gateway.keep_certificates(), self._reporter.follow_log(),
                     self._reporter.count(self._in_force), self._tell_at_once()):  # fmt: skip
            self._tasks.append(asyncio.create_task(work))

    async def ready(self, digest: str, timeout_s: float) -> bool:
        """Wait until Envoy serves the slice ``digest``."""
        acknowledged = self._gateway.state.acknowledged
        try:
            async with asyncio.timeout(timeout_s):
                while acknowledged.value != digest:
                    await acknowledged.wait_for_change(acknowledged.value, None)
        except TimeoutError:
            return False
        return True

    async def envoy_metrics(self) -> bytes:
        """Give what Envoy counts and what it staples, in Prometheus' text format; the former only while Envoy answers."""
        try:
            return self._gateway.metrics() + await self._admin.prometheus()
        except Unavailable:
            return self._gateway.metrics()

    async def failed(self) -> None:
        """Wait for as long as all parts run; a part that ends has failed, and its fault is raised here."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Drain and stop Envoy, then everything else."""
        await self._envoy.stop(self.config.drain_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._front.stop(0.5)
        await self._standings.close()
        await self._ads.stop()
        self._reporter.close()
        await self._api.close()

    def _envoy_died(self, how: Exit) -> None:
        self._findings.find(how.refusal.reason, dict(how.refusal.evidence))

    # The agent's own certificate

    async def _ask_for_identity(self, csr: str) -> CertificateAnswer:
        held = self._identity.current.value
        if held and held.window.contains(self._clock.now()):
            return await self._api.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=csr))
        await self._drop()
        request = JoinRequest(token=await self.config.token(), name=self.config.name, csr=csr)
        return await self._api.call("POST", "/v1/agents/join", CertificateAnswer, request)

    async def _ensure_identity(self) -> None:
        """Have a certificate that counts, and use it from the next connection on."""
        await self._use(self._identity.current.value)
        await self._use(await self._identity.ensure())
        if self._identity.fault:
            self._findings.find(Reason.RENEWAL_FAILED, {"agent": self.config.name, "error": self._identity.fault})

    async def _use(self, credential: Credential | None) -> None:
        if credential is None or credential == self._used:
            return
        bundle = credential.bundle_pem.encode()
        self._context.rotate(client_context(credential.chain_pem.encode(), credential.key_pem.encode(), bundle))
        self._used = credential
        await self._api.reconnect()

    async def _drop(self) -> None:
        """Use no certificate: the server would refuse an expired one in the handshake, before it could see a token."""
        if self._used:
            roots = "".join(self._slice.roots) if self._slice else self.config.bundle_pem
            self._context.rotate(anonymous_context(roots.encode()))
            self._used = None
            await self._api.reconnect()

    async def _keep_identity(self) -> None:
        while True:
            await self._identity.wait()
            try:
                await self._ensure_identity()
            except HandfastError as error:
                self._find(Reason.RENEWAL_FAILED, error, {"agent": self.config.name})

    def _find(self, reason: Reason, error: HandfastError, seen: dict[str, str]) -> None:
        """Raise a finding for what the server said; that it let this agent go is one of its own, as nothing else helps then."""
        if isinstance(error, Refused) and (gone := _GONE.get(error.refusal.reason)):
            self._findings.find(gone, {"agent": self.config.name, "file": str(self.paths.identity)})
        self._findings.find(reason, {**seen, "error": str(error)})

    # The world

    async def _recall(self) -> None:
        """Begin with the slice that Envoy served last, so that the gateway runs with the server away."""
        if self.paths.slice.exists():
            try:
                raw = self.paths.slice.read_bytes()
                await self._take(await off_loop.run(parse_slice, raw, long=len(raw) > off_loop.LONG_BYTES))
            except HandfastError as error:
                self._findings.find(Reason.SNAPSHOT_BAD, {"file": self.paths.slice.name, "error": str(error)})

    async def _watch(self) -> None:
        """Follow the server's slice with blocking queries, for ever."""
        known = self._slice.digest if self._slice else ""
        while True:
            try:
                known = await self._look(known)
            except Unavailable as error:
                self._findings.find(Reason.SNAPSHOT_STALE, {"error": str(error)})
                await self._clock.sleep(RETRY_S)
            except HandfastError as error:
                self._find(Reason.SNAPSHOT_BAD, error, {})
                await self._clock.sleep(RETRY_S)

    async def _look(self, known: str) -> str:
        headers = {"if-none-match": f'"{known}"'} if known else {}
        response = await self._api.send(
            "GET", "/v1/agents/self/world", query={"wait": str(WATCH_S)}, headers=headers, timeout_s=WATCH_S + 10
        )
        self._findings.resolve(Reason.SNAPSHOT_STALE)
        if response.status_code != 200:
            return known
        raw, long = response.content, len(response.content) > off_loop.LONG_BYTES
        slice_ = await off_loop.run(parse_slice, raw, self._slice, long=long)
        await self._take(slice_)
        # A disk may take long, and Envoy is told by this loop.
        await asyncio.to_thread(write, self.paths.slice, raw, 0o600)
        return slice_.digest

    async def _take(self, slice_: Slice) -> None:
        self._slice = slice_
        self._learn(slice_)
        self._standings.told(slice_.world.authorities)
        if slice_.issuers:
            what_counts = _counting(slice_)
            self._identity.told(what_counts)
            self._gateway.told(what_counts)
        await self._gateway.take(slice_)

    def _learn(self, slice_: Slice) -> None:
        """Keep what explains a chain, and at which hosts a name in a certificate is no identity of ours."""
        partners = [ca.der for one in slice_.world.authorities.values() for ca in one.cas]
        self._known.cas = [*(der for pem in slice_.issuers for der in pem_certificates(pem)), *partners]
        self._partner_hosts.add(name for name, host in slice_.world.hosts.items() if host.clients.partners)
        self._known.partners_at = self._partner_hosts.names

    # Reports

    async def _send(self, report: AgentReport) -> None:
        await self._api.call("POST", "/v1/agents/self/report", Nothing, report)

    def _in_force(self) -> InService:
        return self.acknowledged, self._gateway.state.serving, self._gateway.staples

    async def _tell_at_once(self) -> None:
        """Report each slice as soon as Envoy has it, so that an operator who waits need not wait long."""
        async for digest in self._gateway.state.acknowledged.subscribe():
            if digest:
                await self._reporter.tell(digest)


def _counting(slice_: Slice) -> Counting:
    """Tell which CA issues by now, and which roots are delivered: the first of the slice's issuers is the one that issues."""
    return counting(
        pem_certificates(slice_.issuers[0])[0], [der for pem in slice_.roots for der in pem_certificates(pem)]
    )


def build_agent(config: AgentConfig, clock: Clock) -> Agent:
    """Make an agent."""
    return Agent(config, clock)
