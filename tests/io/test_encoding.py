import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.events import KINDS, AgentJoined, Event, HandshakeRefused, OfferedCertificate
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.io.encoding import (
    MAX_EVENT_BYTES,
    decode,
    decode_event,
    encode,
    encode_event,
    event_from_plain,
    from_plain,
    to_plain,
)
from handfast.io.records import CertificateRecord, CertificateState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9990, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds it
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Give values of a field's type."""
    simple = {str: TEXT, int: st.integers(-(2**53), 2**53), datetime: TIMES, type(None): st.none()}
    if hint in simple:
        return simple[hint]
    if get_origin(hint) is tuple:
        return st.lists(of_hint(get_args(hint)[0]), max_size=3).map(tuple)
    if get_origin(hint) in {dict, Mapping}:
        return st.dictionaries(TEXT, of_hint(get_args(hint)[1]), max_size=3)
    if get_args(hint):
        return st.one_of(*(of_hint(choice) for choice in get_args(hint)))
    return st.sampled_from(hint) if issubclass(hint, Enum) else of_class(hint)


def of_class(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Give values of a dataclass."""
    fields = {name: of_hint(hint) for name, hint in get_type_hints(kind).items()}
    if issubclass(kind, Event):
        fields["id"] = st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True)
    return st.builds(kind, **fields)


EVENTS = st.one_of(*(of_class(kind) for kind in KINDS.values()))


@dataclasses.dataclass(frozen=True)
class Everything:
    """A value with every shape that can be written."""

    identity: SpiffeId
    domain: TrustDomain
    at: datetime
    raw: bytes
    state: CertificateState
    inner: OfferedCertificate | None
    names: tuple[str, ...]
    seen: Mapping[str, SpiffeId]
    either: CertificateState | tuple[SpiffeId, ...] = ()


EVERYTHING = Everything(
    identity=SpiffeId.parse("spiffe://example.org/payments"),
    domain=TrustDomain("example.org"),
    at=NOON,
    raw=b"\x00\xff",
    state=CertificateState.ISSUED,
    inner=OfferedCertificate(subject="CN=x", not_after=NOON),
    names=("a", "b"),
    seen={"x": SpiffeId.parse("spiffe://example.org/ledger")},
    either=(SpiffeId.parse("spiffe://example.org/a"),),
)


@given(EVENTS)
def test_every_event_comes_back(event: Event):
    """What was written is read back equal, whatever its kind."""
    assert decode_event(encode_event(event)) == event


@given(EVENTS)
def test_an_event_is_one_line_that_begins_with_its_kind(event: Event):
    """Any JSON reader finds the kind, and a log of events has one a line."""
    raw = encode_event(event)
    assert next(iter(json.loads(raw).items())) == ("kind", event.kind)
    assert b"\n" not in raw


@given(EVENTS)
def test_the_short_way_is_the_long_one(event: Event):
    """What the library writes and reads of an event by itself is what is put together field by field, to the byte."""
    raw = encode(event)
    assert encode_event(event) == raw
    assert decode_event(raw) == event_from_plain(decode(raw))


@pytest.mark.parametrize("at", ["2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00+00:00"])
def test_an_events_time_is_in_utc_however_it_was_sent(at: str):
    """Agents may write another zone; what is kept has one."""
    read = decode_event(f'{{"kind":"agent.joined","id":"a","at":"{at}","agent":"w","serial":"0a"}}'.encode())
    assert (read.at, read.at.tzinfo) == (NOON, UTC)
    assert b'"at":"2026-01-31T12:00:00Z"' in encode_event(read)


@pytest.mark.parametrize("at", [NOON.replace(tzinfo=None), datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))])
def test_an_event_at_no_time_is_not_written(at: datetime):
    """Nobody could read it back."""
    with pytest.raises(BadInput, match="time"):
        encode_event(AgentJoined(id="a", at=at, agent="w", serial="0a"))


def test_the_spelling_of_an_event_stays():
    """The wire form is what agents and logs of other versions rely on."""
    event = AgentJoined(id="e1", at=NOON, agent="web-1", serial="0a")
    assert encode_event(event) == (
        b'{"kind":"agent.joined","id":"e1","at":"2026-01-31T12:00:00Z","agent":"web-1","serial":"0a","grant":"","again":false}'
    )


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes):
    """Garbage raises `BadInput` and nothing else."""
    with pytest.raises(BadInput):
        decode_event(raw)


@given(EVENTS, st.data())
def test_a_spoilt_event_is_read_or_refused(event: Event, data: st.DataObject):
    """Any JSON in any field is refused, or read as something that can be kept and read again."""
    plain = to_plain(event)
    spoilt = data.draw(st.sampled_from(sorted(plain)))
    plain[spoilt] = data.draw(JSON)
    try:
        found = decode_event(json.dumps(plain).encode())
    except BadInput:
        return
    assert decode_event(encode_event(found)) == found


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"kind":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"kind":"agent.joined","id":"a","at":"2026-01-31T12:00:00","agent":"w","serial":"0a"}',
        b'{"kind":"agent.joined","id":"a","at":"0001-01-01T00:00:00+14:00","agent":"w","serial":"0a"}',
        b'{"kind":"agent.joined","id":"a b","at":"2026-01-31T12:00:00Z","agent":"w","serial":"0a"}',
        b'{"kind":"agent.joined","id":"","at":"2026-01-31T12:00:00Z","agent":"w","serial":"0a"}',
        b'{"kind":"agent.joined","id":"a","at":"2026-01-31T12:00:00Z","agent":"w"}',
        b'{"kind":"agent.joined","id":"a","at":"2026-01-31T12:00:00Z","agent":1,"serial":"0a"}',
        b'{"kind":"agent.left","id":"a","at":"2026-01-31T12:00:00Z"}',
        b'{"kind":{"a":1}}',
        b'{"id":"a"}',
        b'"agent.joined"',
        b"null",
    ],
    ids=lambda raw: raw[-40:].decode(),
)
def test_what_is_no_event_is_refused(raw: bytes):
    """No zone, no time, no id, a missing or wrong field, an unknown kind, and endless nesting are `BadInput`."""
    with pytest.raises(BadInput):
        decode_event(raw)


def test_a_long_event_is_refused_both_ways():
    """Nobody can fill the ledger with one event, and what was kept can always be read."""
    event = AgentJoined(id="a", at=NOON, agent="x" * MAX_EVENT_BYTES, serial="0a")
    with pytest.raises(BadInput, match="longer"):
        encode_event(event)
    with pytest.raises(BadInput, match="longer"):
        decode_event(encode(event))


def test_an_event_that_could_not_be_read_back_is_not_written():
    """A bad id, a time without a zone, and half a surrogate pair are refused while writing."""
    good = AgentJoined(id="a", at=NOON, agent="w", serial="0a")
    for bad in ({"id": "a b"}, {"at": NOON.replace(tzinfo=None)}, {"agent": "\ud800"}):
        with pytest.raises(BadInput):
            encode_event(dataclasses.replace(good, **bad))


def test_an_error_names_its_key():
    """`BadInput` says where in a nested value the fault is."""
    plain = to_plain(
        HandshakeRefused(
            id="a",
            at=NOON,
            gateway="g",
            listener="l",
            peer="192.0.2.1:1",
            reason=Reason.CERT_EXPIRED,
            certificate=OfferedCertificate(),
        )
    )
    plain["certificate"]["chain_length"] = "three"
    with pytest.raises(BadInput) as caught:
        event_from_plain(plain)
    assert caught.value.key == "certificate.chain_length"


def test_unknown_keys_are_passed_over():
    """An older reader understands what a newer writer added."""
    plain = {**to_plain(AgentJoined(id="a", at=NOON, agent="w", serial="0a")), "mood": "fine"}
    assert event_from_plain(plain) == AgentJoined(id="a", at=NOON, agent="w", serial="0a")


def test_times_are_utc_on_both_sides():
    """Whatever zone a time was in, it is written and read as UTC."""
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert to_plain(elsewhere) == "2026-01-31T12:00:00Z"
    assert from_plain(datetime, "2026-01-31T17:30:00+05:30").tzinfo is UTC


def test_every_shape_comes_back():
    """Ids are their text, bytes are base64, and all of it reads back equal through JSON."""
    plain = json.loads(encode(EVERYTHING))
    assert plain["identity"] == "spiffe://example.org/payments"
    assert plain["domain"] == "example.org"
    assert plain["seen"] == {"x": "spiffe://example.org/ledger"}
    assert from_plain(Everything, plain) == EVERYTHING
    assert from_plain(Everything, {**plain, "either": "failed"}).either is CertificateState.FAILED


@pytest.mark.parametrize("key", ["identity", "domain", "at", "raw", "state", "inner", "names", "seen", "either"])
def test_every_shape_refuses_another(key: str):
    """A number is none of them."""
    with pytest.raises(BadInput) as caught:
        from_plain(Everything, {**to_plain(EVERYTHING), key: 17})
    assert caught.value.key == key


def test_a_certificate_record_comes_back():
    """The inventory's rows have a JSON form."""
    record = CertificateRecord(
        serial="0a",
        issuer="CN=i",
        identity="spiffe://example.org/a",
        name="a",
        dns=("a.internal",),
        not_before=NOON,
        not_after=NOON + timedelta(days=1),
        requester="test",
        der=b"der",
        recorded_at=NOON,
    )
    assert from_plain(CertificateRecord, json.loads(encode(record))) == record
