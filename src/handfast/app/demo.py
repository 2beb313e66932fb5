"""The demo: a world file, and a small service that shows what a service behind the gateway sees."""

from __future__ import annotations

import html
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

HOST = "demo.localhost"
CLIENT = "demo-client"
TRUST_DOMAIN = "demo.localhost"
PORT = 8642
SHOWN = ("x-client-identity", "x-client-cn", "client-cert", "x-forwarded-client-cert", "cookie", "x-request-id")

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def world(port: int, gateway_port: int) -> str:
    """Give the demo's world file: the service listens on ``port``, the gateway on ``gateway_port``."""
    return f"""\
# The demo that 'handfast up' begins with. See it with 'handfast export', change it with 'handfast apply'.
trust_domain: {TRUST_DOMAIN}

workloads:
  {CLIENT}: {{ttl: 7d}}

hosts:
  {HOST}:
    listen: 127.0.0.1:{gateway_port}
    clients: {{certificate: optional}}
    session: true
    routes:
      - {{path: /health, upstream: "http://127.0.0.1:{port}", allow: anyone}}
      - path: /
        upstream: http://127.0.0.1:{port}
        allow:
          - {{identity: {CLIENT}, methods: [GET, HEAD, POST]}}
"""


def service() -> Starlette:
    """Give the service. It trusts what the gateway says of its visitors, as it can be reached by no other way but loopback."""
    return Starlette(routes=[Route("/{path:path}", _answer, methods=_METHODS)])


async def _answer(request: Request) -> Response:
    seen = {name: request.headers[name] for name in SHOWN if name in request.headers}
    who = seen.get("x-client-identity", "nobody in particular")
    head = f"{request.method} {request.url.path}: hello, {who}."
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_page(head, seen))
    rows = "".join(f"  {name}: {value}\n" for name, value in seen.items())
    return PlainTextResponse(f"{head}\nThe gateway told the service:\n{rows}" if rows else f"{head}\n")


def _page(head: str, seen: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{html.escape(n)}<td><code>{html.escape(v)}</code>" for n, v in seen.items())
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Handfast demo</title>"
        "<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:60rem;padding:0 1rem}"
        "table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;padding:.4rem 1rem .4rem 0}"
        "code{word-break:break-all}</style>"
        f"<h1>{html.escape(head)}</h1><p>What the gateway told this service:<table>{rows}</table>"
    )
