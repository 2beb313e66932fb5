import pytest

from handfast.app.cli.happenings import line
from handfast.doctor.report import escaped


def test_an_event_is_one_line_for_people():
    """Time, kind and id first, then what is known, then what the reason means."""
    event = {
        "at": "2026-03-04T05:06:07.890123Z", "kind": "request.denied", "id": "r1", "reason": "policy.no-match", "method": "PUT", "path": "/v1",
        "identity": "", "status": 403, "summary": "no rule allows it", "seq": 3,
    }  # fmt: skip
    assert (
        line(event)
        == "2026-03-04 05:06:07  request.denied       r1  reason=policy.no-match  method=PUT  path=/v1  status=403  no rule allows it"
    )


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "\u202eevil", "\x00"])
def test_a_stranger_moves_no_cursor(hostile: str):
    """What a client wrote is spelt out."""
    told = line({"at": "2026-03-04T05:06:07Z", "kind": "handshake.refused", "id": "h", "server_name": hostile})
    assert told.isprintable()
    assert escaped(hostile) in told
