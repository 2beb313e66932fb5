"""``handfast backup`` and ``handfast restore``: the whole data directory as one file, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from handfast.app.cli.given import DEFAULT_DATA, Data, user_name
from handfast.app.cli.tables import moment
from handfast.app.domain_ledgers import address_at, address_for
from handfast.io.backup import back_up
from handfast.io.backup import restore as put_back
from handfast.io.clock import SystemClock
from handfast.io.databases import VARIABLE, chosen_address
from handfast.io.postgres_session import Address
from handfast.io.transfer import put_all, take_out

DatabaseAddress = Annotated[
    str,
    typer.Option("--database", help=f"The PostgreSQL database that holds the ledger. Also: ${VARIABLE}."),
]


def backup(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the archive; nothing is overwritten.")
    ],
    data: Data = DEFAULT_DATA,
    database: DatabaseAddress = "",
) -> None:
    """Save the whole data directory as one file: ledgers, worlds, authorities with their keys. The platform goes on running.

    Keys are in it as they lie: sealed where a passphrase seals them, else open to whoever reads the file.

    [bold]Examples[/bold]

      handfast backup /mnt/safe/handfast-monday.tar
      handfast backup handfast.tar --data /var/lib/handfast
      handfast backup handfast.tar --database @/etc/handfast/database
    """
    address = chosen_address(database)
    take = (
        (lambda path, file: asyncio.run(take_out(address_at(path, address_for(data, address)), file)))
        if address
        else None
    )
    made = back_up(data, archive, SystemClock().now(), take)
    typer.echo(f"saved {len(made.members)} files, {sum(one.size for one in made.members)} bytes, in {archive}")
    if made.open_keys:
        typer.echo("handfast: warning: THE KEYS IN THIS ARCHIVE ARE NOT SEALED:", err=True)
        for path in made.open_keys:
            typer.echo(f"handfast: warning:   {path}", err=True)
        typer.echo("handfast: warning: whoever reads the archive can issue certificates in your name", err=True)


def restore(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that 'handfast backup' made.")],
    data: Annotated[Path, typer.Option("--data", help="Where to: a directory that does not exist yet, or is empty.")],
    database: DatabaseAddress = "",
) -> None:
    """Put a backup into a new data directory; then 'handfast up --data DIR' goes on from it.

    Check at once what happened after the backup: it is not in it, and a certificate that was revoked since is good again.
    Whichever store a backup is from, its ledgers go into the directory, or with --database into an empty PostgreSQL database.

    [bold]Examples[/bold]

      handfast restore /mnt/safe/handfast-monday.tar --data /var/lib/handfast
      handfast restore handfast.tar --data /var/lib/handfast --database @/etc/handfast/database
    """
    address = chosen_address(database)
    put = (lambda ledgers: asyncio.run(put_all(address, _schemas(address, ledgers)))) if address else None
    made = put_back(archive, data, SystemClock().now(), f"restore by {user_name()}", put)
    at = moment(made.made_at)
    typer.echo(f"restored {len(made.members)} files as of {at} to {data}")
    typer.echo(f"handfast: warning: revocations made after {at} are not in it: make them again", err=True)
    typer.echo(f"handfast: warning: certificates issued after {at} are not in it, and stay good", err=True)


def _schemas(address: Address, ledgers: Mapping[str, Path]) -> dict[str, Path]:
    return {address_at(path, address).schema: file for path, file in ledgers.items()}
