from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.authority import Condition, Kind, NameRule, Segment, give_name
from handfast.access.policy import IdentityPattern
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.trust import der
from handfast.trust.foreign import FIELDS

OWN = TrustDomain("example.org")
BY_NAME = NameRule((Condition("common_name", Kind.ANY, ""),), (Segment("acme"), Segment(field="common_name")))


def said(**values: bytes | tuple[bytes, ...]) -> dict[str, tuple[bytes, ...]]:
    given_ = {field: value if isinstance(value, tuple) else (value,) for field, value in values.items()}
    return {**dict.fromkeys(FIELDS, ()), **given_}


def outcome(rule: NameRule, **values: bytes | tuple[bytes, ...]) -> object:
    named = give_name([rule], said(**values), OWN)
    return named.reason if isinstance(named, Refusal) else str(named)


@pytest.mark.parametrize(
    ("kind", "text", "values", "holds"),
    [
        (Kind.EXACT, "a", (b"a",), True),
        (Kind.EXACT, "a", (b"b", b"a"), True),
        (Kind.EXACT, "a", (b"A", b"ab", b""), False),
        (Kind.EXACT, "ü", ("ü".encode(),), True),
        (Kind.ANY, "", (b"x",), True),
        (Kind.ANY, "", (b"",), False),
        (Kind.ANY, "", (), False),
        (Kind.PREFIX, "team/", (b"team/a/b",), True),
        (Kind.PREFIX, "team/", (b"team/", b"team", b"xteam/a"), False),
        (Kind.SUFFIX, ".a.test", (b"x.a.test",), True),
        (Kind.SUFFIX, ".a.test", (b".a.test", b"a.test", b"x.y.a.test", b"xa.test"), False),
        (Kind.SUFFIX, "@a.test", (b"x.y@a.test",), True),
        (Kind.SUFFIX, "@a.test", (b"@a.test", b"x@y@a.test", b"x@a.test.evil"), False),
    ],
)
def test_a_star_stands_for_one_part(kind: Kind, text: str, values: tuple[bytes, ...], holds: bool):
    """It never stands for nothing, and before a mark it stops at that mark."""
    assert Condition("dns", kind, text).holds(values) is holds


def test_object_identifiers_are_compared_as_such():
    """1.2.3 is not the beginning of 1.2.3.4."""
    wanted = Condition("eku", Kind.EXACT, "1.2.3")
    assert wanted.holds((der.oid("1.2.3")[2:],))
    assert not wanted.holds((der.oid("1.2.3.4")[2:],))


def test_a_value_becomes_a_segment():
    """The rule's words and the certificate's make the name."""
    assert outcome(BY_NAME, common_name=b"bob-1.x_Y") == "spiffe://example.org/acme/bob-1.x_Y"


@given(st.binary(max_size=12))
def test_nobody_writes_himself_a_path(value: bytes):
    """Whatever the certificate says, the name has the rule's words and one segment more, or there is none."""
    named = give_name([BY_NAME], said(common_name=value), OWN)
    if isinstance(named, SpiffeId):
        assert named.name.split("/") == ["acme", value.decode()]
    else:
        assert named.reason in {Reason.IDENTITY_NAME_UNUSABLE, Reason.IDENTITY_NO_MAPPING}


@pytest.mark.parametrize("value", [b"..", b".", b"a/b", b"a b", b"a\n", b"*", "ü".encode(), (b"a", b"b")])
def test_what_is_no_segment_is_refused(value: bytes | tuple[bytes, ...]):
    """So is a value that is there twice."""
    assert outcome(BY_NAME, common_name=value) == Reason.IDENTITY_NAME_UNUSABLE


def test_a_long_name_is_refused():
    """A SPIFFE id has 2048 bytes at most."""
    most = 2048 - len("spiffe://example.org/acme/")
    assert outcome(BY_NAME, common_name=b"x" * most) == f"spiffe://example.org/acme/{'x' * most}"
    assert outcome(BY_NAME, common_name=b"x" * (most + 1)) == Reason.IDENTITY_NAME_UNUSABLE


def test_the_first_rule_that_matches_decides():
    """A later one does not make up for it, not even where its name cannot be given."""
    narrow = NameRule((Condition("organization", Kind.EXACT, "Acme"),), (Segment("a"), Segment(field="dns")))
    assert give_name([narrow, BY_NAME], said(organization=b"Acme", common_name=b"x", dns=b"d"), OWN) == OWN.id("a/d")
    refused = give_name([narrow, BY_NAME], said(organization=b"Acme", common_name=b"x"), OWN)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.IDENTITY_NAME_UNUSABLE
    assert give_name([narrow, BY_NAME], said(organization=b"Other", common_name=b"x"), OWN) == OWN.id("acme/x")


def test_all_conditions_must_hold():
    """One that does not is enough, and then there is no identity."""
    both = NameRule((*BY_NAME.match, Condition("organization", Kind.EXACT, "Acme")), BY_NAME.identity)
    assert outcome(both, common_name=b"x") == Reason.IDENTITY_NO_MAPPING
    assert outcome(both, common_name=b"x", organization=(b"Other", b"Acme")) == "spiffe://example.org/acme/x"


@pytest.mark.parametrize(
    "uri",
    [b"spiffe://example.org/a", b"SPIFFE://example.org/a", b"spiffe://EXAMPLE.org/a", b"spiffe://example.org", b"spiffe:x", b"spiffe://example.org:1/a"],
)  # fmt: skip
def test_a_spiffe_id_of_ours_is_refused(uri: bytes):
    """Or what somebody could take for one."""
    assert outcome(BY_NAME, common_name=b"x", uri=(b"urn:a", uri)) == Reason.IDENTITY_SAN_NOT_ALLOWED


def test_a_spiffe_id_of_another_domain_is_a_name_like_others():
    """Rules may match on it."""
    rule = NameRule((Condition("uri", Kind.PREFIX, "spiffe://acme.example/"),), (Segment("acme"),))
    assert outcome(rule, uri=b"spiffe://acme.example/x") == "spiffe://example.org/acme"


@pytest.mark.parametrize(
    ("identity", "pattern"),
    [
        ((Segment("a"),), IdentityPattern(OWN, "a")),
        ((Segment("a"), Segment("b")), IdentityPattern(OWN, "a/b")),
        ((Segment("a"), Segment(field="dns")), IdentityPattern(OWN, "a/", prefix=True)),
        ((Segment("a"), Segment(field="dns"), Segment("b")), IdentityPattern(OWN, "a/", prefix=True)),
    ],
)
def test_what_a_rule_can_give(identity: tuple[Segment, ...], pattern: IdentityPattern):
    """All its names begin with its first words."""
    assert NameRule(BY_NAME.match, identity).pattern(OWN) == pattern
