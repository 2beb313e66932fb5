"""HTTP for what is known of certificates: revocation lists, OCSP, and the issuers' certificates.

Decides paths, headers and which failure an OCSP client is told (RFC 6960 appendix A, RFC 5019 section 6). Refuses to know what is
revoked, when lists are made and who signs: `handfast.io.lists` and `handfast.io.responder` do.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import BinaryIO

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from handfast.base.refusal import BadInput, HandfastError
from handfast.base.windows import whole_second
from handfast.io.answers import Answer
from handfast.io.ca_responder import CaResponder
from handfast.io.lists import Published
from handfast.io.ports import Clock
from handfast.io.responder import Responder
from handfast.sdk.front import App
from handfast.trust.facts import fingerprint
from handfast.trust.ocsp import MAX_REQUEST_BYTES, OcspError, OcspRequest, failure, parse_request

_log = structlog.get_logger("handfast")

FIXED_LIFE = timedelta(days=1)
"""How long a client may keep what seldom changes before it asks again."""
_CHUNK = 64 * 1024
_TRIES = 3
_LONGEST_PATH = MAX_REQUEST_BYTES * 4 // 3 + 4
_CRL, _CERTIFICATE, _OCSP = "application/pkix-crl", "application/pkix-cert", "application/ocsp-response"
_NOT_KEPT = {"cache-control": "no-store"}
_POSTED = [(b"content-type", _OCSP.encode()), (b"cache-control", b"no-store")]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Octets that seldom change: an issuer's certificate, or the list of a root."""

    body: bytes
    media_type: str
    made_at: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Where what is served comes from, asked at each request. ``count`` is told what became of each OCSP request."""

    fixed: Callable[[str], Fixed | None]
    listed: Callable[[str], Published | None]
    responder: Callable[[OcspRequest], Responder | CaResponder | None]
    count: Callable[[str], None]
    clock: Clock


@dataclass(frozen=True, slots=True)
class Pages:
    """What is served at which path."""

    sources: Sources

    def app(self) -> App:
        """Give the ASGI application. What clients ask by the thousand does not pass through a router."""
        others = Starlette(
            routes=[
                Route("/ocsp/{asked:path}", self.get_ocsp, methods=["GET"]),
                Route("/{rest:path}", self.get_file, methods=["GET"]),
            ]
        )

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST" and scope["path"] in {"/ocsp", "/ocsp/"}:
                await self.post_ocsp(receive, send)
            else:
                await others(scope, receive, send)

        return served

    # Files

    async def get_file(self, request: Request) -> Response:
        """Give a list or a certificate; nothing, where the client has it already."""
        path: str = request.scope["path"]
        if fixed := self.sources.fixed(path):
            now = self.sources.clock.now()
            headers = _kept(fixed.made_at, now + FIXED_LIFE, fixed.etag, now)
            known = _has(request, fixed.etag, fixed.made_at)
            return Response(b"", 304, headers) if known else Response(fixed.body, 200, headers, fixed.media_type)
        for _ in range(_TRIES):
            if (found := self.sources.listed(path)) is None:
                break
            try:
                return self._list(request, found)
            except FileNotFoundError:
                continue  # a newer one took its place this moment
        return PlainTextResponse("nothing is served here\n", 404)

    def _list(self, request: Request, found: Published) -> Response:
        headers = _kept(found.made_at, found.window.not_after, found.etag, self.sources.clock.now())
        if _has(request, found.etag, found.made_at):
            return Response(b"", 304, headers)
        headers = {**headers, "content-length": str(found.size)}
        if request.method == "HEAD":
            return Response(b"", 200, headers, _CRL)
        return StreamingResponse(_chunks(found.file.open("rb")), 200, headers, _CRL)

    # OCSP

    async def get_ocsp(self, request: Request) -> Response:
        """Answer a request that stands in the path, in base64 (RFC 6960 appendix A.1)."""
        asked: str = request.path_params["asked"]
        body, answer = await self._answer(_from_path(asked))
        if answer is None or not answer.kept:
            return Response(body, 200, _NOT_KEPT, _OCSP)
        headers = _kept(answer.produced_at, answer.window.not_after, answer.etag, self.sources.clock.now())
        if _has(request, answer.etag, answer.produced_at):
            return Response(b"", 304, headers)
        return Response(body, 200, headers, _OCSP)

    async def post_ocsp(self, receive: Receive, send: Send) -> None:
        """Answer a request that is the body."""
        data, more = b"", True
        while more and len(data) <= MAX_REQUEST_BYTES:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            data, more = data + message.get("body", b""), message.get("more_body", False)
        body, _ = await self._answer(data)
        headers = [*_POSTED, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, data: bytes | None) -> tuple[bytes, Answer | None]:
        """Give an OCSPResponse, whatever was asked and whatever is broken here."""
        try:
            asked = parse_request(data or b"")
        except BadInput:
            return self._failed(OcspError.MALFORMED_REQUEST)
        try:
            responder = self.sources.responder(asked)
            if responder is None:
                return self._failed(OcspError.UNAUTHORIZED)
            answer = await responder.answer(asked)
        except HandfastError as error:
            _log.warning("ocsp.unanswered", error=str(error))
            return self._failed(OcspError.TRY_LATER)
        except Exception as error:  # noqa: BLE001 - a client can read no other answer than this
            _log.error("ocsp.failed", error=str(error) or type(error).__name__)
            return self._failed(OcspError.INTERNAL_ERROR)
        for said in answer.said:
            self.sources.count(said)
        return answer.body, answer

    def _failed(self, error: OcspError) -> tuple[bytes, None]:
        self.sources.count(error.name.lower().replace("_", "-"))
        return failure(error), None


def fixed_list(body: bytes, made_at: datetime) -> Fixed:
    """Give a list that is seldom made."""
    return Fixed(body, _CRL, made_at, f'"{fingerprint(body)}"')


def fixed_certificate(body: bytes, made_at: datetime) -> Fixed:
    """Give an issuer's certificate."""
    return Fixed(body, _CERTIFICATE, made_at, f'"{fingerprint(body)}"')


def _from_path(text: str) -> bytes | None:
    """Read base64 from a path whose percent signs are resolved already; None where it is none."""
    if len(text) > _LONGEST_PATH:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _kept(made_at: datetime, until: datetime, etag: str, now: datetime) -> dict[str, str]:
    """Give the headers with which a cache keeps what ends by itself (RFC 5019 section 6.2)."""
    left = max(0, int((until - now) / timedelta(seconds=1)))
    return {
        "last-modified": _http_date(made_at),
        "expires": _http_date(until),
        "etag": etag,
        "cache-control": f"max-age={left}, public, no-transform, must-revalidate",
    }


def _has(request: Request, etag: str, made_at: datetime) -> bool:
    """Tell whether the client has just this (RFC 9110 section 13.1): by its tag, and only without one by its time."""
    headers: Mapping[str, str] = request.headers
    if tags := headers.get("if-none-match"):
        return tags.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    try:
        since = parsedate_to_datetime(headers.get("if-modified-since", ""))
        return whole_second(made_at) <= since.replace(tzinfo=since.tzinfo or UTC)
    except (ValueError, OverflowError):
        return False


def _http_date(moment: datetime) -> str:
    return format_datetime(whole_second(moment), usegmt=True)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """Give a file in parts; the next one is read when the client has taken the one before."""
    with file:
        while part := file.read(_CHUNK):
            yield part
