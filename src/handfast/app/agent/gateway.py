"""The gateway on this host: certificates for the hosts it serves, Envoy's configuration, and which slice Envoy has taken.

A bad new slice never replaces a good old one: what cannot be translated, and what Envoy rejects, becomes a finding.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import structlog

from handfast.access.policy import Host
from handfast.access.slice import Slice
from handfast.app.agent.findings import Findings
from handfast.app.agent.in_force import InForce
from handfast.app.agent.paths import AgentPaths
from handfast.app.keeping import Ask, Kept
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError
from handfast.envoy.translate import Gateway, KeyPair, translate
from handfast.io.ads import AdsServer
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.io.ports import Clock
from handfast.io.topic import Topic
from handfast.io.xds_state import Rejected
from handfast.trust.renewal import Counting

_log = structlog.get_logger("handfast.agent")
ACKNOWLEDGE_S = 30.0

AskForHost = Callable[[str], Ask]


@dataclass(slots=True)
class GatewayState:
    """What the gateway serves: the slice it was told, and the digest of the last that Envoy took whole."""

    slice: Slice | None = None
    acknowledged: Topic[str] = field(default_factory=lambda: Topic(""))


class GatewayKeeper:
    """Keeps Envoy in step with the slice and with the certificates of its hosts."""

    def __init__(
        self,
        *,
        paths: AgentPaths,
        ads: AdsServer,
        clock: Clock,
        ask: AskForHost,
        by: str,
        jwks: str,
        findings: Findings,
    ) -> None:
        """Know where to publish, whom to ask for certificates, and where findings go."""
        self.state = GatewayState()
        self._paths, self._ads, self._clock, self._ask = paths, ads, clock, ask
        self._by, self._jwks, self._findings = by, jwks, findings
        self._in_force = InForce(EnvoyAdmin(paths.socket("admin")), clock)
        self._program = files("handfast.envoy").joinpath("access.lua").read_text()
        self._kept: dict[str, Kept] = {}
        self._counting: Counting | None = None
        self._settling: asyncio.Task[None] | None = None

    def told(self, counting: Counting) -> None:
        """Learn which authority counts now: certificates of another one are renewed early."""
        self._counting = counting
        for kept in self._kept.values():
            kept.told(counting)

    async def take(self, slice_: Slice) -> None:
        """Serve a slice: get the certificates that it needs, translate it, publish it."""
        await self._ensure_certificates(slice_)
        before, self.state.slice = self.state.slice, slice_
        self._publish(slice_, retired=_gone(before, slice_))

    async def keep_certificates(self) -> None:
        """Renew host certificates as they come due, forever; each renewal is published at once."""
        while True:
            waits = [kept.next_look() for kept in self._kept.values()]
            await self._clock.sleep(min([*waits, 5.0]))
            if self.state.slice and await self._ensure_certificates(self.state.slice):
                self._publish(self.state.slice)

    async def _ensure_certificates(self, slice_: Slice) -> bool:
        """Get what is missing or due; tell whether anything is new."""
        before = self._pairs(slice_)
        self._kept = {name: kept for name, kept in self._kept.items() if name in slice_.world.hosts}
        for name in slice_.world.hosts:
            kept = self._kept.get(name) or self._begin(name)
            try:
                await kept.ensure()
                fault = kept.fault
            except HandfastError as error:
                fault = str(error)
            if fault:
                self._findings.find(Reason.RENEWAL_FAILED, {"host": name, "error": fault})
        return self._pairs(slice_) != before

    def _begin(self, name: str) -> Kept:
        kept = self._kept[name] = Kept(self._paths.host(name), self._clock, self._ask(name))
        if self._counting:
            kept.told(self._counting)
        return kept

    def _pairs(self, slice_: Slice) -> dict[str, KeyPair]:
        held = {name: kept.current.value for name, kept in self._kept.items() if name in slice_.world.hosts}
        return {name: KeyPair(c.chain_pem, c.key_pem) for name, c in held.items() if c}

    def _publish(self, slice_: Slice, retired: tuple[Host, ...] = ()) -> None:
        gateway = Gateway(
            program=self._program,
            by=self._by,
            certificates=self._pairs(slice_),
            jwks=self._jwks,
            upstream_roots="".join(slice_.roots) + _system_roots(),
            agent_socket=str(self._paths.socket("session")),
            access_log=str(self._paths.access_log),
        )
        try:
            digest = self._ads.publish(translate(slice_, gateway, retired=retired))
        except (HandfastError, ValueError) as error:
            self._findings.find(Reason.SNAPSHOT_BAD, {"slice": slice_.digest, "error": str(error)})
            return
        if self._settling:
            self._settling.cancel()
        self._settling = asyncio.create_task(self._settle(slice_, digest))

    async def _settle(self, slice_: Slice, digest: str) -> None:
        """Wait for Envoy's word on what was published."""
        while not await self._ads.wait_acknowledged(digest, ACKNOWLEDGE_S):
            _log.warning("envoy.slow", slice=slice_.digest)
        await self._in_force.wait()
        self._findings.resolve(Reason.ENVOY_REJECTED, Reason.SNAPSHOT_BAD)
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


def _gone(before: Slice | None, now: Slice) -> tuple[Host, ...]:
    """Give the hosts of the slice before: Envoy may still match their routes while the new ones are on their way."""
    return tuple(before.world.hosts.values()) if before and before.digest != now.digest else ()


def _system_roots() -> str:
    """Give the machine's own CA bundle, for https upstreams with public certificates; nothing where there is none."""
    path = ssl.get_default_verify_paths().cafile
    return Path(path).read_text() if path and Path(path).exists() else ""
