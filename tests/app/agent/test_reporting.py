import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handfast.app.agent.findings import Findings
from handfast.app.agent.reporting import COUNT_EVERY_S, MOST_FINDINGS_BYTES, MOST_SERVING, RETRY_S, Known, Reporter
from handfast.app.server.messages import AgentReport
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Unavailable
from handfast.envoy.flood import TOLD_A_SECOND
from handfast.io.encoding import MAX_EVENT_BYTES, encode
from handfast.io.envoy_admin import EnvoyAdmin
from tests.support.clock import FakeClock

VECTORS = Path(__file__).parents[2] / "vectors" / "in"
ROWS = [
    row
    for row in (VECTORS / "access-log.jsonl").read_bytes().splitlines()
    if b'"row":"request"' in row.replace(b" ", b"")
]
STATS = 'envoy_handfast_requests{{route="api.example.org/",identity="-",method="GET",code="-"}} {}\n'


def events_of(report: AgentReport) -> list[dict[str, Any]]:
    """Read the events of a report as any JSON."""
    return [msgspec.json.decode(raw) for raw in report.events]


@dataclass
class Server:
    """Takes reports, or fails as it is told."""

    taken: list[AgentReport] = field(default_factory=list)
    fault: HandfastError | None = None
    tried: int = 0
    refuses: Callable[[AgentReport], bool] = lambda _: False

    async def take(self, report: AgentReport) -> None:
        """Take a report."""
        self.tried += 1
        await asyncio.sleep(0)
        if self.fault:
            raise self.fault
        if self.refuses(report):
            raise BadInput("odd")
        self.taken.append(report)

    @property
    def ids(self) -> list[str]:
        """The ids of all events, in the order that they came in."""
        return [event["id"] for report in self.taken for event in events_of(report)]

    @property
    def counted(self) -> int:
        """How many requests were reported."""
        return sum(row.count for report in self.taken for row in report.traffic)


class Stats:
    """Envoy's counters, as its administration interface shows them."""

    def __init__(self) -> None:
        self.requests: int | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = STATS.format(self.requests).encode() if self.requests is not None else b""
        status = "200 OK" if self.requests is not None else "503 Away"
        writer.write(f"HTTP/1.1 {status}\r\nconnection: close\r\n\r\n".encode() + body)
        writer.close()


@dataclass
class Bench:
    """A reporter with its faulty neighbours."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    server: Server = field(default_factory=Server)
    envoy: Stats = field(default_factory=Stats)

    def reporter(self) -> Reporter:
        """Make a reporter, as another start would."""
        self.findings = Findings("edge", self.clock)
        return Reporter(
            name="edge",
            clock=self.clock,
            send=self.server.take,
            admin=EnvoyAdmin(self.directory / "admin.sock"),
            log=self.directory / "access.log",
            known=Known(),
            findings=self.findings,
        )

    def write(self, *rows: bytes) -> None:
        """Write to the log as Envoy does."""
        with (self.directory / "access.log").open("ab") as log:
            log.write(b"".join(row + b"\n" for row in rows))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Give a reporter's neighbours."""
    made = Bench(tmp_path)
    listening = await asyncio.start_unix_server(made.envoy.serve, tmp_path / "admin.sock")
    yield made
    listening.close()


@asynccontextmanager
async def following(reporter: Reporter) -> AsyncIterator[None]:
    task = asyncio.create_task(reporter.follow_log())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        reporter.close()


async def eventually(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not look():
            await asyncio.sleep(0.005)


def named(number: int) -> str:
    return f"{number:08}-0000-4000-8000-000000000000"


def request(number: int) -> bytes:
    """Give a denied request's row, one of many."""
    denied = {"peer": f"192.0.2.1:{number}", "request_id": named(number), "code": "policy.no-match", "mode": "enforce"}
    return json.dumps(json.loads(ROWS[0]) | denied).encode()


# Events


async def test_what_envoy_writes_is_sent(bench: Bench):
    """Each row is an event of this agent, under the request id where there is one."""
    bench.write(*map(request, range(3)))
    async with following(bench.reporter()):
        await eventually(lambda: len(bench.server.ids) == 3)
        bench.write(request(3), b"not json", request(4))
        await eventually(lambda: len(bench.server.ids) == 5)
    assert bench.server.ids == [named(number) for number in range(5)]
    assert {event["gateway"] for report in bench.server.taken for event in events_of(report)} == {"edge"}
    assert all(report.acknowledged is None for report in bench.server.taken)


async def test_a_flood_of_failed_handshakes_is_few_events(bench: Bench):
    """What an address adds beyond the first of a second is one event with a number; another's has its own."""
    words = {"row": "connection", "start": "2026-11-21T12:00:00Z", "handshake_us": None, "failure": "TLS_error:..."}
    rows = [json.dumps({**words, "peer": f"192.0.2.1:{port}"}, separators=(",", ":")).encode() for port in range(2000)]
    bench.write(*rows, rows[0].replace(b"192.0.2.1", b"192.0.2.2"))
    async with following(bench.reporter()):
        await eventually(lambda: len(bench.server.ids) == TOLD_A_SECOND + 2)
    events = [event for report in bench.server.taken for event in events_of(report)]
    assert sum(1 + event.get("more", 0) for event in events) == 2001
    assert [(e["peer"].partition(":")[0], e.get("more"), e.get("among")) for e in events[-2:]] == [
        ("192.0.2.1", 2000 - TOLD_A_SECOND - 1, "192.0.2.1"),
        ("192.0.2.2", 0, ""),
    ]


async def test_while_the_server_is_away_nothing_is_lost(bench: Bench):
    """Reports are tried again until they have arrived, in order, and none twice."""
    bench.server.fault = Unavailable("away")
    bench.write(*map(request, range(3)))
    async with following(bench.reporter()):
        await eventually(lambda: bench.clock.sleepers == 1)
        for _ in range(3):
            await bench.clock.advance(RETRY_S)
        assert bench.server.tried >= 4
        bench.write(request(3))
        bench.server.fault = None
        await bench.clock.advance(RETRY_S)
        await eventually(lambda: len(bench.server.ids) == 4)
    assert len(set(bench.server.ids)) == 4


async def test_a_restart_tells_again_what_may_not_have_arrived_under_the_same_name(bench: Bench):
    """An event that is read twice is one event: its id is its row's."""
    bench.server.fault = Unavailable("away")
    bench.write(*map(request, range(2)))
    async with following(bench.reporter()):
        await eventually(lambda: bench.server.tried > 0)
    bench.server.fault = None
    async with following(bench.reporter()):
        await eventually(lambda: len(bench.server.ids) == 2)
    again = bench.reporter()
    named = [event.id for row in map(request, range(2)) if (event := again._read(row))]
    assert bench.server.ids == named
    again.close()


async def test_a_refused_report_is_not_sent_for_ever_and_takes_no_other_along(bench: Bench):
    """Of many events the one that the server refuses is dropped, alone."""
    bad = named(13)
    bench.server.refuses = lambda report: any(event["id"] == bad for event in events_of(report))
    bench.write(*map(request, range(32)), request(99))
    async with following(bench.reporter()):
        await eventually(lambda: len(bench.server.ids) == 32)
        tried = bench.server.tried
        await asyncio.sleep(0.1)
        assert bench.server.tried == tried
    assert bad not in bench.server.ids
    assert len(set(bench.server.ids)) == 32


async def test_what_cannot_be_written_takes_no_other_along(bench: Bench):
    """An event that is longer than a record may be is dropped, alone, before it is sent."""
    reporter = bench.reporter()
    events = [event for row in map(request, range(4)) if (event := reporter._read(row))]
    long = replace(events[1], revision="x" * MAX_EVENT_BYTES)  # type: ignore[call-arg]
    await reporter._deliver([events[0], long, *events[2:]])
    assert bench.server.ids == [named(0), named(2), named(3)]
    reporter.close()


# Counts and findings


async def test_counts_are_told_once(bench: Bench):
    """Each report has what was added since the last one that arrived."""
    reporter = bench.reporter()
    for requests, counted in ((5, 5), (5, 5), (9, 9), (2, 11)):
        bench.envoy.requests = requests
        await reporter.tell("d")
        assert bench.server.counted == counted
    reporter.close()


async def test_what_envoy_serves_is_told_once_it_is_new(bench: Bench):
    """Again where the report was lost, and after a certificate was away; many go one part after the other."""
    reporter, told = bench.reporter(), list[list[str]]()

    def heard(report: AgentReport) -> bool:
        told.append(report.serving)
        return False

    bench.server.refuses = heard
    await reporter.tell("d", frozenset({"a1"}))
    await reporter.tell("d", frozenset({"a1", "b1"}))
    bench.server.fault = Unavailable("away")
    await reporter.tell("d", frozenset({"a2", "b1"}))
    bench.server.fault = None
    for _ in range(2):
        await reporter.tell("d", frozenset({"a2", "b1"}))
    assert [one for one in told if one] == [["a1"], ["b1"], ["a2"]]
    many = frozenset(f"{number:04x}" for number in range(MOST_SERVING + 1))
    told.clear()
    for _ in range(3):
        await reporter.tell("d", many)
    assert [len(one) for one in told] == [MOST_SERVING, 1, 0]
    reporter.close()


async def test_what_is_stapled_is_told_where_it_changed(bench: Bench):
    """Again where the report was lost; that there is none any more is told as well; many go one part after the other."""
    reporter, told = bench.reporter(), list[dict[str, datetime | None]]()

    def heard(report: AgentReport) -> bool:
        told.append(report.staples)
        return False

    bench.server.refuses = heard
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    await reporter.tell("d", frozenset(), {"api": early, "web": early})
    await reporter.tell("d")
    bench.server.fault = Unavailable("away")
    await reporter.tell("d", frozenset(), {"api": late})
    bench.server.fault = None
    for _ in range(2):
        await reporter.tell("d", frozenset(), {"api": late})
    assert [one for one in told if one] == [{"api": early, "web": early}, {"api": late, "web": None}]
    told.clear()
    many = {f"host-{number:03}": early for number in range(MOST_SERVING)}
    for _ in range(3):
        await reporter.tell("d", frozenset(), many)
    assert [len(one) for one in told] == [MOST_SERVING, 1, 0]
    reporter.close()


async def test_counts_that_did_not_arrive_go_with_the_next_report(bench: Bench):
    """The server's absence costs no count."""
    reporter = bench.reporter()
    bench.envoy.requests, bench.server.fault = 5, Unavailable("away")
    await reporter.tell("d")
    bench.envoy.requests, bench.server.fault = 8, None
    await reporter.tell("d")
    assert bench.server.counted == 8
    reporter.close()


async def test_two_reports_at_once_count_once(bench: Bench):
    """The report at once, after a new slice, may meet the one that is due."""
    reporter = bench.reporter()
    bench.envoy.requests = 7
    await asyncio.gather(*(reporter.tell("d") for _ in range(4)))
    assert bench.server.counted == 7
    reporter.close()


async def test_without_envoy_the_agent_reports_on(bench: Bench):
    """A sign of life, with nothing counted; and nothing is counted twice afterwards."""
    reporter = bench.reporter()
    for requests, counted in ((5, 5), (None, 5), (6, 6)):
        bench.envoy.requests = requests
        await reporter.tell("d")
        assert bench.server.counted == counted
    assert len(bench.server.taken) == 3
    reporter.close()


async def test_reports_come_every_two_seconds(bench: Bench):
    """Each has the digest of that moment."""
    reporter, digests = bench.reporter(), iter(["", "a", "b"])
    task = asyncio.create_task(reporter.count(lambda: (next(digests), frozenset(), {})))
    for count in (1, 2, 3):
        await eventually(lambda: bench.clock.sleepers == 1)
        await bench.clock.advance(COUNT_EVERY_S)
        await eventually(lambda count=count: len(bench.server.taken) == count)  # type: ignore[misc]
    task.cancel()
    assert [report.acknowledged for report in bench.server.taken] == ["", "a", "b"]
    reporter.close()


async def test_a_finding_is_an_event_once_and_a_state_until_it_is_resolved(bench: Bench):
    """Told when it arose, and again as long as it stands; lost reports lose no finding."""
    reporter = bench.reporter()
    bench.server.fault = Unavailable("away")
    bench.findings.find(Reason.ENVOY_DIED, {"how": "signal SIGKILL"})
    await reporter.tell("d")
    bench.server.fault = None
    for _ in range(2):
        await reporter.tell("d")
    bench.findings.resolve(Reason.ENVOY_DIED)
    await reporter.tell("d")
    assert [len(report.events) for report in bench.server.taken] == [1, 0, 0]
    assert [len(report.findings) for report in bench.server.taken] == [1, 1, 0]
    reporter.close()


async def test_findings_fit_a_report(bench: Bench):
    """However long Envoy's words are and however many, the report stays within what the server takes; the newest are told."""
    reporter = bench.reporter()
    for number in range(120):
        bench.findings.find(Reason.ENVOY_REJECTED, {"envoy": "é" * 10_000, "number": str(number)})
    await reporter.tell("d")
    findings = bench.server.taken[0].findings
    assert 5 < len(findings) <= 100
    assert len(encode(findings)) <= MOST_FINDINGS_BYTES + 200
    assert findings[-1]["evidence"]["number"] == "119"
    reporter.close()
