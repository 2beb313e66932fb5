"""``handfast domain``: the trust domains of a server beside its first."""

from __future__ import annotations

from typing import Annotated

import typer

from handfast.app.cli.reaching import DEFAULT_DATA, Data
from handfast.app.cli.running import address
from handfast.base.spiffe import TrustDomain

app = typer.Typer(help="Have several trust domains in one server.", no_args_is_help=True, rich_markup_mode="rich")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The trust domain's name, such as dev.example.org.")],
    api: Annotated[str, typer.Option(help="Where its API listens, with mutual TLS: an address of its own.")],
    admin: Annotated[str, typer.Option(help="Where its /metrics is served.")] = "127.0.0.1:0",
    data: Data = DEFAULT_DATA,
) -> None:
    """Add a trust domain. The server makes its authority when it starts the next time.

    It shares the process with the first and nothing else: authority, inventory, world and API are its own. All commands reach it
    by its directory.

    [bold]Examples[/bold]

      handfast domain add dev.example.org --api 127.0.0.1:7543
      handfast cert issue payments --data .handfast/domains/dev.example.org
    """
    from handfast.app.domains import add_domain  # noqa: PLC0415 - the other commands need none of the programs

    added = add_domain(data, TrustDomain(name), address(api, "--api"), address(admin, "--admin"))
    typer.echo(f"added {added.trust_domain}, with its state in {added.directory}; it begins when the server starts")


@app.command("list")
def list_domains(data: Data = DEFAULT_DATA) -> None:
    """List the trust domains beside the first.

    [bold]Examples[/bold]

      handfast domain list
    """
    from handfast.app.domains import domains  # noqa: PLC0415

    for one in domains(data):
        typer.echo(f"{one.trust_domain}  API {one.api[0]}:{one.api[1]}  {one.directory}")
