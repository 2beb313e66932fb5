"""The two stores, as one kind of thing: an empty database that can be opened more than once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handfast.io.database import Database
from handfast.io.migrations import Migration
from handfast.io.postgres import PostgresDatabase
from handfast.io.postgres_session import Address
from handfast.io.sqlite import SqliteDatabase
from tests.support.postgres import PostgresServer


class Store(ABC):
    """One database, and how to open it."""

    @property
    @abstractmethod
    def argument(self) -> str:
        """What names it to a program."""

    @abstractmethod
    async def open(self, migrations: Sequence[Migration] | None = None) -> Database:
        """Open it, once more where it is open already."""


@dataclass(frozen=True, slots=True)
class SqliteStore(Store):
    """A file."""

    path: Path

    @property
    def argument(self) -> str:
        """The file's path."""
        return str(self.path)

    async def open(self, migrations: Sequence[Migration] | None = None) -> SqliteDatabase:
        """Open the file."""
        return await SqliteDatabase.open(self.path, migrations)


@dataclass(frozen=True, slots=True)
class PostgresStore(Store):
    """A database of the tests' server."""

    server: PostgresServer
    name: str

    @property
    def argument(self) -> str:
        """The database's URL."""
        return self.server.url(self.name)

    async def open(self, migrations: Sequence[Migration] | None = None) -> PostgresDatabase:
        """Connect."""
        return await PostgresDatabase.open(self.server.address(self.name), migrations)


async def open_argument(argument: str) -> Database:
    """Open what `Store.argument` named, in another process."""
    if argument.startswith("postgresql:"):
        return await PostgresDatabase.open(Address(argument, "the tests' database"))
    return await SqliteDatabase.open(Path(argument))
