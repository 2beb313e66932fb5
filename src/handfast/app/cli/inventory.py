"""``handfast cert list`` and ``own``: the inventory, with others' certificates in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, NO_IDENTITY, Data, Identity, Remote
from handfast.app.cli.reaching import ask
from handfast.app.cli.tables import Columns, csv_line, moment
from handfast.app.client import Api
from handfast.app.server.inventory_messages import (
    InventoryList,
    InventoryRow,
    OwnerRequest,
)
from handfast.app.server.messages import ENCODER, Nothing

_Pages = AsyncIterator[list[InventoryRow]]
_CSV = (
    "source", "state", "name", "serial", "fingerprint", "not_before", "not_after", "dns", "issuer", "subject", "owner",
    "requester", "recorded_at", "revoked_at", "revocation_reason",
)  # fmt: skip


class Format(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def list_certificates(
    name: Annotated[str, typer.Option(help="Only those of this name; it may end with *.")] = "",
    state: Annotated[str, typer.Option(help="issued, expired, revoked, failed, intended or watched.")] = "",
    issuer: Annotated[str, typer.Option(help="Only those of this issuer: a key identifier, or a name.")] = "",
    owner: Annotated[str, typer.Option(help="Only those that this owner looks after.")] = "",
    expires: Annotated[str, typer.Option(help="Only those that end within this time, such as 30d.")] = "",
    fingerprint: Annotated[str, typer.Option(help="Only the one with this SHA-256.")] = "",
    serial: Annotated[str, typer.Option(help="Only those whose serial begins like this.")] = "",
    form: Annotated[Format, typer.Option("--format", help="How to print them.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """List what was issued here, and others' certificates that are watched, newest first.

    They are printed as they come, however many there are.

    [bold]Examples[/bold]

      handfast cert list
      handfast cert list --name payments --state issued --json
      handfast cert list --expires 30d --owner team-payments --format csv
    """
    query = {
        "name": name, "state": state, "issuer": issuer, "owner": owner, "expires": expires,
        "fingerprint": fingerprint, "serial": serial,
    }  # fmt: skip
    show = _SHOWN[Format.JSON if as_json else form]

    async def work(api: Api) -> None:
        await show(_pages(api, {key: value for key, value in query.items() if value}))

    ask(work, data, server, identity)


async def _pages(api: Api, query: dict[str, str]) -> AsyncIterator[list[InventoryRow]]:
    after = ""
    while True:
        page = await api.call("GET", "/v1/inventory", InventoryList, **query, **({"after": after} if after else {}))
        yield page.certificates
        if not page.next or page.next == after:
            return
        after = page.next


async def _show_table(pages: _Pages) -> None:
    columns = Columns(("serial", "name", "state", "until", "owner", "dns"))
    async for page in pages:
        for line in columns.lines(map(_cells, page)):
            typer.echo(line)


def _cells(row: InventoryRow) -> tuple[str, ...]:
    until = moment(row.not_after)
    return row.serial, row.name, row.state, until, row.owner, ", ".join(row.dns)


async def _show_json(pages: _Pages) -> None:
    first = True
    async for page in pages:
        for row in page:
            typer.echo(b"[" if first else b",\n", nl=False)
            typer.echo(ENCODER.encode(row), nl=False)
            first = False
    typer.echo("[]" if first else "]")


async def _show_csv(pages: _Pages) -> None:
    typer.echo(csv_line(_CSV))
    async for page in pages:
        for row in page:
            typer.echo(csv_line([_cell(getattr(row, name)) for name in _CSV]))


_SHOWN: dict[Format, Callable[[_Pages], Awaitable[None]]] = {
    Format.TABLE: _show_table,
    Format.JSON: _show_json,
    Format.CSV: _show_csv,
}


def _cell(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def own(
    name: Annotated[str, typer.Argument(help="The identity's name, such as payments.")],
    owner: Annotated[str, typer.Argument(help="Who looks after its certificates; '' for nobody.")],
    data: Data = DEFAULT_DATA,
    server: Remote = "",
    identity: Identity = NO_IDENTITY,
) -> None:
    """Say who looks after the certificates of a name, for 'handfast cert list --owner'.

    [bold]Examples[/bold]

      handfast cert own payments team-payments
    """

    async def work(api: Api) -> Nothing:
        return await api.call("PUT", "/v1/owners", Nothing, OwnerRequest(name=name, owner=owner))

    ask(work, data, server, identity)
    typer.echo(f"{name}: {owner}" if owner else f"{name}: nobody")
