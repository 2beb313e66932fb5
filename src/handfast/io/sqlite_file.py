"""A ledger's SQLite file, read and never written: one from a backup, or one whose server does not run.

Decides nothing. A file that a server has open can be read, too.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from handfast.base.refusal import BadInput, Unavailable
from handfast.io.database import Committed, Database, Heard, Result, Row, Step, Value
from handfast.io.sqlite import numbered


class SqliteFile(Database):
    """One file, opened for reading alone. Its schema is not brought up to date.

    Raises:
        BadInput: it is not there.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        if not path.is_file():
            raise BadInput("there is no such file", file=str(path))
        self._path = path
        self._connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, isolation_level=None)

    async def fetch(self, sql: str, *args: Value) -> list[Row]:
        """Read rows.

        Raises:
            BadInput: it is no ledger, or of another version.
        """
        try:
            return self._connection.execute(numbered(sql), args).fetchall()
        except sqlite3.Error as error:
            hint = "is it a ledger.sqlite of this version of Handfast?"
            raise BadInput(f"this ledger cannot be read: {error}", file=str(self._path), hint=hint) from error

    async def write(self, *_: Step, then: Committed | None = None) -> list[Result]:  # noqa: ARG002 - nothing is written
        """Refuse to write."""
        raise Unavailable("this ledger is open for reading alone")

    async def hear(self, _: Heard) -> None:
        """Hear nothing: what others write is there at the next read."""

    async def close(self) -> None:
        """Close the file."""
        self._connection.close()
