"""Many failed handshakes at once: which of their rows are told in full, and how many others each of these stands for.

Decides by the second in which a handshake failed. The first rows of a second are told, whoever they are from. After that, of the
rows that are read at once those of one place are one: of one address and one reason. Refuses to read certificates: to know what
a chain lacks costs a hundred times what this does, and is asked for the rows that are told. The reason is the one that Envoy's
words have by themselves.

The laws of this file: no row is lost, each is told or counted by one that is. What is told in a second is bounded, however many
fail. Nobody who fails often takes another's place: an address that has had its share has that of its network, then that of the
reason alone; only when a hundred networks fail in one second do later ones share that from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

import msgspec

from handfast.base.events import Event, HandshakeRefused
from handfast.base.reasons import Reason
from handfast.envoy.failures import FailureReport, recognise

TOLD_A_SECOND = 50
MOST_PLACES = 100
"""Of addresses, and of networks."""
SHARE = 4
"""How many rows of one place are told in a second: logs are read several times in one."""
ANYWHERE = "anywhere"
_STEPPED_S = 5
_MOST_MS = 366 * 86_400_000
_UNFINISHED = b'"handshake_us":null'  # Envoy writes this key alone so; in a text of a stranger's its quotes are escaped


class Told(NamedTuple):
    """A row to read in full. ``more`` is how many others it stands for, and ``among`` where they are from."""

    line: bytes
    more: int = 0
    among: str = ""


class _Row(msgspec.Struct):
    """What tells failed handshakes apart without a look at their certificates."""

    start: datetime
    duration_ms: int | None = None
    peer: str | None = None
    failure: str | None = None
    details: str | None = None
    flags: str | None = None
    tls_version: str | None = None


_DECODER = msgspec.json.Decoder(_Row)
Place = tuple[str, Reason]
"""Where a failure is from, an address, a network or `ANYWHERE`, and why it failed."""


@dataclass(slots=True)
class _Second:
    """What was told in one second: rows in all, and rows for each place."""

    number: int = 0
    told: int = 0
    addresses: dict[Place, int] = field(default_factory=dict)
    networks: dict[Place, int] = field(default_factory=dict)


class Shares:
    """Who was told how often in one second. Whoever records failed handshakes has one."""

    def __init__(self) -> None:
        """Begin with a quiet second."""
        self._second = _Second()

    def place(self, second: int, peer: str, reason: Callable[[], Reason], first: Container[Place]) -> Place | None:
        """Give the place that a failure shares, which is in ``first`` where one of it is told already; None where it stands for itself.

        ``second`` is when it failed, since 1970; ``peer`` is ``address:port``. The ``reason`` is asked for only where it counts.
        """
        # What several workers tell overlaps; a clock that was set back begins anew.
        if not 0 <= self._second.number - second <= _STEPPED_S:
            self._second = _Second(second)
        shares = self._second
        if shares.told < TOLD_A_SECOND:
            shares.told += 1
            return None
        why = reason()
        for origin, given in zip(_origins(peer), (shares.addresses, shares.networks), strict=True):
            place = (origin, why)
            if place in first or _given(given, place):
                return place
        return ANYWHERE, why


class Flood:
    """Thins out the rows of one gateway, in the order of its log."""

    def __init__(self) -> None:
        """Begin with a quiet second."""
        self._shares = Shares()

    def thin(self, lines: Iterable[bytes]) -> list[Told]:
        """Give the rows to read, in order; all that are no failed handshake are among them. What is counted, is so by this call."""
        told, first = list[Told](), dict[Place, int]()
        for line in lines:
            row = _failed(line)
            place = self._place(row, first) if row else None
            if place in first:
                one = told[first[place]]
                told[first[place]] = Told(one.line, one.more + 1, place[0])
                continue
            if place:
                first[place] = len(told)
            told.append(Told(line))
        return told

    def _place(self, row: _Row, first: Container[Place]) -> Place | None:
        second = int(row.start.timestamp() + _duration(row) / 1000)
        return self._shares.place(second, row.peer or "", lambda: _reason(row), first)


def counted(event: Event, told: Told) -> Event:
    """Write into the event of a row how many others it stands for."""
    if told.more and isinstance(event, HandshakeRefused):
        return replace(event, more=told.more, among=told.among)
    return event


def _given(shares: dict[Place, int], place: Place) -> bool:
    """Give a place one more row to tell, where it has not had its share and there are not too many places."""
    had = shares.get(place, 0)
    if had >= SHARE or (not had and len(shares) >= MOST_PLACES):
        return False
    shares[place] = had + 1
    return True


def _failed(line: bytes) -> _Row | None:
    """Read a row of a failed handshake; None for all others, and for what is no row."""
    if _UNFINISHED not in line:
        return None
    try:
        row = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if row.start.tzinfo is None else row


def _reason(row: _Row) -> Reason:
    return recognise(
        FailureReport(
            failure="" if row.failure in {None, "-"} else row.failure or "",
            flags=frozenset(flag for flag in (row.flags or "").split(",") if flag not in {"", "-"}),
            details="" if row.details in {None, "-"} else row.details or "",
            tls_version="" if row.tls_version in {None, "-"} else row.tls_version or "",
            duration_ms=_duration(row),
        )
    )


def _duration(row: _Row) -> int:
    return min(max(row.duration_ms or 0, 0), _MOST_MS)


def _origins(peer: str) -> tuple[str, str]:
    """Give the address and its network: of IPv6 a /64, as one host has it whole, and a /48; of IPv4 the address and a /24."""
    host = peer.rpartition(":")[0].strip("[]")
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return ANYWHERE, ANYWHERE
    match address:
        case IPv4Address():
            return str(address), _network(address, 24)
        case IPv6Address():
            return _network(address, 64), _network(address, 48)


def _network(address: IPv4Address | IPv6Address, bits: int) -> str:
    return str(ip_network(f"{address}/{bits}", strict=False))
