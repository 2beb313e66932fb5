"""``handfast up`` and ``handfast server``."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handfast.app.cli.acme import AcmeOption, look_settings
from handfast.app.cli.reaching import DEFAULT_DATA, Data, user_name
from handfast.app.cli.status import NOWHERE, ShardsOption, StatusOption, StatusUrlOption, status_config
from handfast.app.cli.worlds import read_world
from handfast.base.refusal import BadInput
from handfast.io.files import private_directory
from handfast.io.sealed import Passphrase, PassphraseCredential, PassphraseFile, PassphraseVariable, read_passphrase

if TYPE_CHECKING:
    from handfast.io.postgres_session import Address

PASSPHRASE_VARIABLE = "HANDFAST_PASSPHRASE"  # noqa: S105 - a name


DatabaseAddress = Annotated[
    str,
    typer.Option(
        "--database",
        help="A PostgreSQL database instead of SQLite: postgresql://USER@HOST/DATABASE, or @FILE with such a line. "
        "Also: $HANDFAST_DATABASE.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(run)
    app.command("server")(run_server)


def run(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The world file (YAML). Without one: the demo.")
    ] = None,
    data: Data = DEFAULT_DATA,
    api: Annotated[str, typer.Option(help="Where the API listens, with mutual TLS.")] = "127.0.0.1:7443",
    admin: Annotated[str, typer.Option(help="Where /metrics is served, in plain HTTP.")] = "127.0.0.1:7480",
    gateway_port: Annotated[int, typer.Option(help="Where the demo's gateway listens.", min=1, max=65535)] = 8443,
    envoy: Annotated[
        Path | None, typer.Option(help="Another Envoy than the one that came along.", dir_okay=False)
    ] = None,
    workers: Annotated[int, typer.Option(help="Envoy's worker threads.", min=1, max=64)] = min(os.cpu_count() or 2, 4),
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help=f"Seal the authority's keys with the passphrase in this file. Also: ${PASSPHRASE_VARIABLE}, or the systemd "
            "credential handfast-passphrase."
        ),
    ] = None,
    log: Annotated[str, typer.Option(help="Where the JSON log goes: a file, or - for standard error.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, Envoy's own lines among it.")] = False,
    acme: AcmeOption = None,
    database: DatabaseAddress = "",
    status: StatusOption = NOWHERE,
    status_url: StatusUrlOption = "",
    crl_shards: ShardsOption = 1,
) -> None:
    """Start everything on this machine: the server, an agent, Envoy. Ctrl-C stops it.

    State is kept in the data directory; a second start finds it again.

    [bold]Examples[/bold]

      handfast up
      handfast up --config handfast.yaml
      handfast up --config handfast.yaml --data /var/lib/handfast --passphrase-file /etc/handfast/passphrase
    """
    from handfast.app.cli.serving import serve  # noqa: PLC0415 - the other commands need none of the programs
    from handfast.app.logs import log_to  # noqa: PLC0415
    from handfast.app.up import UpConfig  # noqa: PLC0415

    private_directory(data)
    log_to(log or str(data / "handfast.log"), logging.DEBUG if verbose else logging.INFO)
    started_with = UpConfig(
        data=data.resolve(),
        world_text=read_world(config) if config else "",
        api=address(api, "--api"),
        admin=address(admin, "--admin"),
        status=status_config(address(status, "--status"), status_url, crl_shards),
        gateway_port=gateway_port,
        envoy=envoy,
        workers=workers,
        passphrase=passphrase_from(passphrase_file),
        operator=user_name(),
        database=_database(database),
        acme=look_settings(acme),
    )
    serve(started_with, data)


def run_server(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A world file (YAML), applied at the start.")
    ] = None,
    data: Data = DEFAULT_DATA,
    api: Annotated[str, typer.Option(help="Where the API listens, with mutual TLS.")] = "127.0.0.1:7443",
    admin: Annotated[str, typer.Option(help="Where /metrics is served, in plain HTTP.")] = "127.0.0.1:7480",
    name: Annotated[
        list[str] | None, typer.Option(help="A DNS name that the API is reached by. May come again.")
    ] = None,
    trust_domain: Annotated[str, typer.Option(help="The trust domain, at the first start without a world file.")] = "",
    database: DatabaseAddress = "",
    passphrase_file: Annotated[
        Path | None, typer.Option(help=f"Seal the authority's keys. Also: ${PASSPHRASE_VARIABLE}, as with 'up'.")
    ] = None,
    log: Annotated[str, typer.Option(help="Where the JSON log goes: a file, or - for standard error.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    acme: AcmeOption = None,
    status: StatusOption = NOWHERE,
    status_url: StatusUrlOption = "",
    crl_shards: ShardsOption = 1,
) -> None:
    """Start the control plane alone, without an agent and a gateway. Ctrl-C stops it.

    Several servers may share one PostgreSQL database, where each has a copy of the same authority.

    [bold]Examples[/bold]

      handfast server --trust-domain example.org
      handfast server --database postgresql:///handfast --name ca.example.org --api 0.0.0.0:7443
      handfast server --database @/etc/handfast/database
    """
    from handfast.app.cli.serving import serve_alone  # noqa: PLC0415 - as above
    from handfast.app.logs import log_to  # noqa: PLC0415
    from handfast.app.up import UpConfig  # noqa: PLC0415

    private_directory(data)
    log_to(log or str(data / "handfast.log"), logging.DEBUG if verbose else logging.INFO)
    started_with = UpConfig(
        data=data.resolve(),
        world_text=read_world(config) if config else "",
        api=address(api, "--api"),
        admin=address(admin, "--admin"),
        status=status_config(address(status, "--status"), status_url, crl_shards),
        names=tuple(dict.fromkeys(["localhost", *(name or [])])),
        trust_domain=trust_domain,
        passphrase=passphrase_from(passphrase_file),
        operator=user_name(),
        database=_database(database),
        acme=look_settings(acme),
    )
    serve_alone(started_with, data)


def _database(argument: str) -> Address | None:
    """Give the database's address, and take it out of the environment, which child processes get."""
    from handfast.io.databases import VARIABLE, chosen_address  # noqa: PLC0415 - loads the databases' drivers

    chosen = chosen_address(argument)
    os.environ.pop(VARIABLE, None)
    return chosen


def address(text: str, option: str) -> tuple[str, int]:
    """Read ``address:port``; ``option`` is what the error names."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise BadInput(f"{text!r} is not address:port", key=option, hint="such as 127.0.0.1:7443")
    return host.strip("[]"), int(port)


def passphrase_from(file: Path | None) -> Passphrase | None:
    """Give the passphrase from the first source that is there."""
    if file:
        return read_passphrase(PassphraseFile(file))
    if PASSPHRASE_VARIABLE in os.environ:
        return read_passphrase(PassphraseVariable(PASSPHRASE_VARIABLE))
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (Path(directory) / "handfast-passphrase").exists():
        return read_passphrase(PassphraseCredential())
    return None
