"""Which authority a ledger belongs to: one, whichever server asks.

Servers that share a database must share their authority. Decides it by an id that both of them keep: the ledger in its table
``meta``, the authority in a file that is copied with it. Refuses a server that would make a second authority over a ledger
that has one: half of the agents would not trust the other half.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from handfast.base.refusal import BadInput
from handfast.io.database import Database, step
from handfast.io.files import read, write_secret
from handfast.io.ledger.sharing import LEDGER_ID, GenerationFiles

FILE = "ledger-id"


async def check_belonging(database: Database, authority: Path) -> None:
    """Check that an authority may be used with this ledger; where there is none yet, that one may be made.

    Raises:
        BadInput: the ledger belongs to another authority, or has one and there is none here.
        Unavailable: the database does not answer.
    """
    kept, said = await GenerationFiles(database).ledger_id(), _said(authority)
    if kept and said is None:
        raise BadInput(
            "the database has an authority already, and this server has none",
            file=str(authority),
            hint="start it with the passphrase that seals the other servers' keys; where none does, or a token holds them, copy the "
            "directory 'authority' of the server that made it to here",
        )
    if kept and said not in {"", kept}:
        raise BadInput(
            "the database belongs to another authority than this one",
            file=str(authority),
            hint="name the database that this authority was used with, or copy the other server's authority to here",
        )


async def claim(database: Database, authority: Path, *, made: bool) -> None:
    """Let ledger and authority belong to each other from now on. ``made`` tells that the authority is new.

    Raises:
        BadInput: another server's new authority came first.
        Unavailable: the database does not answer.
    """
    ours = _said(authority) or secrets.token_hex(16)
    await database.write(
        step("insert into meta (key, value) values ($1, $2) on conflict (key) do nothing", LEDGER_ID, ours)
    )
    kept = await GenerationFiles(database).ledger_id()
    if made and kept != ours:
        raise BadInput(
            "another server made an authority for this database at the same time",
            file=str(authority),
            hint="remove this directory, and copy the other server's to here",
        )
    if _said(authority) != kept:
        write_secret(authority / FILE, kept.encode())


def _said(authority: Path) -> str | None:
    """Give the id that an authority has, empty where it has none yet; None where there is no authority."""
    file = authority / FILE
    if file.exists():
        return read(file, 64).decode("ascii", "replace").strip()
    return "" if authority.exists() else None
