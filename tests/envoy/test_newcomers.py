import json

from handfast.envoy import newcomers
from handfast.envoy.newcomers import Newcomers

SEEN = {"row": "request", "status": 200, "details": "via_upstream", "new": "1", "code": None, "fingerprint": "ab" * 32}


def row(**more: object) -> bytes:
    return json.dumps(SEEN | more, separators=(",", ":")).encode()


def test_of_each_certificate_one_row_is_read():
    """However many workers tell of it, and however often."""
    memory, other = Newcomers(), row(fingerprint="cd" * 32)
    assert memory.among([row(), row(path="/x"), other]) == [row(), other]
    assert memory.among([other, row()]) == []


def test_all_else_passes():
    """Other rows; a request that was refused or reported as well; a row without a fingerprint, which the reader judges."""
    others = [b"", b"junk", row(new=None), row(code="policy.no-match"), row(fingerprint=None), row(fingerprint="x")]
    memory = Newcomers()
    assert memory.among([row()]) == [row()]
    assert memory.among(others * 2) == others * 2


def test_what_envoy_could_not_serve_is_no_repetition():
    """The access check had no word on it, and it is in the records all the same."""
    memory = Newcomers()
    failed = row(status=503, details="upstream_reset_before_response_started{connection_failure}", flags="UF")
    rejected = row(status=0, details="downstream_remote_disconnect", flags="DPE")
    assert memory.among([row(), failed, rejected]) == [row(), failed, rejected]
    assert memory.among([failed, row(), rejected]) == [failed, rejected]


def test_a_stranger_s_text_hides_no_other_row():
    """What a client writes into a path is escaped, and so is not taken for Envoy's own words."""
    memory = Newcomers()
    lying = row(new=None, path='","new":"1","x":"')
    assert memory.among([row(), lying, lying]) == [row(), lying, lying]


def test_the_memory_is_bounded(monkeypatch):
    """When it is full it begins anew: a certificate is told of once more, and none is missed."""
    monkeypatch.setattr(newcomers, "MOST_REMEMBERED", 4)
    memory = Newcomers()
    rows = [row(fingerprint=f"{number:064x}") for number in range(10)]
    assert memory.among(rows) == rows
    assert len(memory._told) <= 4
