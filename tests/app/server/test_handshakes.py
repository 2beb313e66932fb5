import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from handfast.app.server.handshakes import GATHERED_S, MOST_WAITING, FailedHandshakes, refused
from handfast.base.events import HandshakeRefused
from handfast.base.reasons import Reason
from handfast.base.refusal import Unavailable
from handfast.envoy.flood import SHARE, TOLD_A_SECOND
from handfast.io.encoding import MAX_EVENT_BYTES, encode_event
from handfast.io.ledger import SqlLedger
from handfast.sdk.handshake import FailedHandshake
from tests.support.clock import START, FakeClock
from tests.support.pki import Pki

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def failed(*offered: bytes, **more: object) -> FailedHandshake:
    plain = {
        "peer": "192.0.2.1:40000", "local": "127.0.0.1:7443", "server_name": "localhost", "tls_version": "TLSv1.3", "reason_text": "CERTIFICATE_VERIFY_FAILED",
        "verify_code": 10, "verify_message": "certificate has expired", "offered": offered, "elapsed_s": 0.01,
    }  # fmt: skip
    return FailedHandshake(**(plain | more))  # type: ignore[arg-type]


def test_a_failed_handshake_is_told_as_a_gateway_tells_it():
    """Reason, certificate and OpenSSL's words are in the event."""
    leaf = Pki().leaf("payments")
    event = refused(failed(leaf.cert_der), (), NOW)
    assert (event.gateway, event.listener, event.reason) == ("server", "127.0.0.1:7443", Reason.CERT_EXPIRED)
    assert event.raw == "CERTIFICATE_VERIFY_FAILED certificate has expired"
    assert event.certificate
    assert (event.certificate.subject, event.certificate.chain_length) == ("CN=payments", 1)
    assert event.certificate.uri_sans == ("spiffe://example.org/payments",)


def test_what_cannot_be_read_is_counted_all_the_same():
    """A chain of garbage is a chain of that many."""
    event = refused(failed(b"garbage", b"more"), (), NOW)
    assert event.certificate
    assert (event.certificate.subject, event.certificate.chain_length) == ("", 2)
    assert refused(failed(), (), NOW).certificate is None


def test_a_strangers_certificate_cannot_outgrow_an_event():
    """However many and long its names are, the event fits the ledger."""
    dns = [f"{'x' * 60}.{'y' * 60}.{'z' * 60}.w{number}" for number in range(2000)]
    uris = [f"spiffe://example.org/{'u' * 1800}/{number}" for number in range(100)]
    event = refused(
        failed(
            Pki().leaf("n" * 64, dns=dns, san_uris=uris).cert_der,
            server_name="s" * 100_000,
            verify_message="m" * 100_000,
        ),
        (),
        NOW,
    )
    assert len(encode_event(event)) <= MAX_EVENT_BYTES


@given(
    st.text(max_size=30),
    st.integers(-5, 200),
    st.lists(st.binary(max_size=50), max_size=3).map(tuple),
    st.text(max_size=20),
)
def test_whatever_came_is_an_event(text: str, code: int, offered: tuple[bytes, ...], name: str):
    """No handshake ends the server's front."""
    event = refused(failed(*offered, reason_text=text, verify_code=code, server_name=name), offered, NOW)
    assert event.reason in Reason


# How many are recorded


@dataclass
class Recorder:
    """Stands in for the ledger: it keeps events by their id, once each, unless it is away."""

    away: bool = False
    kept: dict[str, HandshakeRefused] = field(default_factory=dict)

    async def append(self, events: Sequence[HandshakeRefused]) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("the database does not answer")
        self.kept |= {event.id: event for event in events}

    @property
    def counted(self) -> int:
        """For how many handshakes it has a row, or is told by one."""
        return sum(1 + event.more for event in self.kept.values())


def recording() -> tuple[FailedHandshakes, Recorder, FakeClock]:
    recorder, clock = Recorder(), FakeClock()
    return FailedHandshakes(cast(SqlLedger, recorder), clock, tuple), recorder, clock


async def test_a_few_are_written_at_once():
    """Each by itself, without waiting for others."""
    made, recorder, _ = recording()
    for number in range(TOLD_A_SECOND):
        made.failed(failed(peer=f"192.0.2.{number}:1"))
    await asyncio.sleep(0.01)
    assert [event.more for event in recorder.kept.values()] == [0] * TOLD_A_SECOND
    assert made._writing is None


async def test_a_stranger_who_fails_all_the_time_fills_no_ledger():
    """Of ten thousand in one second a few rows are kept, and they stand for all."""
    made, recorder, clock = recording()
    for _ in range(10_000):
        made.failed(failed())
        assert len(made._alone) + len(made._shared) <= TOLD_A_SECOND + SHARE
    await asyncio.sleep(0.01)
    await clock.advance(GATHERED_S)
    assert recorder.counted == 10_000
    assert len(recorder.kept) <= TOLD_A_SECOND + SHARE
    assert max(recorder.kept.values(), key=lambda event: event.more).among == "192.0.2.1"


async def test_what_waits_for_a_ledger_that_is_away_is_bounded():
    """However long, and from however many addresses: what does not fit is counted, and nothing is read of it."""
    made, recorder, clock = recording()
    for second in range(60):
        clock.set(START + timedelta(seconds=second))
        for number in range(300):
            made.failed(failed(peer=f"10.{second}.{number // 2}.{number % 2}:1"))
    assert len(made._alone) + len(made._shared) <= MOST_WAITING + 1
    await made.close()
    assert recorder.counted == 60 * 300


async def test_what_was_being_written_at_the_end_is_written_once():
    """A server that stops cuts its writer off, and writes what is left."""
    made, recorder, _ = recording()
    made.failed(failed())
    await asyncio.sleep(0)  # the writer waits for the ledger now
    await made.close()
    assert recorder.counted == 1


async def test_a_ledger_that_is_away_ends_no_recording():
    """What fails afterwards is recorded."""
    made, recorder, _ = recording()
    recorder.away = True
    made.failed(failed())
    await asyncio.sleep(0.01)
    recorder.away = False
    made.failed(failed())
    await asyncio.sleep(0.01)
    assert recorder.counted == 1
