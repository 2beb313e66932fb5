import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import sqlite
from handfast.io.database import Result, placeholders, step
from handfast.io.migrations import Migration, load
from handfast.io.sqlite import MAX_GROUP, SqliteDatabase, numbered

TABLE = Migration(1, "pairs", "create table pairs (k text primary key, v integer not null);")
INSERT = "insert into pairs (k, v) values ($1, $2)"
ALL = "select k, v from pairs order by k"


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """Give a database with one table of keys and numbers."""
    database = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    yield database
    await database.close()


@contextmanager
def commits(db: SqliteDatabase) -> Iterator[list[str]]:
    """Collect the commits and rollbacks of the writer."""
    seen: list[str] = []
    db._writer.set_trace_callback(lambda sql: seen.append(sql) if sql in {"commit", "rollback"} else None)
    yield seen
    db._writer.set_trace_callback(None)


@contextmanager
def foreign_lock(path: Path) -> Iterator[None]:
    """Hold the write lock, as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        yield


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: mode(file) for file in folder.iterdir()}


def let_others_read(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)


def test_parameters_are_spelt_as_sqlite_does():
    """``$1`` may come twice and in any order."""
    assert numbered("select $2, $1, $10, $1") == "select ?2, ?1, ?10, ?1"
    assert placeholders(3, first=2) == "$2, $3, $4"


async def test_a_commit_is_durable(db: SqliteDatabase):
    """The log is synced at each commit; nothing is left to the operating system's mood."""
    assert db._writer.execute("pragma journal_mode").fetchone() == ("wal",)
    assert db._writer.execute("pragma synchronous").fetchone() == (2,)
    assert db._writer.execute("pragma foreign_keys").fetchone() == (1,)


async def test_units_asked_for_together_share_a_commit(db: SqliteDatabase):
    """A hundred writers cost one transaction."""
    with commits(db) as seen:
        await asyncio.gather(*(db.write(step(INSERT, f"k{number}", number)) for number in range(100)))
    assert seen == ["commit"]
    assert len(await db.fetch(ALL)) == 100


async def test_more_units_than_a_group_takes_are_all_written(db: SqliteDatabase):
    """What does not fit into one transaction goes into the next."""
    with commits(db) as seen:
        await asyncio.gather(*(db.write(step(INSERT, f"k{number}", number)) for number in range(MAX_GROUP * 2 + 1)))
    assert seen == ["commit"] * 3
    assert len(await db.fetch(ALL)) == MAX_GROUP * 2 + 1


async def test_then_is_told_though_the_caller_was_cancelled_after_the_commit(db: SqliteDatabase):
    """What is durable is announced, even where nobody waits for it any more."""
    told: list[list[Result]] = []
    task = asyncio.ensure_future(db.write(step(INSERT, "a", 1), then=told.append))
    await asyncio.sleep(0)
    db._flush()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.fetch(ALL) == [("a", 1)]
    assert told == [[Result([], 1)]]


async def test_a_locked_database_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While another program holds the lock all writers get `Unavailable`, reads go on, and afterwards all is well."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.02)
    db = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    with foreign_lock(tmp_path / "db"):
        outcomes = await asyncio.gather(*(db.write(step(INSERT, key, 1)) for key in "ab"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
        assert await db.fetch(ALL) == []
    await db.write(step(INSERT, "a", 1))
    assert await db.fetch(ALL) == [("a", 1)]
    await db.close()


async def test_a_full_disk_is_unavailable(db: SqliteDatabase):
    """Where there is no room all who share the commit get `Unavailable`, and nothing is half written."""
    (pages,) = db._writer.execute("pragma page_count").fetchone()
    db._writer.execute(f"pragma max_page_count = {pages}")
    outcomes = await asyncio.gather(
        db.write(step(INSERT, "small", 1)), db.write(step(INSERT, "k" * 100_000, 1)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await db.fetch(ALL) == []
    db._writer.execute("pragma max_page_count = 1000000")
    await db.write(step(INSERT, "small", 1))
    assert await db.fetch(ALL) == [("small", 1)]


async def test_a_full_disk_beside_a_guilty_unit_is_unavailable(db: SqliteDatabase):
    """The second attempt, unit by unit, may run out of room too: no savepoint is left then, and nobody hangs."""
    await db.write(step(INSERT, "taken", 0))
    (pages,) = db._writer.execute("pragma page_count").fetchone()
    db._writer.execute(f"pragma max_page_count = {pages}")
    outcomes = await asyncio.gather(
        db.write(step(INSERT, "taken", 1)), db.write(step(INSERT, "k" * 100_000, 1)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    assert await db.fetch(ALL) == [("taken", 0)]


async def test_the_files_are_for_their_owner_alone(tmp_path: Path):
    """Whatever the umask is, the database and its log have mode 0600 from the first byte on."""
    before = os.umask(0)
    try:
        db = await SqliteDatabase.open(tmp_path / "db", [TABLE])
        await db.write(step(INSERT, "a", 1))
        assert modes(tmp_path) == {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600}
        await db.close()
    finally:
        os.umask(before)


async def test_files_that_others_can_read_are_closed_to_them(tmp_path: Path):
    """A database that was copied with a wide mode is narrowed when it is opened, and so is a log that was left behind."""
    first = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    let_others_read(tmp_path)
    second = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    assert set(modes(tmp_path).values()) == {0o600}
    await second.close()
    await first.close()


async def test_opening_a_second_time_keeps_the_locks_of_the_first(tmp_path: Path):
    """POSIX drops a process's locks when it closes any descriptor of a file; ours are still held after an open."""
    first = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    second = await SqliteDatabase.open(tmp_path / "db", [TABLE])
    await asyncio.gather(*(one.write(step(INSERT, key, 1)) for one, key in ((first, "a"), (second, "b"))))
    assert await first.fetch(ALL) == await second.fetch(ALL) == [("a", 1), ("b", 1)]
    await second.close()
    await first.write(step(INSERT, "c", 1))
    await first.close()


async def test_what_is_no_database_is_bad_input(tmp_path: Path):
    """Another file, a folder, and a place that does not exist are named, and left as they are."""
    (tmp_path / "text").write_text("this is a text, and long enough to be taken for a header " * 20)
    (tmp_path / "folder").mkdir(mode=0o755)
    for bad in ("text", "folder", "nowhere/db"):
        with pytest.raises(BadInput) as caught:
            await SqliteDatabase.open(tmp_path / bad, [TABLE])
        assert caught.value.file == str(tmp_path / bad)
    assert mode(tmp_path / "folder") == 0o755


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library without `returning` is named at the start, not in the first statement that needs it."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(BadInput, match="too old"):
        await SqliteDatabase.open(tmp_path / "db", [TABLE])


def test_many_may_open_a_new_database_at_once(tmp_path: Path):
    """The first makes the schema, the others wait for it and find it."""

    async def opened() -> int:
        db = await SqliteDatabase.open(tmp_path / "db")
        rows = await db.fetch("select count(*) from migrations")
        await db.close()
        return rows[0][0]

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(lambda _: asyncio.run(opened()), range(12))) == {len(load())}


async def test_readers_beside_a_writer_see_whole_units(db: SqliteDatabase, tmp_path: Path):
    """Two other readers, as fast as they can, never see one half of a pair, and always see what was acknowledged."""
    acknowledged = [0]
    torn: list[object] = []
    stop = threading.Event()

    def read() -> None:
        with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as reader:
            while not stop.is_set():
                sure = acknowledged[0]
                ((left, right),) = reader.execute(
                    "select count(*) filter (where k like 'l%'), count(*) filter (where k like 'r%') from pairs"
                )
                if left != right or left < sure:
                    torn.append((left, right, sure))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, 300, 10):
            units = ((step(INSERT, f"l{n}", n), step(INSERT, f"r{n}", n)) for n in range(start, start + 10))
            await asyncio.gather(*(db.write(*unit) for unit in units))
            acknowledged[0] = start + 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert torn == []
    assert len(await db.fetch(ALL)) == 600
