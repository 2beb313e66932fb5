"""What Prometheus reads: handshakes by reason, requests by decision, certificates by state, ages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from handfast.base.events import (
    CertificateIssued,
    CertificateRefused,
    CertificateRevoked,
    ConnectionEnded,
    Event,
    EventsOmitted,
    FindingRaised,
    HandshakeRefused,
)


class Metrics:
    """The server's own registry; nothing global, so that tests can have several."""

    def __init__(self) -> None:
        """Name every metric once."""
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        self._handshakes = counter("handfast_handshakes", "TLS handshakes by outcome", ["gateway", "reason"])
        self._requests = counter("handfast_requests", "Requests decided at gateways", ["gateway", "host", "decision"])
        self._issued = counter("handfast_certificates_issued", "Certificates issued")
        self._refused = counter("handfast_certificates_refused", "Certificates refused", ["reason"])
        self._revoked = counter("handfast_certificates_revoked", "Certificates revoked", ["reason"])
        self._findings = counter("handfast_findings", "Findings raised", ["source", "reason"])
        self._omitted = counter(
            "handfast_events_omitted", "Events of agents that were left out of the record", ["agent"]
        )
        self._certificates = gauge("handfast_certificates", "Certificates by state", ["state"])
        self._soonest = gauge("handfast_certificate_soonest_expiry_seconds", "Unix time of the soonest expiry")
        self._authority = gauge("handfast_authority_expiry_seconds", "Unix time of an authority's end", ["authority"])
        self._agent_seen = gauge("handfast_agent_snapshot_age_seconds", "Since an agent last reported", ["agent"])
        self._agent_current = gauge("handfast_agent_current", "1 when an agent serves the newest slice", ["agent"])

    def count(self, event: Event) -> None:
        """Count what an event tells of."""
        match event:
            case HandshakeRefused():
                self._handshakes.labels(event.gateway, event.reason.value).inc(1 + event.more)
            case ConnectionEnded():
                self._handshakes.labels(event.gateway, "ok").inc()
            case CertificateIssued():
                self._issued.inc()
            case CertificateRefused():
                self._refused.labels(event.reason.value).inc()
            case CertificateRevoked():
                self._revoked.labels(event.crl_reason).inc()
            case EventsOmitted():
                self._omitted.labels(event.agent).inc(event.count)
            case FindingRaised():
                self._findings.labels(event.source, event.reason.value).inc()
            case _:
                pass

    def count_requests(self, gateway: str, host: str, decision: str, count: int) -> None:
        """Count requests by decision: ``allowed``, or the code of the refusal. Labels stay, so they must be few: see `counting`."""
        self._requests.labels(gateway, host, decision).inc(count)

    def forget(self) -> None:
        """Forget agents and authorities, before those that there are now are set: who is gone is not told of."""
        for gauge in (self._authority, self._agent_seen, self._agent_current):
            gauge.clear()

    def set_certificates(self, by_state: dict[str, int], soonest: datetime | None) -> None:
        """Set the inventory's numbers."""
        for state, count in by_state.items():
            self._certificates.labels(state).set(count)
        self._soonest.set(soonest.timestamp() if soonest else 0)

    def set_authority(self, name: str, not_after: datetime) -> None:
        """Set when an authority ends."""
        self._authority.labels(name).set(not_after.timestamp())

    def set_agent(self, name: str, age_s: float, *, current: bool) -> None:
        """Set how fresh an agent is."""
        self._agent_seen.labels(name).set(age_s)
        self._agent_current.labels(name).set(1 if current else 0)

    def text(self) -> bytes:
        """Give Prometheus' text format."""
        return generate_latest(self.registry)
