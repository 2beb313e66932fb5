"""``handfast acme``: let ACME clients in, see who came. Also the option with which a server is told where challenges are."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated

import typer

from handfast.access.values import duration
from handfast.app.cli.reaching import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote, ask
from handfast.app.client import Api
from handfast.app.server.acme.messages import (
    LONGEST_BINDING_S,
    AcmeDeactivation,
    AcmeKeyAnswer,
    AcmeKeyRequest,
    AcmeListAnswer,
)
from handfast.app.server.messages import ENCODER, Nothing
from handfast.base.refusal import BadInput
from handfast.doctor.report import escaped

if TYPE_CHECKING:
    from handfast.io.acme_challenges import LookSettings

app = typer.Typer(help="Let ACME clients in: certbot, lego, Caddy.", no_args_is_help=True, rich_markup_mode="rich")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AcmeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--acme",
        envvar="HANDFAST_ACME",
        help="Where ACME challenges are looked for: http-port=PORT, tls-port=PORT, resolver=ADDRESS:PORT, or network=NETWORK "
        "(instead of private addresses and loopback). May come again.",
    ),
]


@app.command()
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
    life = int(duration(ttl).total_seconds())
    if not 60 <= life <= LONGEST_BINDING_S:
        raise BadInput("a key lives from one minute to 30 days", key="--ttl")
    names = [one.strip() for one in domains.split(",") if one.strip()]
    request = AcmeKeyRequest(name=name, domains=names, accounts=accounts, ttl_seconds=life)

    async def work(api: Api) -> AcmeKeyAnswer:
        return await api.call("POST", "/v1/acme/keys", AcmeKeyAnswer, request)

    answer = ask(work, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(answer))
        return
    typer.echo(f"for {answer.name}, {answer.accounts} x, until {answer.expires_at:%Y-%m-%d %H:%M} UTC")
    typer.echo(f"  directory  https://SERVER{answer.directory}")
    typer.echo(f"  key id     {answer.key_id}")
    typer.echo(f"  HMAC key   {answer.hmac_key}  (it is not shown again)")


@app.command("list")
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
            until = f"{one.expires_at:%Y-%m-%d %H:%M} UTC"
            typer.echo(escaped(f"key     {one.key_id}  {one.name}  {one.accounts} x, until {until}"))


@app.command()
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


def look_settings(options: list[str] | None) -> LookSettings:
    """Read ``--acme``.

    Raises:
        BadInput: one is unknown, or cannot be read.
    """
    from handfast.io.acme_challenges import LookSettings  # noqa: PLC0415 - the other commands look for no challenge
    from handfast.trust.acme.reach import network  # noqa: PLC0415

    settings, networks = LookSettings(), []
    for option in options or []:
        name, _, value = option.partition("=")
        match name:
            case "http-port":
                settings = replace(settings, http_port=_port(value, option))
            case "tls-port":
                settings = replace(settings, tls_port=_port(value, option))
            case "resolver":
                settings = replace(settings, resolver=_resolver(value, option))
            case "network":
                networks.append(network(value))
            case _:
                raise BadInput(f"{option[:80]!r} is none of http-port, tls-port, resolver, network", key="--acme")
    return replace(settings, networks=tuple(networks)) if networks else settings


def _resolver(text: str, option: str) -> tuple[str, int]:
    """Read ``ADDRESS`` or ``ADDRESS:PORT``; an IPv6 address with a port stands in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "53"
    try:
        return str(ip_address(host.strip("[]"))), _port(port, option)
    except ValueError:
        raise BadInput(
            f"{option[:80]!r} names no address",
            key="--acme",
            hint="such as resolver=10.0.0.53 or resolver=[fd00::53]:53",
        ) from None


def _port(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise BadInput(f"{option[:80]!r} names no port", key="--acme", hint="such as http-port=8080")
    return int(text)
