from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest

from handfast.base.events import KINDS, AgentJoined, Event, HandshakeRefused, OfferedCertificate
from handfast.base.reasons import Reason
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.io.native import Shape, native, shape_of
from handfast.io.records import CertificateState

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ELSEWHERE = datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))
NAIVE = NOON.replace(tzinfo=None)


@dataclasses.dataclass(frozen=True)
class Plain:
    """What both spell alike."""

    text: str
    number: int | None
    yes: bool
    state: CertificateState
    names: tuple[str, ...]
    evidence: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Identified:
    """What only we spell as one text."""

    identity: SpiffeId


@dataclasses.dataclass(frozen=True)
class Maybe:
    """The same, within another and possibly absent."""

    inner: Identified | None


@dataclasses.dataclass(frozen=True)
class Times:
    """Times that nobody would look at."""

    all: tuple[datetime, ...]


@dataclasses.dataclass(frozen=True)
class Several:
    """Dataclasses that nobody would look into."""

    all: tuple[OfferedCertificate, ...]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_event_can_be_written_the_short_way(kind: type[Event]):
    """One that cannot costs ten times as much, which nobody would see otherwise."""
    assert shape_of(kind) is not None


def test_times_and_parts_are_found():
    """Wherever they stand, also where they may be absent."""
    assert shape_of(OfferedCertificate) == Shape(times=("not_before", "not_after"), parts=())
    assert shape_of(HandshakeRefused) == Shape(times=("at",), parts=("certificate",))
    assert shape_of(Plain) == Shape((), ())


@pytest.mark.parametrize("kind", [Identified, Maybe, Times, Several, TrustDomain, str, CertificateState])
def test_what_the_library_would_spell_otherwise_has_no_shape(kind: type):
    """Our own words are texts here and objects there; times and parts in a row are not looked at one by one."""
    assert shape_of(kind) is None


def test_a_part_that_is_absent_does_not_make_its_class_native():
    """The next value may have it."""
    assert not native(Maybe(None))


@pytest.mark.parametrize(("at", "short"), [(NOON, True), (ELSEWHERE, False), (NAIVE, False)])
def test_times_go_the_short_way_in_utc_alone(at: datetime, short: bool):
    """The library would keep another zone, and pass over one that is missing."""
    assert native(AgentJoined(id="a", at=at, agent="w", serial="1")) is short


@pytest.mark.parametrize(("ends", "short"), [(NOON, True), (None, True), (ELSEWHERE, False), (NAIVE, False)])
def test_times_within_count_as_well(ends: datetime | None, short: bool):
    """Those of a certificate that was offered."""
    seen = OfferedCertificate(not_after=ends)
    event = HandshakeRefused(
        id="a", at=NOON, gateway="g", listener="l", peer="p", reason=Reason.REVOKED, certificate=seen
    )
    assert native(event) is short
