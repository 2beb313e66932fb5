"""Which of Envoy's loggers stand where: a row for each connection, for each request that was refused, and counters for the rest.

Decides what is worth a row. Refuses to know what a row says: that is ``access_log``.
"""

from __future__ import annotations

from collections.abc import Mapping

from handfast.envoy import types
from handfast.envoy.access_log import CONNECTION_FORMAT, REQUEST_FORMAT
from handfast.envoy.types import Resource

STANDARD_METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),
)
OTHER_METHOD = "other"
_COMMON_METHODS = ("GET", "POST", "HEAD")
_ANY_METHOD = "|".join(STANDARD_METHODS)
_OWN_IDENTITY = "%DOWNSTREAM_PEER_URI_SAN%"


def connection_logs(path: str) -> list[Resource]:
    """Give the logger of a listener, which writes to the file at ``path``."""
    return [_file_log(path, CONNECTION_FORMAT)]


def request_logs(path: str, *, partners: bool = False) -> list[Resource]:
    """Give the loggers of a host's requests: those that nobody refused are counted alone, but for a certificate's first.

    ``partners``: clients of other authorities come too. The access check says who they are, as their certificates do not.
    """
    if not partners:
        return [*_traffic_logs(), _file_log(path, REQUEST_FORMAT, _refused())]
    # Without the names in the certificate: where a partner's has no identity, a record would take it from them.
    told = {key: value for key, value in REQUEST_FORMAT.items() if key != "uri_sans"}
    return [*_partners_traffic_logs(), _file_log(path, told, _refused())]


def _file_log(path: str, json_format: Mapping[str, str], log_filter: Resource | None = None) -> Resource:
    log: Resource = {
        "name": "file",
        "typed_config": {
            "@type": types.FILE_LOG,
            "path": path,
            "log_format": {"json_format": dict(json_format)},
        },
    }
    return {**log, "filter": log_filter} if log_filter else log


def _cel(expression: str) -> Resource:
    return {"extension_filter": {"name": "cel", "typed_config": {"@type": types.CEL_FILTER, "expression": expression}}}


def _refused() -> Resource:
    """Match requests that the access check had a word on, those that Envoy could not serve, and the first of a certificate."""
    noted = [_noted("code"), _noted("new")]
    flags = {"response_flag_filter": {"flags": ["UF", "UH", "UC", "NC", "UT", "URX", "UPE", "DPE", "NR", "DI"]}}
    # Both must match, the cheap one first: the expression would cost each request 7 µs of the 40 that we add to it.
    unserved = {"and_filter": {"filters": [_at_least(400), _cel("!has(upstream.address)")]}}
    return {"or_filter": {"filters": [*noted, flags, unserved]}}


def _noted(key: str, *, absent: bool = False) -> Resource:
    """Match requests of which the access check noted something, or ``absent``: of which it did not."""
    # Envoy does not look at 'invert' here: a text is never null, so what is noted does not match, and only what is absent does.
    value: Resource = {"null_match": {}} if absent else {"present_match": True}
    matcher = {"filter": "handfast", "path": [{"key": key}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": absent}}


def _at_least(status: int) -> Resource:
    """Match responses of this status and above; a request without a response counts as 0."""
    value = {"default_value": status, "runtime_key": f"handfast.log.{status}"}
    return {"status_code_filter": {"comparison": {"op": "GE", "value": value}}}


def _traffic_logs() -> list[Resource]:
    """Count requests by route, identity, method and verdict in Envoy itself, which costs next to nothing a request.

    A client chooses the method, and Envoy keeps a counter for ever: methods of no standard are counted as one.
    """
    return [_stats_log(method, known) for method, known in _methods()]


def _methods() -> tuple[tuple[str, Resource], ...]:
    # The commonest are compared first: the expression is code that a new connection would wait for, twice.
    wanted = [*({"exact": name} for name in _COMMON_METHODS), {"safe_regex": {"regex": _ANY_METHOD}}]
    known: list[Resource] = [{"name": ":method", "string_match": one} for one in wanted]
    others = [{**one, "invert_match": True} for one in known]
    return (
        ("%REQ(:METHOD)%", {"or_filter": {"filters": [{"header_filter": {"header": one}} for one in known]}}),
        (OTHER_METHOD, {"and_filter": {"filters": [{"header_filter": {"header": one}} for one in others]}}),
    )


def _partners_traffic_logs() -> list[Resource]:
    """Count clients of other authorities under the names that they were given, and all others as everywhere."""
    return [
        _narrowed(_stats_log(method, known, identity), _noted("vouched", absent=absent))
        for identity, absent in ((_OWN_IDENTITY, True), ("%DYNAMIC_METADATA(handfast:vouched)%", False))
        for method, known in _methods()
    ]


def _narrowed(log: Resource, further: Resource) -> Resource:
    return {**log, "filter": {"and_filter": {"filters": [log["filter"], further]}}}


def _stats_log(method: str, log_filter: Resource, identity: str = _OWN_IDENTITY) -> Resource:
    tags = {
        "route": "%ROUTE_NAME%",
        "identity": identity,
        "method": method,
        "code": "%DYNAMIC_METADATA(handfast:code)%",
    }
    stat = {"name": "requests", "tags": [{"name": name, "value_format": value} for name, value in tags.items()]}
    return {
        "name": "stats",
        "filter": log_filter,
        "typed_config": {
            "@type": types.STATS_LOG,
            "stat_prefix": "handfast",
            "counters": [{"stat": stat, "value_fixed": 1}],
        },
    }
