import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.io.migrations import Migration, load, pending
from handfast.io.sqlite import SqliteDatabase, migrate

FIRST = Migration(1, "first", "create table one (a text);\ninsert into one values ('kept');\n")
SECOND = Migration(2, "second", "alter table one rename to two;\ncreate table three (a text);\n")


def tables(path: Path) -> set[str]:
    with sqlite3.connect(path) as connection:
        found = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")}
    connection.close()
    return {name for name in found if not name.startswith("sqlite_")}


async def opened(path: Path, *migrations: Migration) -> None:
    await (await SqliteDatabase.open(path, migrations)).close()


def test_our_migrations_are_numbered_without_a_gap():
    """The package carries its SQL files, from 1 on."""
    assert [one.number for one in load()] == list(range(1, len(load()) + 1))
    assert load()[0].name == "ledger"


async def test_our_schema_is_made(tmp_path: Path):
    """A new database has all tables."""
    await opened(tmp_path / "db", *load())
    wanted = {"certificates", "revisions", "events", "agents", "join_tokens", "traffic", "meta", "migrations"}
    assert tables(tmp_path / "db") >= wanted


async def test_opening_again_changes_nothing(tmp_path: Path):
    """A migration is applied once, and its data stays."""
    for _ in range(3):
        await opened(tmp_path / "db", FIRST)
    with sqlite3.connect(tmp_path / "db") as connection:
        assert connection.execute("select a from one").fetchall() == [("kept",)]
        assert connection.execute("select count(*) from migrations").fetchone() == (1,)
    connection.close()


async def test_a_later_migration_is_added(tmp_path: Path):
    """A database of an older version is brought up to date, with its data."""
    await opened(tmp_path / "db", FIRST)
    await opened(tmp_path / "db", FIRST, SECOND)
    assert tables(tmp_path / "db") == {"two", "three", "migrations"}


async def test_a_newer_database_is_refused(tmp_path: Path):
    """An older program does not touch what it cannot understand."""
    await opened(tmp_path / "db", FIRST, SECOND)
    with pytest.raises(BadInput, match="newer"):
        await opened(tmp_path / "db", FIRST)


async def test_an_altered_migration_is_refused(tmp_path: Path):
    """One changed letter in an applied migration is noticed."""
    await opened(tmp_path / "db", FIRST)
    with pytest.raises(BadInput, match="migration 1 is not"):
        await opened(tmp_path / "db", Migration(1, "first", FIRST.sql + "-- harmless"))


async def test_a_failing_migration_leaves_the_old_schema(tmp_path: Path):
    """All that is pending is one transaction: the good half of it goes too."""
    await opened(tmp_path / "db", FIRST)
    with pytest.raises(sqlite3.OperationalError):
        await opened(tmp_path / "db", FIRST, SECOND, Migration(3, "third", "create table nonsense (;"))
    assert tables(tmp_path / "db") == {"one", "migrations"}
    await opened(tmp_path / "db", FIRST, SECOND)


DYING = """
import os, signal, sqlite3, sys
from handfast.io.migrations import Migration
from handfast.io.sqlite import migrate
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
first = Migration(1, "first", sys.argv[2])
migrate(connection, [first, Migration(2, "second", sys.argv[3] + "insert into three values ('x'); select die();")])
"""


def died_migrating(path: Path) -> int:
    command = [sys.executable, "-c", DYING, path, FIRST.sql, SECOND.sql]
    return subprocess.run(command, timeout=30, check=False).returncode


async def test_a_crash_in_the_middle_leaves_the_old_schema(tmp_path: Path):
    """A process that is killed while it migrates has changed nothing, and the next start migrates."""
    path = tmp_path / "db"
    await opened(path, FIRST)
    assert died_migrating(path) == -signal.SIGKILL
    assert tables(path) == {"one", "migrations"}
    await opened(path, FIRST, SECOND)
    assert tables(path) == {"two", "three", "migrations"}


def test_statements_are_parted_where_they_end():
    """Semicolons in texts, comments and triggers end nothing."""
    trigger = "create trigger t after insert on a begin\n    delete from b;\n    delete from c;\nend;"
    migration = Migration(1, "x", f"-- one; two\nselect 'a;\nb'; select 2;\n\n{trigger}\n-- the; end\n")
    assert list(migration.statements()) == ["-- one; two\nselect 'a;\nb';", "select 2;", trigger]


def test_a_statement_without_an_end_is_refused():
    """A cut file is noticed before it is half applied."""
    with pytest.raises(BadInput, match="not complete"):
        list(Migration(1, "x", "select 1;\nselect 2").statements())


def test_a_migration_inside_another_transaction_is_not_committed_early():
    """The schema change is whole: nothing in between commits."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    seen: list[str] = []
    connection.set_trace_callback(seen.append)
    migrate(connection, [FIRST, SECOND])
    connection.close()
    assert [line for line in seen if line.lower().startswith(("begin", "commit"))] == ["begin immediate", "commit"]


@given(st.integers(0, 6), st.integers(0, 6))
def test_what_is_pending_follows_what_is_applied(known: int, applied: int):
    """The pending ones are the known ones that lack, in order; more applied than known is refused."""
    ours = [Migration(number, "m", f"select {number};") for number in range(1, known + 1)]
    theirs = {number: Migration(number, "m", f"select {number};").checksum for number in range(1, applied + 1)}
    if applied > known:
        with pytest.raises(BadInput):
            pending(theirs, ours)
    else:
        assert [one.number for one in pending(theirs, ours)] == list(range(applied + 1, known + 1))
