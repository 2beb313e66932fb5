"""``handfast acme``: let ACME clients in, see who came."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.lifetimes import lifetime
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment
from handfast.app.client import Api
from handfast.app.server.acme.messages import (
    LONGEST_BINDING_S,
    AcmeDeactivation,
    AcmeKeyAnswer,
    AcmeKeyRequest,
    AcmeListAnswer,
)
from handfast.app.server.messages import ENCODER, Nothing
from handfast.doctor.report import escaped

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def key(
    name: Annotated[str, typer.Argument(help="The workload that the ACME client gets certificates for.")],
    domains: Annotated[
        str, typer.Option(help="DNS names, with commas, for a workload that has no entry in the world file.")
    ] = "",
    accounts: Annotated[int, typer.Option(help="How many accounts it lets in.", min=1, max=100)] = 1,
    ttl: Annotated[str, typer.Option(help="How long it can be used: 15m, 24h, 7d; 30d at most.")] = "24h",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Make a key with which an ACME client gets an account (external account binding). It is shown once.

    [bold]Examples[/bold]

      handfast acme key payments
      handfast acme key wiki --domains wiki.internal,www.wiki.internal --ttl 1h
    """
    life = lifetime("a key", ttl, timedelta(minutes=1), timedelta(seconds=LONGEST_BINDING_S))
    names = [one.strip() for one in domains.split(",") if one.strip()]
    request = AcmeKeyRequest(name=name, domains=names, accounts=accounts, ttl_seconds=life)

    async def work(api: Api) -> AcmeKeyAnswer:
        return await api.call("POST", "/v1/acme/keys", AcmeKeyAnswer, request)

    answer = ask(work, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(answer))
        return
    typer.echo(f"for {answer.name}, {answer.accounts} x, until {moment(answer.expires_at)}")
    typer.echo(f"  directory  https://SERVER{answer.directory}")
    typer.echo(f"  key id     {answer.key_id}")
    typer.echo(f"  HMAC key   {answer.hmac_key}  (it is not shown again)")


def list_acme(
    as_json: Json = False, data: Data = DEFAULT_DATA, server: Remote = "", identity: Identity = NO_IDENTITY
) -> None:
    """List ACME accounts, and the keys that still let some in.

    [bold]Examples[/bold]

      handfast acme list
      handfast acme list --json
    """

    async def work(api: Api) -> AcmeListAnswer:
        return await api.call("GET", "/v1/acme", AcmeListAnswer)

    answer = ask(work, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(answer))
        return
    for account in answer.accounts:
        state = "active" if account.active else "deactivated"
        contact = f"  {' '.join(account.contact)}" if account.contact else ""
        typer.echo(escaped(f"account {account.account}  {account.name}  {state}, key {account.key_id}{contact}"))
    for one in answer.keys:
        if one.accounts:
            until = moment(one.expires_at)
            typer.echo(escaped(f"key     {one.key_id}  {one.name}  {one.accounts} x, until {until}"))


def deactivate(
    account: Annotated[str, typer.Argument(help="The account, as 'handfast acme list' names it.")],
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Close an ACME account, for good. Its certificates count until they end; 'handfast cert revoke' ends them at once.

    [bold]Examples[/bold]

      handfast acme deactivate 3ce7bqxvkd5ylfhbm2ko4qpzsa
    """

    async def work(api: Api) -> Nothing:
        return await api.call("POST", "/v1/acme/deactivations", Nothing, AcmeDeactivation(account=account))

    ask(work, data, server, identity)
    typer.echo(f"deactivated {account}")
