"""``handfast apply`` and ``handfast diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handfast.access.world_file import parse_world
from handfast.app.cli.beside import with_files
from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, WorldAnswer
from handfast.base.refusal import BadInput
from handfast.io.files import read
from handfast.io.status import ExitCode

WorldFile = Annotated[Path, typer.Argument(help="The world file (YAML).", exists=True, dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_world(path: Path) -> str:
    """Give a world file's text, with that of the files it names, after it was read without fault.

    Raises:
        BadInput: it has one; names file, line and key.
    """
    try:
        text = read(path).decode()
    except UnicodeDecodeError as error:
        raise BadInput("the file is not UTF-8", file=str(path)) from error
    text = with_files(text, path)
    parse_world(text, file=str(path))
    return text


def apply(
    file: WorldFile,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Make a world file the one that counts. Every apply is a revision, and kept.

    [bold]Examples[/bold]

      handfast diff handfast.yaml && handfast apply handfast.yaml
    """
    answer = _send("PUT", "/v1/world", file, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(answer))
        return
    _print_effect(answer)
    typer.echo(f"revision {answer.revision} counts" + ("" if answer.changed else "; nothing changed"))


def diff(
    file: WorldFile,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Tell what an apply would change: not the text alone, but who would gain or lose what.

    Exit code 1 means that something would change.

    [bold]Examples[/bold]

      handfast diff handfast.yaml
    """
    answer = _send("POST", "/v1/world/diff", file, data, server, identity)
    if as_json:
        typer.echo(ENCODER.encode(answer))
    else:
        _print_effect(answer)
        if not answer.changed:
            typer.echo("nothing would change")
    raise typer.Exit(ExitCode.REFUSED if answer.changed else ExitCode.OK)


def _send(method: str, path: str, file: Path, data: Path, server: str, identity: Path) -> WorldAnswer:
    text = read_world(file)

    async def work(api: Api) -> WorldAnswer:
        return await api.call(method, path, WorldAnswer, text)

    return ask(work, data, server, identity)


def _print_effect(answer: WorldAnswer) -> None:
    for line in answer.effect if answer.changed else ():
        typer.echo(line)
    for line in answer.warnings:
        typer.echo(f"handfast: warning: {line}", err=True)
