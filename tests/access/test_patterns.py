from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.patterns import parse_pattern, pattern_text
from handfast.access.policy import IdentityPattern
from handfast.base.refusal import BadInput
from handfast.base.spiffe import SpiffeId
from tests.access import strategies as some
from tests.access.strategies import OTHER, OWN


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("payments", IdentityPattern(OWN, "payments")),
        ("team/*", IdentityPattern(OWN, "team/", prefix=True)),
        ("*", IdentityPattern(OWN, "", prefix=True)),
        ("spiffe://example.org/payments", IdentityPattern(OWN, "payments")),
        ("spiffe://partner.org/a/b", IdentityPattern(OTHER, "a/b")),
        ("spiffe://partner.org/*", IdentityPattern(OTHER, "", prefix=True)),
        ("spiffe://example.org/anyone", IdentityPattern(OWN, "anyone")),
    ],
)
def test_what_a_pattern_means(text: str, pattern: IdentityPattern):
    """Each form means what the world file's reference says."""
    assert parse_pattern(text, own=OWN) == pattern


@pytest.mark.parametrize(
    "text",
    [
        "", "/", "/a", "a/", "a//b", "a/../b", "te*", "team/a*", "*/a", "**", "team//*", "/*", "../*", "a b", "a\n", "ä",
        "anyone", "any-certificate", "spiffe://example.org", "spiffe://example.org/", "spiffe:///a", "spiffe://Example.org/a",
        "spiffe://*/a", "https://example.org/a", "a" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_pattern(text: str):
    """What could be read in two ways, or matches nothing, is refused."""
    with pytest.raises(BadInput):
        parse_pattern(text, own=OWN)


@given(some.patterns)
def test_a_pattern_is_read_as_it_was_written(pattern: IdentityPattern):
    """Both ways to write a pattern read back to it."""
    assert parse_pattern(pattern_text(pattern, own=OWN), own=OWN) == pattern
    assert parse_pattern(str(pattern), own=OTHER) == pattern


@given(st.text(alphabet="ab/*.:-", max_size=12), some.identities)
def test_a_pattern_matches_what_it_spells(text: str, identity: SpiffeId):
    """Any text is refused, or a pattern whose own name, or one below it, is what it matches."""
    try:
        pattern = parse_pattern(text, own=OWN)
    except BadInput:
        return
    example = OWN.id(f"{pattern.name}x" if pattern.prefix else pattern.name)
    assert pattern.matches(example)
    assert pattern.prefix or pattern.matches(identity) == (str(identity) == str(pattern))
