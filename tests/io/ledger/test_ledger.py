import asyncio
import inspect
import itertools
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from handfast.io.ledger import SqlLedger
from handfast.io.ports import Ledger
from handfast.io.records import CertificateState
from handfast.io.sqlite import SqliteDatabase
from tests.support.stores import Store

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", [name for name in vars(Ledger) if name.startswith("record_")])
def test_it_has_the_calls_of_the_port(name: str):
    """Issuance knows the protocol alone: names and parameters are the same."""
    ours, theirs = getattr(SqlLedger, name), getattr(Ledger, name)
    assert inspect.iscoroutinefunction(ours)
    assert inspect.signature(ours) == inspect.signature(theirs)


async def test_a_counter_never_gives_a_number_twice(ledger: SqlLedger, store: Store):
    """Numbers run from 1 for each name, for callers at the same time, another process, and after a restart."""
    first = await asyncio.gather(*(ledger.next_counter("crl") for _ in range(20)))
    assert sorted(first) == list(range(1, 21))
    again_db = await store.open()
    again = await SqlLedger.open(again_db)
    assert [await again.next_counter("crl"), await ledger.next_counter("crl")] == [21, 22]
    assert await again.next_counter("other") == 1
    await again_db.close()


def lines_until_killed(store: Store, count: int) -> list[list[str]]:
    """Run the writer, kill it as it says its line ``count``, and give all that it said."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.io.ledger.writer", store.argument],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert child.stdout is not None
    with child, child.stdout:
        said = list(itertools.islice(child.stdout, count))
        child.kill()
        said += child.stdout.readlines()
    assert len(said) >= count
    return [line.decode().split() for line in said]


@pytest.mark.parametrize("count", [1, 200, 1501])
async def test_what_was_acknowledged_survives_kill_9(store: Store, count: int):
    """Every acknowledged row is there after the writer was killed under load, nothing signed is unrecorded, no row lacks its event."""
    said = defaultdict(set)
    for word, serial in lines_until_killed(store, count):
        said[word].add(serial)
    db = await store.open()
    ledger = await SqlLedger.open(db)
    if isinstance(db, SqliteDatabase):
        assert await db.fetch("pragma integrity_check") == [("ok",)]
    rows = dict(await db.fetch("select serial, state from certificates"))
    assert said["signed"] <= rows.keys()
    assert {rows[serial] for serial in said["issued"]} <= {CertificateState.ISSUED, CertificateState.REVOKED}
    assert {rows[serial] for serial in said["revoked"]} <= {CertificateState.REVOKED}
    events = {name for (name,) in await db.fetch("select id from events")}
    finished = {serial for serial, state in rows.items() if state != CertificateState.INTENDED}
    withdrawn = {serial for serial, state in rows.items() if state == CertificateState.REVOKED}
    assert events == {f"issued-{serial}" for serial in finished} | {f"revoked-{serial}" for serial in withdrawn}
    assert (ledger.event_head.value,) == await db.one("select coalesce(max(seq), 0) from events")
    assert ledger.changes.value == len(withdrawn)
    await db.close()
