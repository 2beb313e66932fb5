"""What clients read when Envoy itself answers: a problem document (RFC 9457) with a code and a request id, and nothing else.

The request id of a malformed request is null: Envoy answers before it gives one. Envoy's own words, which name hosts, causes
and TLS details, stay in the operator's record.
"""

from __future__ import annotations

from handfast.base.reasons import Reason

_CONTENT_TYPE = "application/problem+json"


def _problem(reason: Reason) -> dict[str, object]:
    return {
        "json_format": {
            "type": f"urn:handfast:{reason}",
            "title": reason.summary,
            "status": "%RESPONSE_CODE%",
            "code": reason.value,
            "request_id": "%STREAM_ID%",
        },
        "content_type": _CONTENT_TYPE,
    }


def _at_least(status: int) -> dict[str, object]:
    comparison = {"op": "GE", "value": {"default_value": status, "runtime_key": f"handfast.reply.{status}"}}
    return {"status_code_filter": {"comparison": comparison}}


# The access check's own answers are local replies too. The first mapper takes them out, and changes nothing of them.
_OURS: dict[str, object] = {
    "metadata_filter": {
        "matcher": {"filter": "handfast", "path": [{"key": "mode"}], "value": {"string_match": {"exact": "enforce"}}},
        "match_if_key_not_found": False,
    }
}

LOCAL_REPLIES: dict[str, object] = {
    "mappers": [
        {"filter": _OURS},
        {"filter": _at_least(500), "body_format_override": _problem(Reason.UPSTREAM_UNAVAILABLE)},
        {"filter": _at_least(400), "body_format_override": _problem(Reason.REQUEST_REJECTED)},
    ]
}
