"""Two servers over one database. SQLite has one process, so this is PostgreSQL alone."""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from handfast.base.refusal import Refusal, Refused
from handfast.io.ledger import SqlLedger
from handfast.io.postgres import PostgresDatabase
from handfast.io.records import CertificateState
from handfast.trust.joining import Grant
from tests.io.ledger.builders import NOW, applied, ids, intent, invited, issue, issued, joined, revoked
from tests.support.ledger import revoked_live
from tests.support.stores import PostgresStore

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def two(postgres_store: PostgresStore) -> AsyncIterator[tuple[SqlLedger, SqlLedger]]:
    """Give two ledgers that share nothing but their database."""
    databases = [await postgres_store.open() for _ in range(2)]
    yield await SqlLedger.open(databases[0]), await SqlLedger.open(databases[1])
    for db in databases:
        await db.close()


async def test_a_change_by_one_wakes_the_other_at_once(
    two: tuple[SqlLedger, SqlLedger], record_property: Callable[[str, object], None]
):
    """A revision that one server applies moves the other's topics in well under a tenth of a second."""
    one, other = two
    took = []
    for turn in range(1, 21):
        seen = other.changes.value
        waiting = asyncio.create_task(other.changes.wait_for_change(seen, timeout=10))
        await asyncio.sleep(0)
        await one.apply("{}", f"{turn:064}", "test", NOW, applied(f"{turn:064}", id=f"e{turn}"))
        began = time.perf_counter()
        assert await waiting == seen + 1
        took.append(time.perf_counter() - began)
        assert (await other.latest_revision()).number == turn  # type: ignore[union-attr]
    median_ms = round(statistics.median(took) * 1000, 2)
    record_property("median_ms_from_acknowledgement_to_the_other_ledger", median_ms)
    assert median_ms < 100
    assert other.event_head.value == one.event_head.value


async def test_both_wake_for_an_event_of_either(two: tuple[SqlLedger, SqlLedger]):
    """Whoever writes an event, readers of both find it after the head that they had."""
    for number, (writer, reader) in enumerate([two, two[::-1]]):
        seen = reader.event_head.value
        waiting = asyncio.create_task(reader.event_head.wait_for_change(seen, timeout=10))
        await writer.append([joined(f"e{number}")])
        await waiting
        assert [event.id for _, event in await reader.page(after=seen)] == [f"e{number}"]


async def test_a_serial_is_given_once(two: tuple[SqlLedger, SqlLedger]):
    """Of two servers that intend the same serial at the same time, one is refused."""
    for number in range(20):
        outcomes = await asyncio.gather(*(ledger.record_intent(intent(f"{number:02x}")) for ledger in two))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "Refusal"]
        assert any(isinstance(outcome, Refusal) for outcome in outcomes)


async def test_a_revocation_by_one_stops_the_other(two: tuple[SqlLedger, SqlLedger]):
    """What one server revokes while the other is about to deliver it is not delivered."""
    one, other = two
    await one.record_intent(intent("0a"))
    await other.revoke(["0a"], NOW, "superseded", [revoked("0a")])
    with pytest.raises(Refused):
        await one.record_issued("0a", b"der", issued("0a"))
    assert [found.serial for found in await revoked_live(one, NOW)] == ["0a"]


async def test_counters_and_revisions_have_no_gap_and_no_double(two: tuple[SqlLedger, SqlLedger]):
    """Numbers that both count up are the numbers that one would have counted up."""
    numbers = await asyncio.gather(*(ledger.next_counter("crl") for ledger in two for _ in range(30)))
    assert sorted(numbers) == list(range(1, 61))
    digests = [f"{number:064}" for number in range(8)]
    revisions = await asyncio.gather(
        *(
            two[n % 2].apply(f"{n}", digest, "test", NOW, applied(digest, id=f"e{n}"))
            for n, digest in enumerate(digests)
        )
    )
    assert sorted(revisions) == list(range(1, 9))


async def test_a_join_token_works_once_on_either(two: tuple[SqlLedger, SqlLedger]):
    """Two agents with one token, each at another server: one joins."""
    token = "t" * 32
    await two[0].add_join_token(token, invited(token))
    used = await asyncio.gather(*(ledger.use_join_token(token, NOW) for ledger in two for _ in range(5)))
    assert len([grant for grant in used if grant]) == 1


async def test_a_name_is_given_once(two: tuple[SqlLedger, SqlLedger]):
    """Two tokens for any new name, each at another server, and one name: one is the first."""
    for number in range(20):
        grants = [Grant(f"{number}-{server}", "") for server in range(2)]
        given = await asyncio.gather(
            *(ledger.take_agent_name(f"web-{number}", grant) for ledger, grant in zip(two, grants, strict=True))
        )
        assert sorted(given) == [False, True]


async def test_nothing_is_lost_between_two_that_issue(two: tuple[SqlLedger, SqlLedger]):
    """Certificates and events of both are all there, and both see the same journal in the same order."""
    serials = [f"{number:04x}" for number in range(120)]
    await asyncio.gather(*(issue(two[number % 2], serial) for number, serial in enumerate(serials)))
    journals = [await ids(ledger) for ledger in two]
    assert journals[0] == journals[1]
    assert sorted(journals[0]) == [f"issued-{serial}" for serial in serials]


async def test_a_ledger_that_was_cut_off_catches_up(two: tuple[SqlLedger, SqlLedger], postgres_store: PostgresStore):
    """While a server has no connection the other one writes; once it is back its topics are where they should be."""
    one, other = two
    await postgres_store.server.execute(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{postgres_store.name}'"
    )
    await one.apply("{}", "a" * 64, "test", NOW, applied("a" * 64))
    async with asyncio.timeout(10):
        while other.changes.value != one.changes.value:
            await other.changes.wait_for_change(other.changes.value)
    assert other.event_head.value == one.event_head.value == 1


def start_writer(store: PostgresStore, prefix: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.io.ledger.writer", store.argument, prefix],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


async def test_kill_9_of_one_server_loses_nothing_and_does_not_stop_the_other(postgres_store: PostgresStore):
    """All that either acknowledged is there, though one was killed under load; the other goes on meanwhile."""
    await (await postgres_store.open()).close()
    killed, other = start_writer(postgres_store, "a"), start_writer(postgres_store, "b")
    said: list[bytes] = []
    with killed, other:
        for child, count in ((other, 30), (killed, 300)):
            said += itertools.islice(child.stdout, count)  # type: ignore[arg-type]
        killed.kill()
        said += killed.stdout.readlines()  # type: ignore[union-attr]
        said += itertools.islice(other.stdout, 600)  # type: ignore[arg-type]
        other.kill()
        said += other.stdout.readlines()  # type: ignore[union-attr]
    acknowledged = defaultdict(set)
    for line in said:
        word, serial = line.decode().split()
        acknowledged[word].add(serial)
    db = await PostgresDatabase.open(postgres_store.server.address(postgres_store.name))
    rows = dict(await db.fetch("select serial, state from certificates"))
    assert acknowledged["signed"] <= rows.keys()
    assert {rows[serial] for serial in acknowledged["issued"]} <= {CertificateState.ISSUED, CertificateState.REVOKED}
    assert {rows[serial] for serial in acknowledged["revoked"]} <= {CertificateState.REVOKED}
    assert {serial[0] for serial in acknowledged["issued"]} == {"a", "b"}
    events = {name for (name,) in await db.fetch("select id from events")}
    finished = {f"issued-{serial}" for serial, state in rows.items() if state != CertificateState.INTENDED}
    assert finished <= events
    await db.close()
