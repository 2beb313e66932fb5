"""An event as a story for people: what happened, who has to act, what to do.

Decides the words and their order. The facts are the event's, the meaning of a reason is that of `handfast.base.reasons`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime

from handfast.base.events import (
    CertificateDiscovered,
    ConnectionEnded,
    Event,
    HandshakeRefused,
    OfferedCertificate,
    RequestDenied,
    RequestReported,
)
from handfast.base.reasons import Reason


def story(event: Event) -> list[str]:
    """Give the lines of an event's story."""
    return [line for line in _lines(event) if line]


def _lines(event: Event) -> Iterator[str]:
    yield f"{event.at:%Y-%m-%d %H:%M:%S} UTC  {event.kind}  {event.id}"
    match event:
        case HandshakeRefused():
            yield from _reason(event.reason)
            yield _row("gateway", f"{event.gateway}, listener {event.listener}")
            yield _row("client", event.peer)
            yield _row("server name", event.server_name or "none")
            yield _row("TLS", event.tls_version)
            yield from _certificate(event.certificate)
            yield from _evidence(event.evidence)
            yield _row("reported", event.raw)
            yield _row("and", f"{event.more:,} more like it, from {event.among}" if event.more else "")
        case RequestDenied():
            yield from _reason(event.reason)
            if isinstance(event, RequestReported):
                yield _row("mode", "report: it was let pass")
            yield _row("request", f"{event.method} {event.path} on {event.host or 'no host'}, answered {event.status}")
            yield _row("route", event.route or "none")
            yield _row("client", event.peer)
            yield _row("identity", event.identity or "none")
            yield from _certificate(event.certificate)
            yield _row("gateway", event.gateway)
            yield _row("revision", event.revision)
        case CertificateDiscovered():
            yield _row("gateway", f"{event.gateway}, host {event.host}")
            yield _row("client", event.peer)
            yield _row("identity", event.identity or "none")
            yield from _certificate(event.certificate)
        case ConnectionEnded():
            yield _row("gateway", f"{event.gateway}, listener {event.listener}")
            yield _row("client", event.peer)
            yield _row("identity", event.identity or "none")
            yield from _certificate(event.certificate)
        case _:
            yield from _fields(event)


def _fields(event: Event) -> Iterator[str]:
    """Tell of an event of no special kind, in the order of its fields."""
    for field in fields(event)[len(fields(Event)) :]:
        match getattr(event, field.name):
            case Reason() as reason:
                yield from _reason(reason)
            case Mapping() as evidence:
                yield from _evidence(evidence)
            case tuple() as names:
                yield _row(field.name, ", ".join(names))
            case datetime() as moment:
                yield _row(field.name.replace("_", " "), f"{moment:%Y-%m-%d %H:%M:%S} UTC")
            case value:
                yield _row(field.name.replace("_", " "), str(value))


def _reason(reason: Reason) -> Iterator[str]:
    yield _row("reason", f"{reason.value}: {reason.summary}")
    yield _row("at fault", reason.side.value)
    yield _row("to do", reason.further)


def _certificate(certificate: OfferedCertificate | None) -> Iterator[str]:
    if certificate is None:
        return
    if not certificate.issuer:  # only named: the inventory has the rest
        yield _row("certificate", f"see 'handfast cert show {certificate.fingerprint}'")
        yield _row("  names", ", ".join(certificate.uri_sans))
        return
    yield _row("certificate", certificate.subject or "no subject")
    yield _row("  names", ", ".join((*certificate.uri_sans, *certificate.dns_sans)) or "none")
    yield _row("  issuer", certificate.issuer)
    yield _row("  serial", certificate.serial)
    yield _row("  sha256", certificate.fingerprint)
    if certificate.not_before and certificate.not_after:
        yield _row(
            "  valid", f"{certificate.not_before:%Y-%m-%d %H:%M:%S} to {certificate.not_after:%Y-%m-%d %H:%M:%S} UTC"
        )
    if certificate.chain_length:
        yield _row("  sent", f"{certificate.chain_length} certificate{'s' if certificate.chain_length > 1 else ''}")


def _evidence(evidence: Mapping[str, object]) -> Iterator[str]:
    for name, value in evidence.items():
        yield _row(name, str(value))


def _row(name: str, value: str) -> str:
    return f"  {name + ':':<13} {escaped(value)}" if value else ""


def escaped(text: str) -> str:
    """Spell out line ends and control characters: names come from strangers, and must move no terminal's cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
