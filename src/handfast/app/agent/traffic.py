"""From Envoy's counters to how many requests of each kind there were since the last look."""

from __future__ import annotations

import re
from collections.abc import Iterable

from handfast.app.server.messages import TrafficRow

METRIC = "handfast_requests"
_LINE = re.compile(rf"^(?:envoy_)?{METRIC}{{(.*)}} (\d+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
MOST_LINES = 100_000

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


def grown(before: dict[Kind, int], now: dict[Kind, int]) -> list[TrafficRow]:
    """Give what was added; a count that shrank begins anew, as Envoy was started again."""
    return list(_rows((kind, n - before.get(kind, 0) if n >= before.get(kind, 0) else n) for kind, n in now.items()))


def _rows(counted: Iterable[tuple[Kind, int]]) -> Iterable[TrafficRow]:
    for (host, route, identity, method, code), count in counted:
        if count and route and host:
            yield TrafficRow(host=host, route=route, identity=identity, method=method[:64], code=code[:64], count=count)
