"""What Envoy asks the agent over its Unix socket: always about one certificate, at one host or of one authority.

Decides what is read of a question, and what is too much. Refuses to know the answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from handfast.base.refusal import BadInput
from handfast.trust.facts import pem_certificates

Answer = Callable[[str, bytes], Awaitable[Response]]
"""Answers a question about a leaf (DER) and what stands in the request's ``Host``."""


def asked_at(path: str, most: int, answer: Answer) -> Starlette:
    """Give the application that Envoy asks at ``path``, on a socket that is open to our own user alone.

    A question has ``most`` bytes: a certificate (PEM) with %-signs. What the answer cannot read of it, it raises as `BadInput`.
    """

    async def ask(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                return PlainTextResponse("too long", 413)
        try:
            leaf = pem_certificates(unquote(body.decode("ascii", "replace")))[0]
            return await answer(request.headers.get("host", ""), leaf)
        except BadInput as error:
            return PlainTextResponse(str(error), 400)

    return Starlette(routes=[Route(path, ask, methods=["POST"])])
