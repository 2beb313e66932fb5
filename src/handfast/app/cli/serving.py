"""Runs ``handfast up`` or ``handfast server`` until a signal comes, and greets who started it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path

import typer
import uvloop

from handfast import __version__
from handfast.app import demo
from handfast.app.collecting import begin_to_serve
from handfast.app.domains import DIRECTORY
from handfast.app.up import P12_PASSWORD, Running, UpConfig, server_alone, up
from handfast.io.clock import SystemClock


def serve(config: UpConfig, shown: Path) -> None:
    """Bring everything up, and wait. ``shown`` is the data directory as the user wrote it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(_serve(config, shown)))


def serve_alone(config: UpConfig, shown: Path) -> None:
    """Bring a server up, and wait. ``shown`` is the data directory as the user wrote it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(_serve_alone(config, shown)))


async def _until_signal(work: Coroutine[None, None, None]) -> None:
    """Serve until a signal comes; one that comes while starting ends the start."""
    serving = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    typer.echo("stopped", err=True)


async def _serve(config: UpConfig, shown: Path) -> None:
    typer.echo(f"Handfast {__version__} is starting …", err=True)
    async with up(config, SystemClock()) as running:
        for line in _greeting(running, shown):
            typer.echo(line)
        begin_to_serve()
        await running.agent.failed()


async def _serve_alone(config: UpConfig, data: Path) -> None:
    typer.echo(f"Handfast {__version__} is starting …", err=True)
    async with server_alone(config, SystemClock()) as server:
        typer.echo("The server is up. Ctrl-C stops it.\n")
        typer.echo(f"  trust domain  {server.platform.trust_domain}")
        typer.echo(f"  authority     {data / 'authority'}")
        typer.echo(f"  database      {config.database or data / 'ledger.sqlite'}")
        typer.echo(f"  API           {server.url}, operator's certificate in {data / 'operator'}")
        typer.echo(f"  metrics       http://{config.admin[0]}:{server.admin_address[1]}/metrics")
        for line in _status(config):
            typer.echo(line)
        begin_to_serve()
        await asyncio.get_running_loop().create_future()


def _status(config: UpConfig) -> Iterator[str]:
    host, port = config.status.listen
    if port:
        named = f"certificates name {config.status.url}" if config.status.url else "no certificate names it"
        yield f"  status        http://{host}:{port} (CRLs, OCSP); {named}"


def _greeting(running: Running, data: Path) -> Iterator[str]:
    server, config = running.server, running.config
    yield "Handfast is up. Ctrl-C stops it."
    yield ""
    for host in server.platform.slices.world.hosts.values():
        yield f"  gateway       https://{host.name}:{host.listen.port}" + (
            " (a demo service behind it)" if running.demo else ""
        )
    yield f"  trust domain  {server.platform.trust_domain}"
    keys = (
        "sealed"
        if server.platform.authority.sealed
        else "not sealed: --passphrase-file seals those of a new data directory"
    )
    yield f"  authority     {data / 'authority'}, keys {keys}"
    if running.demo:
        yield f"  CA            {data / 'demo' / 'ca.pem'}"
        yield f"  client        {data / 'demo' / 'client.pem'}, client-key.pem, client.p12 (password: {P12_PASSWORD})"
    yield f"  API           {server.url}, operator's certificate in {data / 'operator'}"
    yield f"  metrics       http://{config.admin[0]}:{server.admin_address[1]}/metrics"
    yield from _status(config)
    for other in running.others:
        listening, port = other.status.address
        status = f", status http://{listening}:{port}" if port else ""
        yield f"  and           {other.platform.trust_domain}: API {other.url}{status}, --data {data / DIRECTORY / str(other.platform.trust_domain)}"
    for warning in running.warnings:
        yield f"  warning       {warning}"
    if running.demo:
        yield from _lines_to_try(data, config.gateway_port)


def _lines_to_try(data: Path, port: int) -> Iterator[str]:
    files, url = data / "demo", f"https://{demo.HOST}:{port}/"
    certificate = f"--cert {files / 'client.pem'} --key {files / 'client-key.pem'}"
    yield ""
    yield "Try:"
    yield f"  curl --cacert {files / 'ca.pem'} {url}"
    yield f"  curl --cacert {files / 'ca.pem'} {certificate} {url}"
    yield f"  curl --cacert {files / 'ca.pem'} {certificate} -X DELETE {url}"
