import asyncio
import dataclasses
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from handfast.base.refusal import Unavailable
from handfast.io.database import step
from handfast.io.databases import read_address
from handfast.io.migrations import Migration
from handfast.io.postgres import PostgresDatabase
from tests.support.postgres import PostgresServer, postgres_server

TABLE = Migration(1, "pairs", "create table pairs (k text primary key, v integer not null);")
INSERT = "insert into pairs (k, v) values ($1, $2)"


def until_both_commit(primary: PostgresServer) -> None:
    """Wait until the primary has read its new configuration, and waits for the standby from now on."""
    for _ in range(200):
        if asyncio.run(primary.value("select count(*) from pg_stat_replication where sync_state = 'sync'")):
            return
        time.sleep(0.025)
    raise AssertionError("the standby is not synchronous")


@pytest.fixture
def pair(postgres: PostgresServer) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Give a primary, and a standby that has all that it has: it commits only together with the standby."""
    with postgres_server(postgres.binaries) as primary:
        directory = primary.directory / "standby"
        directory.mkdir()
        if primary.user is not None:
            shutil.chown(directory, primary.user)
        standby = dataclasses.replace(primary, directory=directory, process=None)
        command = [
            primary.binaries / "pg_basebackup",
            "-R",
            "-U",
            "handfast",
            "-h",
            primary.directory,
            "-D",
            directory / "data",
        ]
        subprocess.run(command, check=True, capture_output=True, user=primary.user, cwd=directory, timeout=60)
        standby.start()
        asyncio.run(primary.execute("alter system set synchronous_standby_names = '*'"))
        asyncio.run(primary.execute("select pg_reload_conf()"))
        try:
            until_both_commit(primary)
            yield primary, standby
        finally:
            standby.stop(signal.SIGQUIT)


async def written(db: PostgresDatabase, key: str) -> None:
    """Write as soon as somebody takes it."""
    async with asyncio.timeout(20):
        while True:
            try:
                await db.write(step(INSERT, key, 1))
            except Unavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_failover_loses_nothing_that_was_acknowledged(pair: tuple[PostgresServer, PostgresServer]):
    """With both in the address, the new primary is found; what the old one had acknowledged is there."""
    primary, standby = pair
    name = await primary.create_database()
    address = read_address(
        f"postgresql://handfast@/{name}?host={primary.directory},{standby.directory}&port=5432,5432", {}
    )
    db = await PostgresDatabase.open(address, [TABLE])
    await asyncio.gather(*(db.write(step(INSERT, f"before-{number}", 1)) for number in range(20)))
    await asyncio.to_thread(primary.stop, signal.SIGQUIT)
    with pytest.raises(Unavailable):
        await db.write(step(INSERT, "between", 1))
    await standby.execute("select pg_promote()")
    await written(db, "after")
    keys = {key for (key,) in await db.fetch("select k from pairs")}
    assert keys == {"after", *(f"before-{number}" for number in range(20))}
    await db.close()


async def test_a_standby_alone_is_unavailable(pair: tuple[PostgresServer, PostgresServer]):
    """It takes no writes, and the message says what it is."""
    with pytest.raises(Unavailable, match="standby"):
        await PostgresDatabase.open(pair[1].address("postgres"), [TABLE])
