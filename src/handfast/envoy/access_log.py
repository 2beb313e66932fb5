"""Envoy's access log: the rows that we ask for, and what each of them means.

Decides which event a row is. Refuses to know how rows get here, and why a certificate was refused: that is asked of
``explain``. A row's own words decide: a connection whose handshake has no end is a failed one.

A row holds texts that strangers chose. They are cut to 1,024 characters, and nothing in them can be taken for ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import unquote

import msgspec

from handfast.base.events import (
    CertificateDiscovered,
    ConnectionEnded,
    Event,
    HandshakeRefused,
    RequestDenied,
    RequestReported,
)
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.envoy.failures import FailureReport, printable
from handfast.envoy.peer import PEER, briefly, chain_length, identity, offered, text, verified, word

Explain = Callable[[FailureReport, str], Refusal]
"""From a report and the PEM of the leaf that the client sent (or nothing) to the reason, with evidence."""

LONGEST_ROW = 2 * 1024 * 1024
"""A client may send certificates of 100 KiB in all; Envoy writes them escaped, and their names up to three times."""
_LONGEST_PEM = 256 * 1024
_MOST_MS = 366 * 86_400_000
_MOST_COUNT = 2**63 - 1

# What Envoy writes


_ALWAYS = ("fingerprint", "uri_sans")


def _where_unfinished(command: str) -> str:
    """Ask for something where the handshake was never finished; else there is a number, as Envoy stops at what comes first."""
    name = command.strip("%")
    first = '{"command":"COMMON_DURATION","param":"DS_CX_BEG:DS_HS_END:ms"}'
    return f'%COALESCE({{"operators":[{first},{{"command":"{name}"}}]}})%'


# Written for every connection, so where it is a good one it has no more than the ledger lacks: that knows the certificate by its
# fingerprint. Where TLS failed it has all that the client sent, as no ledger of ours may know it.
CONNECTION_FORMAT = {
    **{name: _where_unfinished(command) for name, command in PEER.items() if name not in _ALWAYS},
    **{name: PEER[name] for name in _ALWAYS},
    "pem": _where_unfinished("%DOWNSTREAM_PEER_CERT%"),
    "row": "connection",
    "start": "%START_TIME%",
    "duration_ms": "%DURATION%",
    # Ends with the handshake: absent where it was never finished, whatever else Envoy reports or keeps to itself.
    "handshake_us": "%COMMON_DURATION(DS_CX_BEG:DS_HS_END:us)%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "listener": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "filter_chain": "%FILTER_CHAIN_NAME%",
    "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "details": "%CONNECTION_TERMINATION_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}

REQUEST_FORMAT = {
    "row": "request",
    "start": "%START_TIME%",
    "duration_ms": "%DURATION%",
    "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "filter_chain": "%FILTER_CHAIN_NAME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:PATH)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "code": "%DYNAMIC_METADATA(handfast:code)%",
    "mode": "%DYNAMIC_METADATA(handfast:mode)%",
    "host": "%DYNAMIC_METADATA(handfast:host)%",
    "route": "%DYNAMIC_METADATA(handfast:route)%",
    "revision": "%DYNAMIC_METADATA(handfast:revision)%",
    "identity": "%DYNAMIC_METADATA(handfast:identity)%",
    "new": "%DYNAMIC_METADATA(handfast:new)%",
    **PEER,
}

# What we read


class _Row(msgspec.Struct, kw_only=True):
    """One row of either kind. Envoy writes what is absent as null, and within texts as ``-``."""

    row: Literal["connection", "request"]
    start: datetime
    duration_ms: int | None = None
    handshake_us: int | None = None
    peer: str | None = None
    listener: str | None = None
    server_name: str | None = None
    filter_chain: str | None = None
    failure: str | None = None
    details: str | None = None
    flags: str | None = None
    tls_version: str | None = None
    bytes_received: int | None = None
    bytes_sent: int | None = None
    subject: str | int | None = None
    issuer: str | int | None = None
    serial: str | int | None = None
    fingerprint: str | None = None
    uri_sans: str | None = None
    dns_sans: str | int | None = None
    not_before: str | int | None = None
    not_after: str | int | None = None
    chain_serials: str | int | None = None
    pem: str | int | None = None
    request_id: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    code: str | None = None
    mode: str | None = None
    host: str | None = None
    route: str | None = None
    revision: str | None = None
    identity: str | None = None
    new: str | None = None


_DECODER = msgspec.json.Decoder(_Row)


def read_row(
    line: bytes, *, gateway: str, explain: Explain, event_id: str, partners_at: Container[str] = ()
) -> Event | None:
    """Read one line of the access log.

    Gives `HandshakeRefused`, `ConnectionEnded`, `RequestDenied` or `RequestReported`; `CertificateDiscovered` for the first request that
    a certificate was let in with; None for a request that has nothing to tell. ``partners_at`` are the hosts that trust other authorities, too: what a
    certificate there says of itself is no identity, the access check alone gives one. A request's event has the id that the client got, all others ``event_id``.

    Raises:
        BadInput: it is no row of ours, or larger than 2 MiB.
    """
    row = _decode(line)
    if row.row == "request":
        return _request(row, gateway, event_id, partners_at)
    if row.handshake_us is None:
        return _refused(row, gateway, explain, event_id)
    return _ended(row, gateway, event_id, partners_at)


def _decode(line: bytes) -> _Row:
    if len(line) > LONGEST_ROW:
        raise BadInput(f"the row is larger than {LONGEST_ROW} bytes")
    try:
        row = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"it is no row of the access log: {str(error)[:200]}") from error
    if row.start.tzinfo is None:
        raise BadInput("the row's time has no zone", key="start")
    return row


def _count(value: int | None, most: int = _MOST_COUNT) -> int:
    return min(max(value or 0, 0), most)


def _end(row: _Row) -> datetime:
    try:
        return row.start + timedelta(milliseconds=_count(row.duration_ms, _MOST_MS))
    except OverflowError:
        return row.start


def _flags(row: _Row) -> frozenset[str]:
    return frozenset(flag for flag in text(row.flags).split(",") if flag)


# Connections


def _refused(row: _Row, gateway: str, explain: Explain, event_id: str) -> HandshakeRefused:
    report = FailureReport(
        failure=row.failure if row.failure and row.failure != "-" else "",
        flags=_flags(row),
        details=text(row.details),
        filter_chain=text(row.filter_chain),
        tls_version=text(row.tls_version),
        server_name=text(row.server_name),
        duration_ms=_count(row.duration_ms, _MOST_MS),
        chain_length=chain_length(word(row.chain_serials)),
    )
    pem = unquote((word(row.pem) or "")[:_LONGEST_PEM])
    why = explain(report, pem)
    return HandshakeRefused(
        id=event_id,
        at=_end(row),
        gateway=gateway,
        listener=text(row.listener),
        peer=text(row.peer),
        server_name=report.server_name,
        tls_version=report.tls_version,
        reason=why.reason,
        certificate=offered(row, pem),
        evidence={name: printable(text) for name, text in why.evidence.items()},
        raw=printable(report.failure) or report.details or ",".join(sorted(report.flags)),
    )


def _claimed(row: _Row, partners_at: Container[str]) -> str:
    """Give the identity that a certificate claims, where the authority that vouched for it can only be ours."""
    return "" if text(row.filter_chain) in partners_at else identity(row.uri_sans)


def _ended(row: _Row, gateway: str, event_id: str, partners_at: Container[str]) -> ConnectionEnded:
    return ConnectionEnded(
        id=event_id,
        at=_end(row),
        gateway=gateway,
        listener=text(row.listener),
        host=text(row.filter_chain),
        peer=text(row.peer),
        server_name=text(row.server_name),
        tls_version=text(row.tls_version),
        identity=_claimed(row, partners_at),
        certificate=briefly(row.fingerprint, row.uri_sans),
        duration_ms=_count(row.duration_ms, _MOST_MS),
        bytes_received=_count(row.bytes_received),
        bytes_sent=_count(row.bytes_sent),
    )


# Requests


# What Envoy makes of a service that does not answer: https://www.envoyproxy.io, "Response flags".
UPSTREAM_FLAGS = frozenset({"UF", "UH", "UO", "UC", "UT", "UR", "LR", "URX", "NC", "UPE", "DF", "UMSDR"})
_FROM_SERVICE = "via_upstream"
_REQUEST_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _request(
    row: _Row, gateway: str, event_id: str, partners_at: Container[str]
) -> RequestDenied | CertificateDiscovered | None:
    reason = _why(row)
    if reason is None:
        return _seen(row, gateway, event_id, partners_at) if text(row.new) else None
    kind = RequestReported if text(row.code) and row.mode == "report" else RequestDenied
    return kind(
        id=_request_id(row, event_id),
        at=_end(row),
        gateway=gateway,
        host=text(row.host) or text(row.filter_chain),
        route=text(row.route),
        method=text(row.method),
        path=text(row.path).partition("?")[0],
        peer=text(row.peer),
        status=_count(row.status, 999),
        reason=reason,
        identity=identity(row.identity) or _claimed(row, partners_at),
        revision=text(row.revision),
        certificate=verified(row),
    )


def _seen(row: _Row, gateway: str, event_id: str, partners_at: Container[str]) -> CertificateDiscovered | None:
    certificate = verified(row)
    if certificate is None:
        return None
    return CertificateDiscovered(
        id=_request_id(row, event_id),
        at=_end(row),
        gateway=gateway,
        host=text(row.filter_chain),
        peer=text(row.peer),
        identity=_claimed(row, partners_at),
        certificate=certificate,
    )


def _request_id(row: _Row, event_id: str) -> str:
    """Give the request id where it is one of Envoy's. A client's own would let it choose under which id it is recorded."""
    given = text(row.request_id)
    return given if _REQUEST_ID.fullmatch(given) else event_id


def _why(row: _Row) -> Reason | None:
    """Give the access check's own reason, or what Envoy's refusal amounts to; None where nobody refused."""
    if code := text(row.code):
        return _known_code(code)
    status, flags = _count(row.status), _flags(row)
    if 0 < status < 400 or text(row.details) == _FROM_SERVICE:
        return None
    if flags & UPSTREAM_FLAGS:
        return Reason.UPSTREAM_UNAVAILABLE
    if status == 0:
        return Reason.REQUEST_REJECTED if "DPE" in flags else None
    return _local_refusal(status, flags)


def _known_code(code: str) -> Reason:
    try:
        return Reason(code)
    except ValueError:
        # A code that is not ours: the program in Envoy and this reader do not belong together.
        return Reason.GATEWAY_FAULT


def _local_refusal(status: int, flags: frozenset[str]) -> Reason:
    if "NR" in flags or status == 404:
        return Reason.REQUEST_NO_ROUTE
    if status == 421:
        return Reason.REQUEST_MISDIRECTED
    return Reason.REQUEST_REJECTED if status < 500 else Reason.GATEWAY_FAULT
