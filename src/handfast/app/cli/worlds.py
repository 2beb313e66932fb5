"""``handfast apply``, ``diff``, ``export`` and ``status``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handfast.access.world_file import parse_world
from handfast.app.cli.beside import with_files
from handfast.app.cli.reaching import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote, ask
from handfast.app.client import Api
from handfast.app.server.messages import ENCODER, StatusAnswer, WorldAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.io.files import read
from handfast.io.status import ExitCode

WorldFile = Annotated[Path, typer.Argument(help="The world file (YAML).", exists=True, dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (apply, diff, export, status):
        app.command()(command)


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


def export(
    revision: Annotated[int | None, typer.Option(help="An older revision, by its number.")] = None,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Print the world file that counts, as it was written.

    [bold]Examples[/bold]

      handfast export > handfast.yaml
      handfast export --revision 3
    """

    async def work(api: Api) -> str:
        query = {"revision": str(revision)} if revision is not None else {}
        return (await api.send("GET", "/v1/world", query=query)).text

    typer.echo(ask(work, data, server, identity), nl=False)


def status(
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Show the platform at a glance. Exit code 1 means that there are findings.

    [bold]Examples[/bold]

      handfast status
    """

    async def work(api: Api) -> StatusAnswer:
        return await api.call("GET", "/v1/status", StatusAnswer)

    answer = ask(work, data, server, identity)
    typer.echo(ENCODER.encode(answer) if as_json else "\n".join(_lines(answer)))
    raise typer.Exit(ExitCode.REFUSED if any(a.findings or not a.current for a in answer.agents) else ExitCode.OK)


def _lines(answer: StatusAnswer) -> list[str]:
    counts = ", ".join(f"{count} {state}" for state, count in answer.certificates.items() if count) or "none"
    ends = (
        f"; {answer.next_name} is the first to end, {answer.next_expiry:%Y-%m-%d %H:%M} UTC"
        if answer.next_expiry
        else ""
    )
    lines = [
        f"trust domain  {answer.trust_domain}",
        f"revision      {answer.revision}",
        *(f"{a['name']:<14}{a['subject']}, until {a['not_after'][:10]}" for a in answer.authority),
        f"certificates  {counts}{ends}",
        *(
            f"host          {h['name']} on {h['listen']}, certificate {h['certificate']}, routes {h['routes']}"
            for h in answer.hosts
        ),
    ]
    for agent in answer.agents:
        current = "serves the newest" if agent.current else "is behind"
        lines.append(f"agent         {agent.name} {current}, seen {agent.last_seen:%H:%M:%S} UTC")
        lines += [f"  finding     {_finding(finding)}" for finding in agent.findings]
    return lines


def _finding(finding: dict[str, object]) -> str:
    reason = Reason(str(finding["reason"]))
    evidence = finding.get("evidence")
    seen = ", ".join(f"{k} {v}" for k, v in evidence.items()) if isinstance(evidence, dict) else ""
    return f"{reason.value}: {reason.summary} ({seen}); {reason.hint}"
