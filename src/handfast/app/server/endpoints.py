"""What turns plain functions into HTTP endpoints: bounded bodies in, JSON and problem documents out, OpenAPI on the side.

Decides how an answer looks on the wire, and which endpoint a request is for: one look into a table, where its path is fixed.
What is answered is decided in the endpoints themselves.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from handfast import __version__
from handfast.app.server.callers import Caller, Role
from handfast.app.server.messages import ENCODER, Message, Nothing, Problem
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable
from handfast.io.status import http_status

MAX_BODY = 4 * 1024 * 1024
_PROBLEM = "application/problem+json"


Admit = Callable[[MutableMapping[str, Any]], Caller]
Handler = Callable[[Caller, Request, Any], Awaitable[Message | Response]]
"""An endpoint's function: it gets who calls, the request, and the body that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation: who may call it, what it takes and gives. ``body`` ``str`` means text as it is (the world file)."""

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role]
    body: type[Message | str] | None = None
    answer: type[Message] | None = None
    status: int = 200
    query: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The handler's first line."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


class Application:
    """The ASGI application: the endpoints, the document that describes them, and ``more`` routes. ``admit`` tells who calls, or refuses.

    What is no endpoint's method and fixed path is Starlette's to find: paths with a name in them, ``HEAD``, and what is not served.
    """

    def __init__(self, endpoints: Sequence[Endpoint], admit: Admit, more: Sequence[Route] = ()) -> None:
        """Make the table."""
        described = cache(lambda: ENCODER.encode(openapi(endpoints)))

        async def serve_document(_: Request) -> Response:
            return Response(described(), media_type="application/json")

        served = [(endpoint, _serve(endpoint, admit)) for endpoint in endpoints]
        routes = [Route(endpoint.path, serve, methods=[endpoint.method]) for endpoint, serve in served]
        self._table = {(one.method, one.path): serve for one, serve in served if "{" not in one.path}
        self._others = Starlette(
            routes=[*routes, Route("/v1/openapi.json", serve_document, methods=["GET"]), *more],
            exception_handlers={HTTPException: unserved},
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """All that is served."""
        return self._others.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        serve = self._table.get((scope["method"], scope["path"]))
        try:
            answer = await serve(Request(scope, receive)) if serve else self._others
            await answer(scope, receive, send)
        except ClientDisconnect:
            return  # amid its own request: nobody is left to answer


def _serve(endpoint: Endpoint, admit: Admit) -> Callable[[Request], Awaitable[Response]]:
    read = reader(endpoint.body)

    async def serve(request: Request) -> Response:
        try:
            caller = admit(request.scope)
            if caller.role not in endpoint.roles:
                raise Refused(Refusal(_why_not(caller), {"caller": str(caller)}))
            answer = await endpoint.handler(caller, request, read(await bounded_body(request)))
            if endpoint.method == "GET":
                admit(request.scope)  # who waited for an answer may have been revoked meanwhile
        except HandfastError as error:
            return problem(error)
        if isinstance(answer, Response):
            return answer
        return Response(ENCODER.encode(answer), endpoint.status, media_type="application/json")

    return serve


def _why_not(caller: Caller) -> Reason:
    return Reason.CALLER_UNKNOWN if caller.role is Role.NOBODY else Reason.CALLER_NOT_ALLOWED


async def bounded_body(request: Request, most: int = MAX_BODY) -> bytes:
    """Read a request's body.

    Raises:
        BadInput: it is longer than ``most`` bytes.
    """
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise BadInput(f"the body is longer than {most} bytes")
    return bytes(body)


def reader(body: type[Message | str] | None) -> Callable[[bytes], Any]:
    """Give what reads a body of this type; of no type, nothing is read.

    It raises `BadInput`, which names the place.
    """
    if body is None:
        return lambda _: None
    if body is str:
        return _read_text
    decoder = msgspec.json.Decoder(body)

    def read(raw: bytes) -> object:
        try:
            return decoder.decode(raw)
        except msgspec.MsgspecError as error:
            message, _, key = str(error).partition(" - at ")
            raise BadInput(message, key=key.strip("`").removeprefix("$.")) from error
        except (RecursionError, UnicodeDecodeError) as error:
            raise BadInput("this is not JSON that can be read") from error

    return read


def _read_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput("the body is not UTF-8") from error


def problem(error: HandfastError) -> Response:
    """Answer with the problem document of an error."""
    said = document(error)
    return Response(ENCODER.encode(said), said.status, media_type=_PROBLEM)


def document(error: HandfastError) -> Problem:
    """Give the problem document of an error."""
    code = error.refusal.reason.value if isinstance(error, Refused) else _CODES[type(error)]
    return Problem(
        type=f"urn:handfast:{code}",
        title=error.message,
        status=http_status(error),
        code=code,
        detail=str(error),
        hint=error.hint,
    )


async def unserved(_: Request, error: Exception) -> Response:
    """Answer what no endpoint serves: an unknown path, or a method that it does not have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = Reason.NOT_FOUND.value if status == 404 else "bad-input"
    said = Problem(
        type=f"urn:handfast:{code}",
        title="nothing is served here",
        status=status,
        code=code,
        detail="there is no such path, or not with this method",
        hint="see /v1/openapi.json",
    )
    return Response(ENCODER.encode(said), status, media_type=_PROBLEM)


_CODES: dict[type[HandfastError], str] = {BadInput: "bad-input", Unavailable: "unavailable"}


def openapi(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Describe the endpoints as OpenAPI 3.1."""
    types = sorted({t for e in endpoints for t in (_struct(e.body), e.answer, Problem) if t}, key=lambda t: t.__name__)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    references = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Handfast",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _struct(body: type[Message | str] | None) -> type[Message] | None:
    return body if body is not None and issubclass(body, Message) else None


def _operation(endpoint: Endpoint, references: dict[type[Message], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": getattr(endpoint.handler, "__name__", endpoint.path),
        "summary": endpoint.summary,
        "description": "For: " + ", ".join(sorted(role.value for role in endpoint.roles)),
        "parameters": _parameters(endpoint),
        "responses": {
            str(endpoint.status): _content(endpoint.answer or Nothing, references, "application/json"),
            "default": {**_content(Problem, references, _PROBLEM), "description": "a problem document"},
        },
    }
    if struct := _struct(endpoint.body):
        operation["requestBody"] = {"required": True, **_content(struct, references, "application/json")}
    elif endpoint.body is str:
        text = {"application/yaml": {"schema": {"type": "string", "description": "a world file"}}}
        operation["requestBody"] = {"required": True, "content": text}
    return operation


def _content(struct: type[Message], references: dict[type[Message], dict[str, Any]], media: str) -> dict[str, Any]:
    described = {"description": (struct.__doc__ or "").partition("\n")[0]}
    return {**described, "content": {media: {"schema": references[struct]}}} if struct in references else described


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    path = [{"name": n, "in": "path", "required": True} for n in re.findall(r"{(\w+)}", endpoint.path)]
    query = [{"name": n, "in": "query", "required": False} for n in endpoint.query]
    return [{**parameter, "schema": {"type": "string"}} for parameter in (*path, *query)]
