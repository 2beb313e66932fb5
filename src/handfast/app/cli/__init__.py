"""The command line: few verbs, each of which teaches by example.

What goes wrong is told in two lines, ``handfast: error:`` and ``handfast: hint:``. Exit codes: 0 done, 1 refused or findings,
2 usage, 3 something that is needed does not answer.
"""

from __future__ import annotations

import sys

import typer

from handfast import __version__
from handfast.app.cli.verbs import Root
from handfast.base.refusal import HandfastError
from handfast.io.status import exit_code

app = typer.Typer(
    name="handfast",
    cls=Root,
    help="Mutual TLS for services that do not all live in one cluster.\n\n"
    "Begin with [bold]handfast up[/bold]: it starts everything on this machine, with a demo service behind a gateway.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"handfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Take the options that all commands have."""


def main() -> None:
    """Run the command line; turn the three exceptions into words and an exit code."""
    try:
        app(prog_name="handfast")
    except HandfastError as error:
        typer.echo(f"handfast: error: {error}", err=True)
        if error.hint:
            typer.echo(f"handfast: hint: {error.hint}", err=True)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.exit(0)
