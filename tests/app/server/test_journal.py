from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from handfast.app.logs import log_to
from handfast.app.server.journal import PAGE, Journal
from handfast.app.server.metrics import Metrics
from handfast.base.events import Event, HandshakeRefused
from handfast.base.reasons import Reason
from handfast.io.encoding import MAX_EVENT_BYTES, to_plain
from handfast.io.ledger import SqlLedger
from handfast.io.sqlite import SqliteDatabase
from tests.io.ledger.builders import NOW, issued, joined


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Log to a file, and put the logging of the process back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log_to(str(tmp_path / "handfast.log"))
    yield tmp_path / "handfast.log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    """Give an empty ledger."""
    database = await SqliteDatabase.open(tmp_path / "ledger.sqlite")
    yield await SqlLedger.open(database)
    await database.close()


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def refused(event_id: str = "h", **more: object) -> HandshakeRefused:
    event = HandshakeRefused(id=event_id, at=NOW, gateway="g", listener="l", peer="p", reason=Reason.REVOKED)
    return replace(event, **more)  # type: ignore[arg-type]


async def test_each_event_is_a_line_with_what_it_says(ledger: SqlLedger, log: Path):
    """Its own fields, what all lines have, and nothing that is empty; what is not one value is JSON in a text."""
    journal, event = Journal(ledger, Metrics()), refused(evidence={"a": "b"})
    await ledger.append([event])
    await journal.catch_up()
    (line,) = lines(log)
    plain = {name: value for name, value in to_plain(event).items() if value} | {"evidence": '{"a":"b"}'}
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == plain | {"event": "handshake.refused", "level": "info", "logger": "handfast"}
    assert "certificate" not in line


async def test_what_was_there_before_is_not_told_again(ledger: SqlLedger, log: Path):
    """A server that starts goes on with the log; each event is told and counted once, however often it looks."""
    await ledger.append([joined("before")])
    metrics = Metrics()
    journal = Journal(ledger, metrics)
    await ledger.append([issued("one")])
    await journal.catch_up()
    await journal.catch_up()
    assert [line["id"] for line in lines(log)] == ["issued-one"]
    assert b"handfast_certificates_issued_total 1.0" in metrics.text()


async def test_many_events_are_told_in_their_order(ledger: SqlLedger, log: Path):
    """More than go into the log at once."""
    journal = Journal(ledger, Metrics())
    sent: list[Event] = [joined(f"e{number}") for number in range(2 * PAGE + 1)]
    await ledger.append(sent)
    await journal.catch_up()
    assert [line["id"] for line in lines(log)] == [event.id for event in sent]


async def test_a_strangers_text_stays_in_its_line(ledger: SqlLedger, log: Path):
    """Line ends of every alphabet and what terminals obey are escaped; the text itself is all there."""
    text = "a\nb\x1b[2J\x85\u2028\u202e\x9b2Jü"
    journal = Journal(ledger, Metrics())
    await ledger.append([refused(raw=text, evidence={text: text})])
    await journal.catch_up()
    written = log.read_bytes()
    assert written.isascii()
    assert (written.count(b"\n"), b"\x1b" in written) == (1, False)
    (line,) = lines(log)
    assert line["raw"] == text
    assert json.loads(str(line["evidence"])) == {text: text}


def test_what_goes_into_the_log_at_once_fits_into_one_of_its_files():
    """So that the log stays bounded whatever agents report."""
    assert PAGE * (MAX_EVENT_BYTES + 1024) < 16 * 1024 * 1024
