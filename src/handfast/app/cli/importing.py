"""``handfast cert import``: others' certificates, put into the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import moment, table
from handfast.app.client import Api
from handfast.app.server.inventory_messages import ImportAnswer, ImportRequest
from handfast.base.refusal import BadInput
from handfast.io.files import read
from handfast.trust.facts import MAX_PEM_BYTES, pem, pem_certificates

MOST_FILES = 1000


def import_certificates(
    file: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files with certificates (PEM).")],
    owner: Annotated[str, typer.Option(help="Who looks after them: a team, an address.")] = "",
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Watch certificates that others issued: they stand in the list with their end. Nothing is trusted by that.

    [bold]Examples[/bold]

      handfast cert import partner.pem --owner team-partners
      handfast cert import /etc/ssl/private/*.pem
    """
    if len(file) > MOST_FILES:
        raise BadInput(f"more than {MOST_FILES} files", hint="import them in several commands")
    requests = [ImportRequest(certificates=_pem(path), owner=owner) for path in file]

    async def work(api: Api) -> list[ImportAnswer]:
        return [await api.call("POST", "/v1/inventory", ImportAnswer, request) for request in requests]

    for path, answer in zip(file, ask(work, data, server, identity), strict=True):
        typer.echo(f"{path}: {len(answer.imported)} imported" + (f", {answer.known} known" if answer.known else ""))
        for row in answer.imported:
            for line in table((row.fingerprint, row.name, moment(row.not_after)), []):
                typer.echo(f"  {line}")


def _pem(path: Path) -> str:
    """Give the certificates of a file and nothing else of it: a key beside them stays here."""
    try:
        ders = pem_certificates(read(path, MAX_PEM_BYTES).decode(errors="replace"))
    except BadInput as error:
        raise error.at(file=str(path)) from error
    return "".join(map(pem, ders))
