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
from handfast.app.greeting import trust_domains
from handfast.app.up import P12_PASSWORD, Running, UpConfig, servers_alone, up
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
    async with servers_alone(config, SystemClock()) as servers:
        typer.echo("The server is up. Ctrl-C stops it.\n")
        for line in trust_domains(servers, data):
            typer.echo(line)
        begin_to_serve()
        await asyncio.get_running_loop().create_future()


def _greeting(running: Running, data: Path) -> Iterator[str]:
    server, config = running.server, running.config
    yield "Handfast is up. Ctrl-C stops it."
    yield ""
    for host in server.platform.slices.world.hosts.values():
        yield f"  gateway       https://{host.name}:{host.listen.port}" + (
            " (a demo service behind it)" if running.demo else ""
        )
    if running.demo:
        yield f"  CA            {data / 'demo' / 'ca.pem'}"
        yield f"  client        {data / 'demo' / 'client.pem'}, client-key.pem, client.p12 (password: {P12_PASSWORD})"
    yield from trust_domains([server, *running.others], data)
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
