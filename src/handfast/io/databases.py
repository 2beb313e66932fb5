"""Which store: the address that a user wrote, and the database behind it.

Decides what an address may say. A password may come from a file or from the environment, never from the command line, which
every process on the machine can read. A database on another host is reached by TLS that checks whom it talks to, unless the
address itself says otherwise. No address is repeated with its password.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from handfast.base.refusal import BadInput
from handfast.io.database import Database
from handfast.io.files import read_secret
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address
from handfast.io.sqlite import SqliteDatabase

LEDGER = "ledger.sqlite"
"""The ledger's place in a data directory, where that is its store."""
VARIABLE = "HANDFAST_DATABASE"
KEY = "database"
MAX_ADDRESS_BYTES = 4096
_SCHEMES = {"postgresql", "postgres"}
_LIKE = "postgresql://user@host/database?sslmode=verify-full&sslrootcert=FILE"
_UNSAFE = (
    "write the address into a file of mode 0600 and name it as @FILE, or the password into a passfile (PGPASSFILE)"
)


async def open_database(file: Path, address: Address | None) -> Database:
    """Open the database at ``address``, or SQLite in ``file`` where there is none, and bring its schema up to date.

    Raises:
        BadInput: it cannot be used, or was written by a newer version.
        Unavailable: it does not answer.
    """
    return await SqliteDatabase.open(file) if address is None else await PostgresDatabase.open(address)


def chosen_address(argument: str, environ: Mapping[str, str] = os.environ) -> Address | None:
    """Give the address from the command line, or else from ``HANDFAST_DATABASE``; None means SQLite.

    Raises:
        BadInput: it is no address, or has a password on the command line.
    """
    if argument:
        return read_address(argument, environ, visible=True)
    return read_address(environ[VARIABLE], environ) if environ.get(VARIABLE) else None


def read_address(text: str, environ: Mapping[str, str] = os.environ, *, visible: bool = False) -> Address:
    """Read ``postgresql://…``, or ``@FILE`` with such a line in a file that its owner alone can read.

    ``visible`` tells that others can see ``text``.

    Raises:
        BadInput: it is neither, others can read the file, or it shows a password.
    """
    if text.startswith("@"):
        file = Path(text[1:])
        text, visible = read_secret(file, MAX_ADDRESS_BYTES).decode("utf-8", "replace").strip(), False
    parts, query = _parsed(text)
    if visible and (parts.password is not None or {"password", "sslpassword"} & query.keys()):
        raise BadInput("others can read a password on the command line", key=KEY, hint=_UNSAFE)
    hosts = parts.netloc.rpartition("@")[2] or query.get("host", "") or environ.get("PGHOST", "")
    asked = "sslmode" in query or "PGSSLMODE" in environ
    checked = not asked and ("service" in query or not all(map(_is_here, unquote(hosts).split(","))))
    return Address(text, _shown(parts, hosts), "verify-full" if checked else None)


def _parsed(text: str) -> tuple[SplitResult, dict[str, str]]:
    try:
        parts = urlsplit(text)
        query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError:
        raise BadInput("this is not the address of a database", key=KEY, hint=_LIKE) from None  # it may hold a password
    # What is not escaped would be read in one way here and in another by the driver.
    if parts.scheme not in _SCHEMES or parts.fragment or parts.netloc.count("@") > 1 or not text.isprintable():
        raise BadInput(
            "this is not the address of a database", key=KEY, hint=f"{_LIKE}; escape what is no letter or digit"
        )
    return parts, query


def _is_here(host: str) -> bool:
    """Tell whether what goes to ``host``, with or without a port, stays on this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name.startswith("/") or name.strip("[]") in {"", "localhost", "127.0.0.1", "::1"}


def _shown(parts: SplitResult, hosts: str) -> str:
    user = f"{quote(unquote(parts.username))}@" if parts.username else ""
    where = "" if hosts.startswith("/") else hosts
    return f"postgresql://{user}{where}{parts.path}"
