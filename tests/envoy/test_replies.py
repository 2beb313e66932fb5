from __future__ import annotations

import json
import re
from typing import Any

from handfast.base.reasons import Reason
from handfast.envoy.replies import LOCAL_REPLIES

MAPPERS: list[dict[str, Any]] = LOCAL_REPLIES["mappers"]  # type: ignore[assignment]


def bodies() -> list[dict[str, Any]]:
    return [mapper["body_format_override"] for mapper in MAPPERS if "body_format_override" in mapper]


def test_our_own_answers_are_left_alone():
    """The first mapper takes what the access check refused, and changes neither its status nor its body."""
    first, *others = MAPPERS
    assert first.keys() == {"filter"}
    matcher = first["filter"]["metadata_filter"]
    assert matcher["matcher"] == {
        "filter": "handfast",
        "path": [{"key": "mode"}],
        "value": {"string_match": {"exact": "enforce"}},
    }
    # Where the access check said nothing this must not match, or Envoy's own words would reach the client.
    assert matcher["match_if_key_not_found"] is False
    assert all("body_format_override" in other for other in others)


def test_a_client_reads_a_problem_and_no_more():
    """Each body is a problem document (RFC 9457) of a known reason, and has nothing of Envoy's but status and request id."""
    for body in bodies():
        problem = body["json_format"]
        assert body["content_type"] == "application/problem+json"
        assert problem.keys() == {"type", "title", "status", "code", "request_id"}
        reason = Reason(problem["code"])
        assert (problem["type"], problem["title"]) == (f"urn:handfast:{reason}", reason.summary)
        assert set(re.findall(r"%[^%]+%", json.dumps(body))) == {"%RESPONSE_CODE%", "%STREAM_ID%"}


def test_the_higher_status_comes_first():
    """Envoy takes the first mapper that matches: the bounds fall, and none is passed over."""
    bounds = [one["filter"]["status_code_filter"]["comparison"] for one in MAPPERS[1:]]
    assert [(bound["op"], bound["value"]["default_value"]) for bound in bounds] == [("GE", 500), ("GE", 400)]
    assert [body["json_format"]["code"] for body in bodies()] == [Reason.UPSTREAM_UNAVAILABLE, Reason.REQUEST_REJECTED]
    assert len({bound["value"]["runtime_key"] for bound in bounds}) == 2
