"""``handfast events`` and ``handfast explain``."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Annotated, Any

import msgspec
import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask, reach
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, EventList, ExplanationAnswer
from handfast.base.refusal import BadInput
from handfast.doctor.report import escaped

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one event a line.")]
_WAIT_S = 50
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_DECODER = msgspec.json.Decoder(EventList)
_SHOWN = (
    "reason", "identity", "name", "method", "host", "path", "status", "server_name", "peer", "serial",
    "crl_reason", "revision", "agent", "count", "step", "generation", "source", "requester",
)  # fmt: skip


def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", help="How many to begin with.", min=0, max=500)] = 20,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this kind, such as handshake.refused; may be repeated.")
    ] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Show what happened: refused handshakes, denied requests, issued and revoked certificates.

    [bold]Examples[/bold]

      handfast events --follow
      handfast events --kind handshake.refused --kind request.denied -n 100
      handfast events --json | jq .reason
    """

    async def work() -> None:
        async with reach(data, server, identity) as api:
            await _show(api, follow=follow, last=last, kinds=kind or [], as_json=as_json)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work())


async def _show(api: Api, *, follow: bool, last: int, kinds: list[str], as_json: bool) -> None:
    page = await _page(api, kinds, last=last or 1)  # one at least: it tells from where on to follow
    _print(page.events if last else [], as_json=as_json)
    while follow:
        page = await _page(api, kinds, after=page.next, wait=_WAIT_S)
        _print(page.events, as_json=as_json)


async def _page(api: Api, kinds: list[str], **numbers: int) -> EventList:
    query: dict[str, Any] = {name: str(number) for name, number in numbers.items()}
    response = await api.send("GET", "/v1/events", query={**query, "kind": kinds}, timeout_s=_WAIT_S + 10)
    return _DECODER.decode(response.content)


def _print(events_: list[dict[str, Any]], *, as_json: bool) -> None:
    for event in events_:
        typer.echo(ENCODER.encode(event) if as_json else line(event))


def line(event: dict[str, Any]) -> str:
    """Give an event's line for people."""
    at, kind, reason = str(event["at"])[:19].replace("T", " "), event["kind"], event.get("reason")
    seen = [f"{name}={event[name]}" for name in _SHOWN if event.get(name) not in (None, "")]
    seen += [f"more={event['more']}"] if event.get("more") else []
    why = [event["summary"]] if reason and event.get("summary") else []
    return escaped("  ".join([at, f"{kind:<19}", event["id"], *seen, *why]))


def explain(
    request_id: Annotated[str, typer.Argument(help="The request id that the client got, or an event's id.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Explain why a request or a handshake was refused, and what to do.

    A denied request is decided again against the rules that counted then, and the nearest rules are shown.

    [bold]Examples[/bold]

      handfast explain 7c1c0f0e-3a55-4b53-9a3e-1f6d1c1e8f55
    """
    if not _ID.fullmatch(request_id):
        raise BadInput(f"{request_id[:80]!r} is not the id of a request or an event", hint="see 'handfast events'")

    async def work(api: Api) -> ExplanationAnswer:
        return await api.call("GET", f"/v1/explanations/{request_id}", ExplanationAnswer)

    answer = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(answer) if as_json else answer.text)
