import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import UTC, datetime

import pytest

from handfast.base import events
from handfast.base.events import KINDS, CertificateIssued, Event, FindingRaised, RequestDenied, RequestReported, kind
from handfast.base.reasons import Reason

FOUND = FindingRaised(id="e1", at=datetime(2026, 1, 1, tzinfo=UTC), source="envoy", reason=Reason.ENVOY_DIED)


def test_a_kind_is_its_name_in_words():
    """``CertificateIssued`` is ``certificate.issued``, for the class and for an event."""
    assert kind(CertificateIssued) == "certificate.issued"
    assert FOUND.kind == "finding.raised"


def test_every_event_has_a_kind_that_is_known():
    """No event of the module is missing from the table, and each kind leads back to its class."""
    classes = {c for c in vars(events).values() if isinstance(c, type) and issubclass(c, Event) and c is not Event}
    assert set(KINDS.values()) == classes
    assert all(kind(cls) == name for name, cls in KINDS.items())


@pytest.mark.parametrize("cls", KINDS.values())
def test_events_are_past_and_frozen(cls: type[Event]):
    """Each is a frozen dataclass of slots, and its name ends in the past tense."""
    assert is_dataclass(cls)
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert re.search(r"(ed|ied)$", cls.__name__)
    assert "__slots__" in vars(cls)


def test_what_happened_does_not_change():
    """An event cannot be altered."""
    with pytest.raises(FrozenInstanceError):
        FOUND.source = "other"  # type: ignore[misc]


def test_no_event_has_room_for_a_key():
    """No field is named like a secret."""
    names = {field.name for cls in KINDS.values() for field in fields(cls)}
    assert not {name for name in names if re.search("key|secret|token|passphrase|password", name)}


def test_a_report_is_told_from_a_denial():
    """The two have the same fields and different kinds."""
    assert kind(RequestReported) == "request.reported"
    assert [field.name for field in fields(RequestReported)] == [field.name for field in fields(RequestDenied)]
