"""Whom a join token lets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.trust.joining import Grant, Held, followed, refuse_name, refuse_token

JOIN, RENEWAL = "join:edge", "spiffe://example.org/handfast/agent/edge"


@pytest.mark.parametrize(
    ("made_for", "given", "reason"),
    [
        ("", False, None),
        ("", True, Reason.AGENT_NAME_TAKEN),
        ("edge", False, None),
        ("edge", True, None),
        ("other", False, Reason.TOKEN_NOT_VALID),
        ("other", True, Reason.TOKEN_NOT_VALID),
        ("edge-", False, Reason.TOKEN_NOT_VALID),
    ],
)
def test_a_token_opens_its_name_or_any_new_one(made_for: str, given: bool, reason: Reason | None):
    """And of a name that was given nothing but its own."""
    grant = Grant("4bac", made_for)
    refused = refuse_token("edge", grant) or refuse_name("edge", grant, given=given)
    assert (refused.reason if refused else None) is reason


def test_a_refusal_of_a_token_tells_nothing():
    """Who found one does not learn that it is good, and for whom."""
    assert refuse_token("edge", Grant("4bac", "other")) == Refusal(Reason.TOKEN_NOT_VALID)


def test_what_a_name_had_ends_and_who_joined_later_stays():
    """Older ones end, whoever asked for them; of newer ones those that were renewed from older ones."""
    live = [Held("5", RENEWAL), Held("4", JOIN), Held("3", JOIN), Held("2", RENEWAL), Held("1", JOIN)]
    assert followed(live, "3") == ["5", "2", "1"]
    assert followed(live[1:3], "4") == ["3"]
    assert followed([Held("1", JOIN)], "1") == []


def test_who_is_not_there_any_more_was_followed():
    """Its certificate is no good, so it gets none."""
    assert followed([Held("2", JOIN)], "1") is None
    assert followed([], "1") is None


@given(st.permutations(range(6)))
def test_of_all_who_joined_the_last_one_stays(order: list[int]):
    """Whoever looks in whatever order, and sees as much as was there: one is left, the newest."""
    live = {serial: Held(str(serial), JOIN) for serial in range(6)}
    live[9] = Held("9", RENEWAL)
    for serial in order:
        seen = [live[one] for one in sorted(live, reverse=True)]
        for one in followed(seen, str(serial)) or ():
            live.pop(int(one))
    assert list(live) == [5]
