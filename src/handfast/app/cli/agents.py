"""``handfast agent``: tokens with which agents join."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.lifetimes import lifetime
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, TokenAnswer, TokenRequest

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def token(
    name: Annotated[
        str, typer.Option(help="The agent that it lets in, new or not; without it, any one of a new name.")
    ] = "",
    ttl: Annotated[str, typer.Option(help="How long it can be used: 15m, 24h; 7d at most.")] = "1h",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Make a join token: one agent sends it once, and gets its first certificate.

    Without --name it is good for any name that no agent was given yet. A name that was given needs a token made for it: whoever joins with that
    takes the agent's place, and the certificate that it had is revoked. The token goes to standard output alone, so that it can be piped.

    [bold]Examples[/bold]

      handfast agent token
      handfast agent token --name edge-7 --ttl 15m
    """
    life = lifetime("a token", ttl, timedelta(seconds=10), timedelta(days=7))
    request = TokenRequest(name=name or None, ttl_seconds=life)

    async def work(api: Api) -> TokenAnswer:
        return await api.call("POST", "/v1/agents/tokens", TokenAnswer, request)

    answer = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(answer) if as_json else answer.token)
    if not as_json:
        whom = answer.name or "any new name"
        typer.echo(f"for {whom}, until {moment(answer.expires_at)}; id {answer.id}", err=True)
