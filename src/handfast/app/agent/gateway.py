"""The gateway on this host: certificates for the hosts it serves, Envoy's configuration, and which slice Envoy has taken.

A bad new slice never replaces a good old one: what cannot be translated, and what Envoy rejects, becomes a finding.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import structlog

from handfast.access.policy import Host
from handfast.access.slice import Slice
from handfast.app.agent.findings import Findings
from handfast.app.agent.in_force import InForce
from handfast.app.agent.paths import AgentPaths
from handfast.app.agent.stapling import HostSource, Staples, leaf_of
from handfast.app.keeping import Ask, Kept
from handfast.app.server.messages import CertificateAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError
from handfast.envoy.translate import Gateway, KeyPair, translate
from handfast.io import off_loop
from handfast.io.ads import AdsServer
from handfast.io.credentials import Credential
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.io.ports import Clock
from handfast.io.topic import Topic
from handfast.io.xds_state import Rejected, Snapshot
from handfast.trust.renewal import Counting
from handfast.trust.rotation import PACE

_log = structlog.get_logger("handfast.agent")
ACKNOWLEDGE_S = 30.0
PROMPT_S = 0.25
"""So long a slice waits for certificates before what is at hand is published."""


@dataclass(slots=True)
class GatewayState:
    """What the gateway serves: the slice it was told, the digest of the last that Envoy took whole, and with which leaves (serials)."""

    slice: Slice | None = None
    acknowledged: Topic[str] = field(default_factory=lambda: Topic(""))
    serving: frozenset[str] = frozenset()


class GatewayKeeper:
    """Keeps Envoy in step with the slice and with the certificates of its hosts."""

    def __init__(
        self,
        *,
        paths: AgentPaths,
        ads: AdsServer,
        clock: Clock,
        source: HostSource,
        by: str,
        jwks: str,
        findings: Findings,
    ) -> None:
        """Know where to publish, whom to ask for certificates, and where findings go."""
        self.pace = PACE
        self.state = GatewayState()
        self._paths, self._ads, self._clock, self._source = paths, ads, clock, source
        self._by, self._jwks, self._findings = by, jwks, findings
        self._in_force = InForce(EnvoyAdmin(paths.socket("admin")), clock)
        self._program = files("handfast.envoy").joinpath("access.lua").read_text()
        self._kept: dict[str, Kept] = {}
        self._served: dict[str, KeyPair] = {}
        self._staples = Staples(paths.staple, clock, source.staple)
        self._counting: Counting | None = None
        self._settling: asyncio.Task[None] | None = None
        self._alone = asyncio.Lock()

    def told(self, counting: Counting) -> None:
        """Learn which authority counts now: certificates of another one are renewed early."""
        self._counting = counting
        for kept in self._kept.values():
            kept.told(counting)

    async def take(self, slice_: Slice) -> None:
        """Serve a slice: get the certificates that it needs, translate it, publish it.

        Where certificates take long it is published with those at hand first: whom it denies must not wait for an issuer.
        """
        before, retired = self.state.slice, _gone(self.state.slice, slice_)
        for name in slice_.world.hosts.keys() - self._kept:
            self._begin(name)
        ensuring = asyncio.create_task(self._ensure_certificates(slice_))
        try:
            done, _ = await asyncio.wait({ensuring}, timeout=PROMPT_S)
            if before and not done:
                self.state.slice = slice_  # a renewal meanwhile must not publish the one before again
                await self._publish(retired, whole=False)
            await ensuring
        finally:
            ensuring.cancel()
        self.state.slice = slice_
        self._kept = {name: kept for name, kept in self._kept.items() if name in slice_.world.hosts}
        await self._publish(retired)

    async def keep_certificates(self) -> None:
        """Renew host certificates as they come due, forever; each renewal is published at once."""
        while True:
            served = self.state.slice.world.hosts if self.state.slice else {}
            waits = [kept.next_look() for name, kept in self._kept.items() if name in served]
            await self._clock.sleep(min([*waits, self.pace.every_s]))
            if self.state.slice and await self._ensure_certificates(self.state.slice):
                await self._publish()

    async def _ensure_certificates(self, slice_: Slice) -> bool:
        """Get what is missing, due or spent; tell whether Envoy is to be told.

        Renewals go on while another slice is taken: what is kept of hosts that come or go is not theirs to begin or to forget.
        """
        for name, host in slice_.world.hosts.items():
            kept = self._kept.get(name)
            if kept is None:
                continue
            try:
                await kept.ensure(anew=_is_spent(kept.current.value, host, slice_))
                fault = kept.fault
            except HandfastError as error:
                fault = str(error)
            if fault:
                self._findings.find(Reason.RENEWAL_FAILED, {"host": name, "error": fault})
        await self._ensure_staples()
        return self._pairs(slice_) != self._served

    async def _ensure_staples(self) -> None:
        """Get the OCSP responses that are missing or due, and say which could not be had."""
        self._staples.forget_others(self._kept)
        leaves = {name: leaf_of(held.chain_pem) for name, kept in self._kept.items() if (held := kept.current.value)}
        await asyncio.gather(*(self._staples.ensure(name, leaf) for name, leaf in leaves.items()))
        faults = [fault for name, leaf in leaves.items() if (fault := self._staples.fault(name, leaf))]
        for fault in faults:
            self._findings.find(fault.reason, dict(fault.evidence))
        self._findings.resolve(*{Reason.STAPLE_FAILED, Reason.STAPLE_ENDED} - {fault.reason for fault in faults})

    @property
    def staples(self) -> dict[str, datetime]:
        """When the OCSP response of each host ends that has one."""
        return self._staples.ends

    def metrics(self) -> bytes:
        """Give the gateway's own gauges, in Prometheus' text format."""
        return self._staples.metrics()

    def _begin(self, name: str) -> None:
        kept = self._kept[name] = Kept(self._paths.host(name), self._clock, self._ask_for(name), self.pace)
        if self._counting:
            kept.told(self._counting)

    def _ask_for(self, name: str) -> Ask:
        async def ask(csr: str) -> CertificateAnswer:
            answer = await self._source.certificate(name, csr)
            self._staples.offered(name, leaf_of(answer.chain), answer.staple)
            return answer

        return ask

    def _pairs(self, slice_: Slice) -> dict[str, KeyPair]:
        held = {name: kept.current.value for name, kept in self._kept.items() if name in slice_.world.hosts}
        return {name: pair for name, c in held.items() if c and (pair := self._pair(name, c, slice_))}

    def _pair(self, name: str, held: Credential, slice_: Slice) -> KeyPair | None:
        """Give what Envoy is to have of a host; nothing where the certificate demands a staple, and there is none."""
        leaf = leaf_of(held.chain_pem)
        # A response from before a revocation says good for up to an hour.
        staple = b"" if slice_.denies(leaf.fingerprint) else self._staples.of(name, leaf)
        return None if leaf.must_staple and not staple else KeyPair(held.chain_pem, held.key_pem, staple)

    async def _publish(self, retired: tuple[Host, ...] = (), *, whole: bool = True) -> None:
        """Publish the slice. It counts as taken once Envoy has it ``whole``, with all certificates that are to be had."""
        # A long one takes its time, and none from before it must come after it.
        async with self._alone:
            if self.state.slice:
                await self._publish_now(self.state.slice, retired, whole=whole)

    async def _publish_now(self, slice_: Slice, retired: tuple[Host, ...], *, whole: bool) -> None:
        self._served = self._pairs(slice_)
        gateway = Gateway(
            program=self._program,
            by=self._by,
            certificates=self._served,
            jwks=self._jwks,
            upstream_roots="".join(slice_.roots) + _system_roots(),
            agent_socket=str(self._paths.socket("session")),
            access_log=str(self._paths.access_log),
        )
        try:
            prepared = await off_loop.run(self._prepared, slice_, gateway, retired, long=slice_.is_long)
            digest = self._ads.put(prepared)
        except (HandfastError, ValueError) as error:
            self._findings.find(Reason.SNAPSHOT_BAD, {"slice": slice_.digest, "error": str(error)})
            return
        if self._settling:
            self._settling.cancel()
        if not whole:
            return
        serving = frozenset(leaf_of(one.chain_pem).serial for one in self._served.values())
        self._settling = asyncio.create_task(self._settle(slice_, digest, serving))

    def _prepared(self, slice_: Slice, gateway: Gateway, retired: tuple[Host, ...]) -> Snapshot:
        return self._ads.prepare(translate(slice_, gateway, retired=retired))

    async def _settle(self, slice_: Slice, digest: str, serving: frozenset[str]) -> None:
        """Wait for Envoy's word on what was published."""
        while not await self._ads.wait_acknowledged(digest, ACKNOWLEDGE_S):
            _log.warning("envoy.slow", slice=slice_.digest)
        await self._in_force.wait()
        self._findings.resolve(Reason.ENVOY_REJECTED, Reason.SNAPSHOT_BAD)
        self.state.serving = serving
        self.state.acknowledged.publish(slice_.digest)
        _log.debug("envoy.current", slice=slice_.digest, revision=slice_.revision)

    def rejected(self, rejected: Rejected) -> None:
        """Turn Envoy's rejection into a finding, with Envoy's words."""
        self._findings.find(
            Reason.ENVOY_REJECTED,
            {
                "type": rejected.type_url.rpartition(".")[2],
                "resources": ", ".join(rejected.names),
                "envoy": rejected.message,
            },
        )


def _is_spent(held: Credential | None, host: Host, slice_: Slice) -> bool:
    """Tell whether a host needs another certificate at once: its own is revoked, or does not say what the world wants."""
    leaf = leaf_of(held.chain_pem) if held else None
    return leaf is not None and (slice_.denies(leaf.fingerprint) or leaf.must_staple != host.must_staple)


def _gone(before: Slice | None, now: Slice) -> tuple[Host, ...]:
    """Give the hosts of the slice before: Envoy may still match their routes while the new ones are on their way."""
    return tuple(before.world.hosts.values()) if before and before.digest != now.digest else ()


def _system_roots() -> str:
    """Give the machine's own CA bundle, for https upstreams with public certificates; nothing where there is none."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_text() if path and Path(path).exists() else ""
