"""What nearly each command is given: where the platform's state lies, which server is meant, and who the user is."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path(".handfast")

Data = Annotated[
    Path,
    typer.Option("--data", envvar="HANDFAST_DATA", help="Where the platform's state lies.", show_default=True),
]
Remote = Annotated[
    str,
    typer.Option("--server", envvar="HANDFAST_SERVER", help="A server elsewhere, such as https://ca.example.org:7443."),
]
Identity = Annotated[
    Path,
    typer.Option(
        "--identity",
        envvar="HANDFAST_IDENTITY",
        help="For --server: a directory with an operator's cert.pem, key.pem and ca.pem.",
        show_default="'operator' in the data directory",
    ),
]
NO_IDENTITY = Path()


def user_name() -> str:
    """Give the name of who runs the command, as an identity may carry it."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in getpass.getuser())[:64] or "operator"
