import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused, Unavailable, require


def test_require_passes_an_outcome_on():
    """What is no refusal comes back as it is, even where it is false."""
    assert require(0) == 0


def test_require_raises_a_refusal_with_its_words():
    """A refusal that would be unsafe to ignore is raised with summary, hint and evidence."""
    refusal = Refusal(Reason.CERT_EXPIRED, {"not_after": "yesterday", "serial": "05"})
    with pytest.raises(Refused) as caught:
        require(refusal)
    assert caught.value.refusal is refusal
    assert caught.value.hint == Reason.CERT_EXPIRED.hint
    assert str(caught.value) == "the client's certificate has expired (not_after yesterday, serial 05)"


def test_a_refusal_without_evidence_has_no_brackets():
    """The sentence stands alone where nothing was seen."""
    assert str(Refused(Refusal(Reason.REVOKED))) == Reason.REVOKED.summary


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "no"),
        ({"key": "ttl"}, "ttl: no"),
        ({"file": "w.yaml"}, "w.yaml: no"),
        ({"file": "w.yaml", "line": 3, "key": "ttl"}, "w.yaml:3: ttl: no"),
    ],
)
def test_bad_input_names_its_place(place: dict[str, object], text: str):
    """File, line and key stand in front, as far as they are known."""
    assert str(BadInput("no", **place)) == text  # type: ignore[arg-type]


def test_a_place_is_given_once():
    """Who knows a place first keeps it; the sentence and the hint stay."""
    inner = BadInput("no", hint="do this", key="ttl")
    outer = inner.at(file="w.yaml", line=3, key="workloads")
    assert (outer.file, outer.line, outer.key, outer.hint) == ("w.yaml", 3, "ttl", "do this")
    assert str(inner) == "ttl: no"


def test_all_exceptions_have_one_parent():
    """One clause catches all three."""
    assert all(issubclass(kind, HandfastError) for kind in (Refused, BadInput, Unavailable))
