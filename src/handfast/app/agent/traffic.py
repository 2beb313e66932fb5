"""From Envoy's counters to how many requests of each kind there were since the last look."""

from __future__ import annotations

import re

from handfast.app.server.messages import TrafficRow

METRIC = "handfast_requests"
_LINE = re.compile(rf"^(?:envoy_)?{METRIC}{{(.*)}} (\d+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
MOST_LINES = 100_000
MOST_ROWS = 1000

Kind = tuple[str, str, str, str, str]
"""Host, route, identity, method, code; the code of an allowed request is empty."""


def read_counts(text: str) -> dict[Kind, int]:
    """Read Prometheus' text format; lines of other metrics are passed over."""
    counts: dict[Kind, int] = {}
    for line in text.splitlines()[:MOST_LINES]:
        if match := _LINE.match(line):
            labels = {name: _plain(value) for name, value in _LABEL.findall(match[1])}
            host, slash, path = labels.get("route", "").partition("/")
            kind = (host, slash + path, labels.get("identity", ""), labels.get("method", ""), labels.get("code", ""))
            counts[kind] = counts.get(kind, 0) + int(match[2])
    return counts


def _plain(value: str) -> str:
    text = value.replace(r"\"", '"').replace(r"\\", "\\")
    return "" if text == "-" else text[:1024]


def grown(
    before: dict[Kind, int], now: dict[Kind, int], most: int = MOST_ROWS
) -> tuple[list[TrafficRow], dict[Kind, int]]:
    """Give what was added, ``most`` rows of it, and the counts that were told with them: the next ``before``.

    A count that shrank begins anew, as Envoy was started again.
    """
    rows, told = list[TrafficRow](), dict[Kind, int]()
    for kind, count in now.items():
        known = before.get(kind, 0)
        row = _row(kind, count - known if count >= known else count)
        if row and len(rows) == most:
            told[kind] = known if count >= known else 0
            continue
        told[kind] = count
        rows += [row] if row else []
    return rows, told


def _row(kind: Kind, count: int) -> TrafficRow | None:
    host, route, identity, method, code = kind
    if not (count and route and host):
        return None
    return TrafficRow(host=host, route=route, identity=identity, method=method[:64], code=code[:64], count=count)
