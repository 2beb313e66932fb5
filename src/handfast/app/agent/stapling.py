"""The OCSP responses that this gateway staples: one for each of its hosts' certificates, got in time and kept on disk.

Decides when the next one is asked for, and which may still be handed out. Refuses to know who makes them, and what Envoy does with
them. The law of this file: nothing is handed out that `judge_staple` did not find good for that very certificate, whether it came
from the server or from the disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from handfast.app.client import Api
from handfast.app.server.messages import HostCertificateAnswer, HostCertificateRequest, StapleAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refusal, Refused, Unavailable
from handfast.io.files import read, write
from handfast.io.ports import Clock
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.foreign_ocsp import MAX_ANSWER_BYTES
from handfast.trust.staple import LONGEST_RETRY, SHORTEST_RETRY, Staple, judge_staple, must_staple

_log = structlog.get_logger("handfast.agent")
ASK_S = 5.0
"""A world waits for the first response of a new host no longer than this."""


@dataclass(frozen=True, slots=True)
class HostSource:
    """Where a gateway's certificates come from, by host and CSR (PEM), and their OCSP responses (DER), by serial (hex)."""

    certificate: Callable[[str, str], Awaitable[HostCertificateAnswer]]
    staple: Callable[[str], Awaitable[bytes]]


def host_source(api: Api) -> HostSource:
    """Ask the server."""

    async def certificate(host: str, csr: str) -> HostCertificateAnswer:
        request = HostCertificateRequest(host=host, csr=csr)
        return await api.call("POST", "/v1/agents/self/certificates", HostCertificateAnswer, request)

    async def staple(serial: str) -> bytes:
        return (await api.call("GET", f"/v1/agents/self/staples/{serial}", StapleAnswer)).response

    return HostSource(certificate, staple)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What is to be known of a host's certificate (DER) over and over; ``issuer`` is the one behind it in its chain."""

    der: bytes
    issuer: bytes
    serial: str
    fingerprint: str
    must_staple: bool


@lru_cache(maxsize=1024)
def leaf_of(chain_pem: str) -> Leaf:
    """Read a host's chain, once. In a chain of one certificate that is taken for the issuer: no response is good for it then.

    Raises:
        BadInput: it cannot be read.
    """
    ders = pem_certificates(chain_pem)
    seen = facts(ders[0])
    return Leaf(ders[0], (ders * 2)[1], seen.serial, seen.fingerprint, must_staple(ders[0]))


@dataclass(slots=True)
class _Host:
    """What is known of one host. ``serial`` is its certificate's, ``again`` when the server may be asked again."""

    serial: str = ""
    held: Staple | None = None
    offered: Staple | None = None
    again: datetime | None = None
    fault: str = ""

    def of(self, serial: str) -> Staple | None:
        """Give the response for a certificate: the one in service, or the next one."""
        return next((one for one in (self.offered, self.held) if one and one.serial == serial), None)

    def rests(self, now: datetime, jitter: float) -> bool:
        """Tell whether nobody needs to be asked yet. What is of the future, as the clock was set back, is nothing to wait for."""
        if self.held and self.held.window.not_before <= now < self.held.renew_at(jitter):
            return True
        return self.again is not None and now < self.again <= now + LONGEST_RETRY


class Staples:
    """The responses of all hosts. ``file`` names where one is kept, ``ask`` gives the newest (DER) for a serial."""

    def __init__(self, file: Callable[[str], Path], clock: Clock, ask: Callable[[str], Awaitable[bytes]]) -> None:
        """Begin with none; each is looked for on disk when it is first needed."""
        self._file, self._clock, self._ask = file, clock, ask
        self._jitter = random.uniform(-1, 1)  # noqa: S311 - spreads what many ask for, keeps no secret
        self._hosts: dict[str, _Host] = {}

    def of(self, name: str, leaf: Leaf) -> bytes:
        """Give what is to be stapled to a host's certificate; nothing where there is none that counts.

        One that the certificate demands is given past its end, too: Envoy then refuses the clients that ask for it and serves the
        others, while without one it would take no configuration at all.
        """
        found = self._of(name).of(leaf.serial)
        return found.der if found and (leaf.must_staple or found.counts(self._clock.now())) else b""

    def fault(self, name: str, leaf: Leaf) -> Refusal | None:
        """Say why there is no newer response for a host's certificate, or nothing."""
        host, now = self._of(name), self._clock.now()
        if not host.fault:
            return None
        ended = leaf.must_staple and host.held is not None and not host.held.counts(now)
        reason = Reason.STAPLE_ENDED if ended else Reason.STAPLE_FAILED
        return Refusal(reason, {"host": name, "error": host.fault})

    def offered(self, name: str, leaf: Leaf, response: bytes) -> None:
        """Take the response that came with a new certificate. The one of the certificate in service stays beside it.

        Raises:
            Refused: it is not good, and the certificate demands one: it must not be put in service.
        """
        judged = judge_staple(response, leaf.der, leaf.issuer, self._clock.now())
        if isinstance(judged, Staple):
            self._of(name).offered = judged
        elif leaf.must_staple:
            raise Refused(judged)

    async def ensure(self, name: str, leaf: Leaf) -> None:
        """Have a response for a host's certificate, or the next one where that is due. `fault` says why there is none."""
        host, now = self._of(name), self._clock.now()
        if host.serial != leaf.serial:
            self._adopt(name, leaf)
        if host.rests(now, self._jitter):
            return
        host.again = host.held.retry_at(now) if host.held else now + SHORTEST_RETRY  # before anybody else asks
        said = await self._asked(leaf)
        if host.serial != leaf.serial:
            return  # another certificate came meanwhile
        if isinstance(said, Staple):
            self._keep(name, said)
            return
        host.fault = str(said)
        if isinstance(said, Refused) and said.refusal.reason is Reason.REVOKED:
            host.held = None

    async def _asked(self, leaf: Leaf) -> Staple | HandfastError:
        """Ask the server. That it refuses the agent itself says nothing of the certificate."""
        try:
            async with asyncio.timeout(ASK_S):
                response = await self._ask(leaf.serial)
        except TimeoutError:
            return Unavailable("the server did not answer in time")
        except HandfastError as error:
            return Unavailable(str(error))
        judged = judge_staple(response, leaf.der, leaf.issuer, self._clock.now())
        return Refused(judged) if isinstance(judged, Refusal) else judged

    def _adopt(self, name: str, leaf: Leaf) -> None:
        """Begin with what came with the certificate, or with what is on disk."""
        host, offered = self._of(name), self._of(name).of(leaf.serial)
        host.serial, host.held, host.offered, host.again = leaf.serial, None, None, None
        if offered:
            self._keep(name, offered)
            return
        recalled = judge_staple(_read(self._file(name)), leaf.der, leaf.issuer, self._clock.now())
        host.held = None if isinstance(recalled, Refusal) else recalled

    def _keep(self, name: str, staple: Staple) -> None:
        host = self._of(name)
        host.held, host.again, host.fault = staple, None, ""
        try:
            write(self._file(name), staple.der, 0o600)
        except HandfastError as error:  # it is stapled all the same; only a restart would miss it
            _log.warning(Reason.STAPLE_FAILED.value, host=name, error=str(error))

    def _of(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host())

    def forget_others(self, names: Container[str]) -> None:
        """Forget the hosts that are not served any more."""
        self._hosts = {name: host for name, host in self._hosts.items() if name in names}

    @property
    def ends(self) -> dict[str, datetime]:
        """When the response of each host ends that has one."""
        return {name: host.held.window.not_after for name, host in self._hosts.items() if host.held}

    def metrics(self) -> bytes:
        """Give when each response ends, in Prometheus' text format."""
        registry = CollectorRegistry()
        ends = Gauge(
            "handfast_staple_next_update_seconds",
            "Unix time at which the OCSP response that a host staples ends",
            ["host"],
            registry=registry,
        )
        for name, end in self.ends.items():
            ends.labels(name).set(end.timestamp())
        return generate_latest(registry)


def _read(path: Path) -> bytes:
    try:
        return read(path, MAX_ANSWER_BYTES)
    except HandfastError:  # damaged or not there: the next one is asked for
        return b""
