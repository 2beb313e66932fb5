"""The schema's history: numbered SQL files, each applied once and never altered.

Decides which migrations a database still lacks. Refuses one that a newer version has written, and one whose applied
migrations differ from ours: guessing there could lose what the ledger promises to keep.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from handfast.base.refusal import BadInput

HISTORY = """create table if not exists migrations (
    number integer primary key, name text not null, checksum text not null, applied_at bigint not null)"""
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql", re.ASCII)
_COMMENT = re.compile(r"--.*")
_POSTGRES = {
    "integer primary key autoincrement": "bigint generated always as identity primary key",
    "integer": "bigint",  # SQLite's have 64 bits
    "blob": "bytea",
    "text": 'text collate "C"',  # as SQLite sorts, whatever the cluster's language is, and whatever its next C library thinks
}
# Texts and comments come first, so that a type's name in them stays; `cast(… as text)` names no column.
_TYPE = re.compile(r"'(?:[^']|'')*'|--[^\n]*|(?<!\bas )\b(?:" + "|".join(_POSTGRES) + r")\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: ``0001_first.sql`` is number 1, ``first``."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """Give the statements one by one, so that all of them fit into one transaction."""
        statement = ""
        for piece in re.findall(r"[^;]*;|[^;]+$", self.sql):
            statement += piece
            if sqlite3.complete_statement(statement):
                yield statement.strip()
                statement = ""
        if _COMMENT.sub("", statement).strip():
            raise BadInput("the last statement is not complete", file=f"{self.number:04}_{self.name}.sql")


def for_postgres(statement: str) -> str:
    """Spell the types of a statement that defines tables as PostgreSQL does. Columns are not named after types."""
    return _TYPE.sub(lambda found: _POSTGRES.get(found[0].lower(), found[0]), statement)


def load() -> tuple[Migration, ...]:
    """Read the migrations that this version has, in order.

    Raises:
        BadInput: their numbers do not run from 1 without a gap.
    """
    files = [(match, file) for file in resources.files(__name__).iterdir() if (match := _FILE.fullmatch(file.name))]
    found = sorted((Migration(int(m[1]), m[2], f.read_text("utf-8")) for m, f in files), key=lambda one: one.number)
    if [one.number for one in found] != list(range(1, len(found) + 1)):
        raise BadInput("the migrations' numbers have a gap", hint="install Handfast anew")
    return tuple(found)


def pending(applied: Mapping[int, str], known: Sequence[Migration]) -> list[Migration]:
    """Give the migrations to apply, in order. ``applied`` is number to checksum, as the database has them.

    Raises:
        BadInput: the database is newer than this program, or a migration was altered after it was applied.
    """
    ours = {one.number: one for one in known}
    if newer := [number for number in applied if number not in ours]:
        raise BadInput(
            f"the database is newer than this version of Handfast (it has migration {max(newer)})",
            hint="run the version that wrote it, or a later one",
        )
    if altered := [number for number, checksum in applied.items() if ours[number].checksum != checksum]:
        raise BadInput(
            f"migration {min(altered)} is not the one that the database was made with",
            hint="run an unaltered release; a new migration is a new file",
        )
    return [one for one in known if one.number not in applied]
