"""What servers over one ledger give each other: sealed directories of generations.

Decides nothing: what is sealed, and whether it opens, is `handfast.io.sharing`'s.
"""

from __future__ import annotations

from hashlib import sha256

from handfast.io.database import Database, Result, Step, step
from handfast.io.sealed_files import MAX_SEALED_BYTES

LEDGER_ID = "ledger-id"

_KEEP = """insert into generation_files (generation, sha256, sealed) values ($1, $2, $3)
    on conflict (generation) do update set sha256 = excluded.sha256, sealed = excluded.sealed"""


class GenerationFiles:
    """The sealed files of each generation, one text each."""

    def __init__(self, db: Database) -> None:
        """Stand over ``db``."""
        self._db = db

    async def ledger_id(self) -> str:
        """Give the id that ledger and authority share; empty where no authority has claimed the ledger yet."""
        row = await self._db.one("select value from meta where key = $1", LEDGER_ID)
        return str(row[0]) if row else ""

    async def digests(self) -> dict[int, str]:
        """Give the SHA-256 (hex) of each generation's text, by generation."""
        return dict(await self._db.fetch("select generation, sha256 from generation_files"))

    async def sealed(self, generation: int) -> bytes | None:
        """Give a generation's text; None where there is none, or one that is larger than any of ours."""
        sql = "select sealed from generation_files where generation = $1 and length(sealed) <= $2"
        row = await self._db.one(sql, generation, MAX_SEALED_BYTES)
        return bytes(row[0]) if row else None

    async def write(self, *steps: Step) -> None:
        """Do some of the steps that follow, and let the other servers hear of it."""
        if steps:
            await self._db.write(*steps, then=_nothing)


def _nothing(_: list[Result]) -> None:
    """Change nothing here: a unit with a ``then`` is one that others are told of."""


def kept(generation: int, sealed: bytes) -> Step:
    """Give the step that keeps a generation's text, in the place of the one before."""
    return step(_KEEP, generation, sha256(sealed).hexdigest(), sealed)


def dropped(generation: int) -> Step:
    """Give the step that forgets a generation's text."""
    return step("delete from generation_files where generation = $1", generation)
