from dataclasses import replace
from datetime import timedelta

import pytest

from handfast.app.server.metrics import Metrics
from handfast.base.events import KINDS, CertificateRefused, ConnectionEnded, Event, FindingRaised, HandshakeRefused
from tests.doctor.test_report import EVENTS
from tests.support.clock import START


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_every_event_can_be_counted(event: Event):
    """A kind that no counter has is passed over, and none is an error."""
    Metrics().count(event)
    assert event.kind in KINDS


def test_failed_and_good_handshakes_are_one_metric():
    """So that a rate of failures is one division."""
    metrics = Metrics()
    for event in EVENTS:
        if isinstance(event, HandshakeRefused | ConnectionEnded | CertificateRefused | FindingRaised):
            metrics.count(event)
    text = metrics.text().decode()
    for line in (
        'handfast_handshakes_total{gateway="edge",reason="ok"} 1.0',
        'handfast_handshakes_total{gateway="edge",reason="chain.missing-intermediate"} 1.0',
        'handfast_certificates_refused_total{reason="issuance.too-long"} 1.0',
        'handfast_findings_total{reason="envoy.rejected",source="edge"} 1.0',
    ):
        assert line in text


def test_those_without_a_record_of_their_own_are_counted():
    """A record of a flood counts for all that it stands for."""
    metrics = Metrics()
    refused = next(event for event in EVENTS if isinstance(event, HandshakeRefused))
    metrics.count(replace(refused, more=4211, among="192.0.2.1"))
    assert f'handfast_handshakes_total{{gateway="edge",reason="{refused.reason}"}} 4212.0' in metrics.text().decode()


def test_gauges_say_what_was_set_last():
    """Expiry as Unix time, ages in seconds."""
    metrics = Metrics()
    for days in (1, 2):
        metrics.set_authority("root", START + timedelta(days=days))
        metrics.set_certificates({"issued": days}, START + timedelta(days=days))
        metrics.set_agent("edge", days, current=days == 2)
    text = metrics.text().decode()
    assert 'handfast_certificates{state="issued"} 2.0' in text
    assert 'handfast_agent_current{agent="edge"} 1.0' in text
    value = text.split('handfast_authority_expiry_seconds{authority="root"} ')[1].split("\n")[0]
    assert float(value) == pytest.approx((START + timedelta(days=2)).timestamp())
    metrics.set_certificates({}, None)
    assert "handfast_certificate_soonest_expiry_seconds 0.0" in metrics.text().decode()


def test_who_is_gone_is_not_told_of():
    """An agent that was forgotten, and an authority that was retired, have no line any more; counters stay."""
    metrics = Metrics()
    metrics.count_requests("edge", "h", "allowed", 3)
    metrics.set_authority("issuing 1", START)
    metrics.set_agent("edge", 1, current=True)
    metrics.forget()
    metrics.set_agent("other", 1, current=True)
    text = metrics.text().decode()
    assert 'agent="other"' in text
    assert 'agent="edge"' not in text
    assert "issuing 1" not in text
    assert 'gateway="edge"' in text


def test_two_servers_in_one_process_do_not_share_counters():
    """Nothing is global."""
    one, other = Metrics(), Metrics()
    one.count_requests("edge", "h", "allowed", 3)
    assert "edge" in one.text().decode()
    assert "edge" not in other.text().decode()
