"""What agents count, under names that this server knows.

Decides which host, route, method and code a count is kept for: one that the world or a standard has, and else ``other``. A label of
a metric stays for as long as the server runs, so a gateway that somebody else controls must not be able to make one up.
"""

from __future__ import annotations

from collections.abc import Mapping

from handfast.access.policy import Host
from handfast.app.server.messages import TrafficRow
from handfast.base.reasons import Reason
from handfast.envoy.loggers import OTHER_METHOD, STANDARD_METHODS
from handfast.io.ledger import TrafficCount

OTHER = "other"
ALLOWED = "allowed"
_METHODS = frozenset({*STANDARD_METHODS, OTHER_METHOD})
_CODES = frozenset({ALLOWED, *(reason.value for reason in Reason)})


def counted(row: TrafficRow, hosts: Mapping[str, Host]) -> TrafficCount:
    """Give the count of a row; what it names and the world's ``hosts`` do not is ``other``. Of a host that is, nothing else counts."""
    decision = _known(row.code or ALLOWED, _CODES)
    host = hosts.get(row.host)
    if host is None:
        return TrafficCount(host=OTHER, route="", identity="", method="", decision=decision, count=row.count)
    return TrafficCount(
        host=host.name,
        route=_known(row.route, {route.path for route in host.routes}),
        identity=row.identity,
        method=_known(row.method, _METHODS),
        decision=decision,
        count=row.count,
    )


def _known(name: str, names: frozenset[str] | set[str]) -> str:
    return name if name in names else OTHER
