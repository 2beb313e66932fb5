"""What ``handfast up`` and ``handfast server`` are started with alike: the options, and the configuration that they make."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from handfast.app.cli.challenges import AcmeOption, look_settings
from handfast.app.cli.given import DEFAULT_DATA, Data, user_name
from handfast.app.cli.listening import NOWHERE, ShardsOption, StatusOption, StatusUrlOption, address
from handfast.app.cli.passphrases import PASSPHRASE_VARIABLE, passphrase_from
from handfast.app.cli.worlds import read_world
from handfast.app.logs import log_to
from handfast.app.server.status import StatusConfig
from handfast.app.up import UpConfig
from handfast.base.refusal import BadInput
from handfast.io.databases import VARIABLE, chosen_address
from handfast.io.files import private_directory
from handfast.io.postgres_session import Address


def _configured(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The world file (YAML). Without one 'up' shows a demo at its first start."),
    ] = None,
    data: Data = DEFAULT_DATA,
    api: Annotated[str, typer.Option(help="Where the API listens, with mutual TLS.")] = "127.0.0.1:7443",
    admin: Annotated[str, typer.Option(help="Where /metrics is served, in plain HTTP.")] = "127.0.0.1:7480",
    status: StatusOption = NOWHERE,
    status_url: StatusUrlOption = "",
    crl_shards: ShardsOption = 1,
    database: Annotated[
        str,
        typer.Option(
            help="A PostgreSQL database instead of SQLite: postgresql://USER@HOST/DATABASE, or @FILE with such a line. "
            f"Also: ${VARIABLE}."
        ),
    ] = "",
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help=f"Seal the authority's keys with the passphrase in this file. Also: ${PASSPHRASE_VARIABLE}, or the systemd "
            "credential handfast-passphrase."
        ),
    ] = None,
    acme: AcmeOption = None,
    log: Annotated[str, typer.Option(help="Where the JSON log goes: a file, or - for standard error.")] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more, Envoy's own lines among it.")] = False,
) -> tuple[UpConfig, Path]:
    """Begin to log; give the configuration, and the data directory as the user wrote it."""
    private_directory(data)
    log_to(log or str(data / "handfast.log"), logging.DEBUG if verbose else logging.INFO)
    configured = UpConfig(
        data=data.resolve(),
        world_text=read_world(config) if config else "",
        api=address(api, "--api"),
        admin=address(admin, "--admin"),
        status=status_config(address(status, "--status"), status_url, crl_shards),
        passphrase=passphrase_from(passphrase_file),
        operator=user_name(),
        database=_database(database),
        acme=look_settings(acme),
    )
    return configured, data


def starts(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of all that start a server; it takes the `UpConfig` and the directory first, then its own."""
    shared = inspect.signature(_configured, eval_str=True)
    own = list(inspect.signature(verb, eval_str=True).parameters.values())[2:]

    @wraps(verb)
    def command(**given: Any) -> None:  # noqa: ANN401 - Typer has read them as `_configured` says
        mine = {option.name: given.pop(option.name) for option in own}
        verb(*_configured(**given), **mine)

    command.__signature__ = inspect.Signature([*shared.parameters.values(), *own])  # type: ignore[attr-defined]
    return command


def status_config(listen: tuple[str, int], url: str, shards: int) -> StatusConfig:
    """Put the options together.

    Raises:
        BadInput: the address cannot stand in a certificate.
    """
    config = StatusConfig(listen=listen, url=url, shards=shards)
    try:
        _ = config.site
    except BadInput as error:
        raise error.at(key="--status-url") from error
    return config


def _database(argument: str) -> Address | None:
    """Give the database's address, and take it out of the environment, which child processes get."""
    chosen = chosen_address(argument)
    os.environ.pop(VARIABLE, None)
    return chosen
