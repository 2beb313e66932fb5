"""Endpoints for a gateway's own certificates: one for each host that it serves, and the OCSP responses that it staples.

Decides which certificate a host of the world gets, and whose status an agent is told: that of its own gateway's certificates alone.
Refuses to know what a response says (`handfast.io.responder`): the agent judges it.

No address is needed for that, so gateways staple wherever they run: with a status listener, without one, and behind a firewall.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import structlog
from starlette.requests import Request

from handfast.access.policy import Host
from handfast.app.server.callers import AGENTS, Caller
from handfast.app.server.certificates import issue, require_agent
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.joining import CERTIFICATE_TTL
from handfast.app.server.messages import (
    GATEWAY_NAME,
    CertificateAnswer,
    HostCertificateAnswer,
    HostCertificateRequest,
    StapleAnswer,
)
from handfast.app.server.platform import Platform
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refusal, Refused
from handfast.base.spiffe import SpiffeId
from handfast.io.records import CertificateRecord
from handfast.trust.ocsp import question
from handfast.trust.profile import LEAF, MUST_STAPLE

_log = structlog.get_logger("handfast")
_SERIAL = re.compile(r"[0-9a-f]{2,40}")


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """What a gateway serves its hosts with."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="POST", path="/v1/agents/self/certificates", handler=self.host_certificate, roles=AGENTS,
                body=HostCertificateRequest, answer=HostCertificateAnswer, status=201,
            ),
            Endpoint(
                method="GET", path="/v1/agents/self/staples/{serial}", handler=self.staple, roles=AGENTS, answer=StapleAnswer
            ),
        )  # fmt: skip

    async def host_certificate(self, caller: Caller, _: Request, body: HostCertificateRequest) -> HostCertificateAnswer:
        """Issue the server certificate of a host of the world to a gateway, with the first OCSP response to staple."""
        await require_agent(self.platform, caller)
        host = self.platform.slices.world.hosts.get(body.host)
        if host is None:
            raise Refused(Refusal(Reason.ISSUANCE_NAME_NOT_ALLOWED, {"host": body.host}))
        if host.must_staple:
            await self.platform.responders.current().ensure()  # or there would be one that nobody can use
        issued = await self._issued(caller, host, body.csr)
        return HostCertificateAnswer(**msgspec.structs.asdict(issued), staple=await self._first(issued.serial))

    async def _issued(self, caller: Caller, host: Host, csr: str) -> CertificateAnswer:
        profile = MUST_STAPLE if host.must_staple else LEAF
        identity = self._gateway(caller)
        return await issue(self.platform, caller, identity, csr, dns=(host.name,), ttl=CERTIFICATE_TTL, own=profile)

    async def _first(self, serial: str) -> bytes:
        """Give the first response, or nothing: the agent asks again, and insists where it has to."""
        try:
            record = await self.platform.ledger.by_serial(serial)
            return await self._response(record) if record else b""
        except HandfastError as error:
            _log.warning("staple.unanswered", serial=serial, error=str(error))
            return b""

    async def staple(self, caller: Caller, request: Request, _: None) -> StapleAnswer:
        """Give the OCSP response of a certificate of this agent's gateway."""
        await require_agent(self.platform, caller)
        serial = request.path_params["serial"]
        record = await self.platform.ledger.by_serial(serial) if _SERIAL.fullmatch(serial) else None
        if record is None or record.identity != str(self._gateway(caller)):
            raise Refused(Refusal(Reason.NOT_FOUND, {"serial": ascii(serial[:64])}))
        return StapleAnswer(response=await self._response(record))

    async def _response(self, record: CertificateRecord) -> bytes:
        responder = self.platform.responders.by_issuer(record.issuer)
        if responder is None:
            raise Refused(Refusal(Reason.REVOKED_ISSUER, {"serial": record.serial, "issuer": record.issuer}))
        asked = question(responder.authority.issuer_facts, record.serial)
        return (await responder.answer(asked)).body

    def _gateway(self, caller: Caller) -> SpiffeId:
        return self.platform.trust_domain.id(f"{GATEWAY_NAME}{caller.name}")
