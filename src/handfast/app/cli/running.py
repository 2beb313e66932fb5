"""``handfast up`` and ``handfast server``."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from handfast.app.cli import serving
from handfast.app.cli.starting import starts
from handfast.app.up import UpConfig
from handfast.trust.rotation import SETTLE, Pace

_SETTLE_S = SETTLE.total_seconds()
SettleOption: TypeAlias = Annotated[
    float,
    typer.Option(
        help="How many seconds a step of a rotation may take to get around. Fewer are safe only where all is on this host.",
        min=0.2,
        max=60,
        hidden=True,
    ),
]


@starts
def run(
    config: UpConfig,
    shown: Path,
    gateway_port: Annotated[int, typer.Option(help="Where the demo's gateway listens.", min=1, max=65535)] = 8443,
    envoy: Annotated[
        Path | None, typer.Option(help="Another Envoy than the one that came along.", dir_okay=False)
    ] = None,
    workers: Annotated[int, typer.Option(help="Envoy's worker threads.", min=1, max=64)] = min(os.cpu_count() or 2, 4),
    settle: SettleOption = _SETTLE_S,
) -> None:
    """Start everything on this machine: the server, an agent, Envoy. Ctrl-C stops it.

    State is kept in the data directory; a second start finds it again.

    [bold]Examples[/bold]

      handfast up
      handfast up --config handfast.yaml
      handfast up --config handfast.yaml --data /var/lib/handfast --passphrase-file /etc/handfast/passphrase
    """
    pace = Pace(timedelta(seconds=settle))
    serving.serve(replace(config, gateway_port=gateway_port, envoy=envoy, workers=workers, pace=pace), shown)


@starts
def run_server(
    config: UpConfig,
    shown: Path,
    name: Annotated[
        list[str] | None, typer.Option(help="A DNS name that the API is reached by. May come again.")
    ] = None,
    trust_domain: Annotated[str, typer.Option(help="The trust domain, at the first start without a world file.")] = "",
    settle: SettleOption = _SETTLE_S,
) -> None:
    """Start the control plane alone, without an agent and a gateway. Ctrl-C stops it.

    Several may share one PostgreSQL database: the first makes the authority, and whoever has its passphrase joins.

    [bold]Examples[/bold]

      handfast server --trust-domain example.org
      handfast server --database postgresql:///handfast --name ca.example.org --api 0.0.0.0:7443
      handfast server --database @/etc/handfast/database
    """
    names = tuple(dict.fromkeys(["localhost", *(name or [])]))
    pace = Pace(timedelta(seconds=settle))
    serving.serve_alone(replace(config, names=names, trust_domain=trust_domain, pace=pace), shown)
