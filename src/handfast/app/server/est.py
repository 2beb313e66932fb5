"""Enrollment over Secure Transport (RFC 7030, with the clarifications of RFC 8951): how devices get certificates.

Decides who a device is (a token over HTTP Basic for its first certificate, that certificate for the next ones) and how requests
and answers look on the wire. What may be issued is decided where it always is: by the workload's entry, `plan` and `lint`.

Server keys (section 4.4) and Full CMC (4.3) are optional, and not offered: no key leaves its host, and nobody here speaks CMC.
The API speaks TLS 1.3, which has no ``tls-unique``, so the proof of possession is not linked to the connection (3.5).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handfast.app.server.callers import Caller, Role
from handfast.app.server.certificates import issue, require_recorded
from handfast.app.server.endpoints import Admit, bounded_body, problem
from handfast.app.server.enrolment import entry_of
from handfast.app.server.platform import Platform
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, require
from handfast.io.ledger.enrolment import token_id
from handfast.trust.csr import MAX_CSR_BYTES
from handfast.trust.enrolment import CSR_ATTRIBUTES, certs_only, names_asked
from handfast.trust.entries import RESERVED, Workload
from handfast.trust.facts import pem, pem_certificates

BASE = "/.well-known/est"
MAX_BODY = 2 * MAX_CSR_BYTES
_CERTIFICATES = "application/pkcs7-mime; smime-type=certs-only"
_CHALLENGE = 'Basic realm="EST", charset="UTF-8"'
_LINE = 64


class Device(NamedTuple):
    """Who enrols: its entry, how the records name it, and the token that has to be used for it, if it came with one."""

    entry: Workload
    caller: Caller
    token: str = ""


class Est:
    """The four operations, for the one trust domain that this server issues for."""

    def __init__(self, platform: Platform, admit: Admit) -> None:
        """Serve from ``platform``; ``admit`` tells who calls, or refuses."""
        self._platform, self._admit = platform, admit

    def routes(self) -> list[Route]:
        """Give the routes, without a label and with the trust domain as label (RFC 7030 section 3.2.2)."""
        operations = (
            ("GET", "cacerts", self._cacerts),
            ("GET", "csrattrs", self._csrattrs),
            ("POST", "simpleenroll", self._simpleenroll),
            ("POST", "simplereenroll", self._simplereenroll),
        )
        return [
            Route(f"{base}/{name}", self._serve(work), methods=[method])
            for base in (BASE, f"{BASE}/{{label}}")
            for method, name, work in operations
        ]

    def _serve(
        self, work: Callable[[Caller, Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            try:
                self._check_label(request.path_params)
                return await work(self._admit(request.scope), request)
            except HandfastError as error:
                refused = problem(error)
                if refused.status_code == 401:
                    refused.headers["www-authenticate"] = _CHALLENGE  # RFC 9110 section 15.5.2
                return refused

        return serve

    def _check_label(self, parameters: Mapping[str, Any]) -> None:
        label = parameters.get("label")
        if label is not None and label != self._platform.trust_domain.name:
            raise Refused(Refusal(Reason.NOT_FOUND, {"label": ascii(label[:80])}))

    async def _cacerts(self, _: Caller, __: Request) -> Response:
        """Give the roots and what stands between them and the leaves (section 4.1.3). Anyone may have them."""
        authority = self._platform.authority
        return _certificates(*pem_certificates(authority.bundle_pem), *pem_certificates(authority.chain_pem))

    async def _csrattrs(self, _: Caller, __: Request) -> Response:
        """Give the attributes that a CSR should have (section 4.5)."""
        return _body(CSR_ATTRIBUTES, "application/csrattrs")

    async def _simpleenroll(self, _: Caller, request: Request) -> Response:
        """Issue a first certificate, for a token (section 4.2.1)."""
        return await self._enrol(await self._by_token(request), request)

    async def _simplereenroll(self, caller: Caller, request: Request) -> Response:
        """Issue the next certificate, to the holder of one (section 4.2.2). The name stays, the key may be another."""
        return await self._enrol(await self._by_certificate(caller), request)

    async def _enrol(self, device: Device, request: Request) -> Response:
        csr = await _csr(request)
        dns = require(names_asked(csr, device.entry))
        # A token is taken before the proof of possession is checked, which is what costs, and so at most once a use.
        if device.token and not await self._platform.ledger.use_enrolment_token(
            device.token, self._platform.clock.now()
        ):
            raise Refused(Refusal(Reason.TOKEN_NOT_VALID))
        answer = await issue(
            self._platform, device.caller, device.entry.identity, pem(csr, "CERTIFICATE REQUEST"), dns=dns
        )
        if held := device.caller.certificate:
            await require_recorded(self._platform, held)  # as the API does: it may have been revoked meanwhile
            await self._platform.rotation.renewed(held.serial, held.window.not_after, answer.serial)
        return _certificates(pem_certificates(answer.chain)[0])

    async def _by_token(self, request: Request) -> Device:
        """Know a device by user name and token (section 3.2.3). The user name is the workload's."""
        user, token = _basic(request.headers.get("authorization", ""))
        name = await self._platform.ledger.enrolment_name(token, self._platform.clock.now())
        if name is None or not hmac.compare_digest(name.encode(), user.encode()):
            raise Refused(Refusal(Reason.TOKEN_NOT_VALID))
        return Device(entry_of(self._platform, name), Caller(Role.NOBODY, f"est:{token_id(token)}"), token)

    async def _by_certificate(self, caller: Caller) -> Device:
        """Know a device by its certificate, which must stand in the ledger as issued."""
        held = caller.certificate
        if held is None:
            raise Refused(Refusal(Reason.CALLER_UNKNOWN, {"caller": str(caller)}))
        if caller.role is not Role.WORKLOAD or caller.name.startswith(RESERVED):
            raise Refused(Refusal(Reason.ENTRY_RESERVED, {"caller": str(caller)}))
        await require_recorded(self._platform, held)
        return Device(entry_of(self._platform, caller.name), caller)


def _basic(header: str) -> tuple[str, str]:
    """Read user name and token of an Authorization field (RFC 7617 section 2).

    Raises:
        Refused: there are none.
    """
    scheme, _, encoded = header.partition(" ")
    try:
        user, colon, token = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        colon = ""
    if scheme.lower() != "basic" or not colon:
        raise Refused(Refusal(Reason.CALLER_UNKNOWN, {"authorization": "a user name and a token are needed"}))
    return user, token


async def _csr(request: Request) -> bytes:
    """Read a body of base64 as DER, line ends or not (RFC 8951 section 3.1); Content-Transfer-Encoding says nothing.

    Raises:
        BadInput: it is of another type, too long, or not base64.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/pkcs10":
        raise BadInput(
            "the body is of another type", key="content-type", hint="send application/pkcs10 (RFC 7030 section 4.2.1)"
        )
    raw = await bounded_body(request, MAX_BODY)
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise BadInput(
            "the body is not base64", hint="send the DER of a PKCS#10 request in base64, without PEM's lines"
        ) from error


def _certificates(*certificates: bytes) -> Response:
    return _body(certs_only(certificates), _CERTIFICATES)


def _body(content: bytes, media: str) -> Response:
    """Answer in base64. Its lines are short, as OpenSSL reads no long ones; the old header is for older clients."""
    encoded = base64.b64encode(content)
    lines = b"".join(encoded[at : at + _LINE] + b"\n" for at in range(0, len(encoded), _LINE))
    return Response(lines, headers={"content-type": media, "content-transfer-encoding": "base64"})
