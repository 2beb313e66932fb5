"""Writes `docs/reference` from the code: reasons, events, commands, the API. A test holds the two together.

Run ``python -m handfast.app.reference`` in the repository after a change.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import typer

from handfast.app.cli import app
from handfast.app.cli.verbs import loaded
from handfast.app.server.build import endpoints
from handfast.app.server.endpoints import openapi
from handfast.app.server.platform import Platform
from handfast.base.events import KINDS, Event
from handfast.base.reasons import EXPLANATIONS

_MADE = "<!-- Made from the code by 'python -m handfast.app.reference'. -->\n"
_NOBODY = cast(Platform, None)  # endpoints are described here, never called


def pages() -> dict[str, str]:
    """Give all pages by file name."""
    return {"reasons.md": _reasons(), "events.md": _events(), "commands.md": _commands(), "openapi.json": _api()}


def _reasons() -> str:
    rows = [f"| `{reason}` | {e.summary} | {e.side} | {e.hint} |" for reason, e in EXPLANATIONS.items()]
    head = ["| code | what it is | at fault | what to do |", "| --- | --- | --- | --- |"]
    intro = (
        "# Reasons\n\nEvery refusal has one of these codes: failed handshakes, denied requests, refused issuance, findings.\n"
        "Logs, metrics, problem documents and `handfast explain` use the same.\n"
    )
    return f"{_MADE}{intro}\n" + "\n".join([*head, *rows]) + "\n"


def _events() -> str:
    intro = "# Events\n\nEach is a line of the log, a row of the ledger, a count in `/metrics`, and an entry of `handfast events`.\n"
    return _MADE + intro + "".join(_event(kind, cls) for kind, cls in KINDS.items())


def _event(kind: str, cls: type[Event]) -> str:
    fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls))
    return f"\n## {kind}\n\n{' '.join((cls.__doc__ or '').split())}\n\nFields: {fields}.\n"


def _commands() -> str:
    intro = "# Commands\n\n`handfast` prints the same with `--help`. Exit codes: 0 done, 1 refused or findings, 2 usage, 3 unavailable.\n"
    return _MADE + intro + "".join(_describe(typer.main.get_command(app), "handfast"))


def _describe(command: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - Typer's own classes are private
    """Describe a command, or all below a group."""
    if below := getattr(command, "commands", None):
        for name, found in below.items():
            yield from _describe(loaded(found), f"{path} {name}")
        return
    yield f"\n## {path}\n\n{_plain(command.help or '')}\n"
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    if options:
        yield "\n| option | meaning |\n| --- | --- |\n"
    for option in options:
        yield f"| `{', '.join(option.opts)}` | {' '.join((option.help or '').split())} |\n"


def _plain(text: str) -> str:
    return text.replace("[bold]Examples[/bold]", "Examples:").replace("[bold]", "").replace("[/bold]", "").strip()


def _api() -> str:
    return json.dumps(openapi(endpoints(_NOBODY)), indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(prog="python -m handfast.app.reference", description="Write the reference pages.")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/reference"))
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
