"""``handfast domain``: the trust domains of a server beside its first."""

from __future__ import annotations

from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, Data
from handfast.app.cli.listening import NOWHERE, ShardsOption, StatusOption, StatusUrlOption, address
from handfast.app.domains import Settings, add_domain, change_domain, domains
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain

Name = Annotated[str, typer.Argument(help="The trust domain's name, such as dev.example.org.")]


def add(
    name: Name,
    api: Annotated[str, typer.Option(help="Where its API listens, with mutual TLS: an address of its own.")],
    admin: Annotated[str, typer.Option(help="Where its /metrics is served.")] = NOWHERE,
    status: StatusOption = NOWHERE,
    status_url: StatusUrlOption = "",
    crl_shards: ShardsOption = 1,
    data: Data = DEFAULT_DATA,
) -> None:
    """Add a trust domain. The server makes its authority when it starts the next time.

    It shares the process with the first and nothing else: authority, inventory, world, API and status are its own. All commands
    reach it by its directory.

    [bold]Examples[/bold]

      handfast domain add dev.example.org --api 127.0.0.1:7543
      handfast domain add dev.example.org --api 127.0.0.1:7543 --status 0.0.0.0:7581 --status-url http://status.dev.example.org
      handfast cert issue payments --data .handfast/domains/dev.example.org
    """
    settings = Settings(
        api=address(api, "--api"),
        admin=address(admin, "--admin"),
        status=address(status, "--status"),
        status_url=status_url,
        crl_shards=crl_shards,
    )
    added = add_domain(data, TrustDomain(name), settings)
    typer.echo(f"added {added.trust_domain}, with its state in {added.directory}; it begins when the server starts")


def change(
    name: Name,
    api: Annotated[str, typer.Option(help="Another address for its API.")] = "",
    admin: Annotated[str, typer.Option(help="Another address for its /metrics.")] = "",
    status: Annotated[str, typer.Option(help="Another address for its revocation lists and OCSP. Port 0: none.")] = "",
    status_url: Annotated[
        str | None, typer.Option(help="How others reach that: it goes into certificates that are issued from then on.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Change where a trust domain's servers listen. It counts when the server starts the next time.

    [bold]Examples[/bold]

      handfast domain change dev.example.org --status 0.0.0.0:7581 --status-url http://status.dev.example.org
    """
    texts = {"api": api, "admin": admin, "status": status}
    changed: dict[str, object] = {key: address(text, f"--{key}") for key, text in texts.items() if text}
    if status_url is not None:
        changed["status_url"] = status_url
    if not changed:
        raise BadInput("nothing is to be changed", hint="see 'handfast domain change --help'")
    one = change_domain(data, TrustDomain(name), **changed)
    typer.echo(f"changed {one.trust_domain}; it counts when the server starts")


def list_domains(data: Data = DEFAULT_DATA) -> None:
    """List the trust domains beside the first.

    [bold]Examples[/bold]

      handfast domain list
    """
    for one in domains(data):
        listening = "  ".join(f"{_NAMES[key]} {host}:{port}" for key, (host, port) in one.settings.listening)
        typer.echo(f"{one.trust_domain}  {listening}  {one.directory}")


_NAMES = {"--api": "API", "--admin": "metrics", "--status": "status"}
