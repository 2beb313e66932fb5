"""The ``issuance`` part of the world file."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.access.issuance_file import KEY_TYPES, issuance_document
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from handfast.trust.profile import LEAF, KeyFacts, Profile

WORLD = "trust_domain: example.org\nissuance: "


def read(text: str) -> Profile:
    return parse_world(WORLD + text).issuance


def test_without_it_the_platforms_own_limits_hold():
    """Nothing written is nothing narrowed."""
    assert parse_world("trust_domain: example.org").issuance == LEAF
    assert read("{}") == LEAF


def test_it_narrows_names_keys_and_life():
    """What is written is what may be signed."""
    found = read(
        "{identities: [payments, team/*], dns: ['*.internal', api.example.org], keys: [ec-p256], longest: 24h}"
    )
    assert [found.permits_identity(name) for name in ("payments", "team/a/b", "pay", "teams")] == [
        True,
        True,
        False,
        False,
    ]
    permitted = [found.permits_dns(name) for name in ("a.internal", "a.b.internal", "api.example.org")]
    assert permitted == [True, True, True]
    assert not any(
        found.permits_dns(name) for name in ("internal", "ainternal", "x.api.example.org", "internal.evil.org")
    )
    assert found.allows(KeyFacts("ec", 256, curve="secp256r1"))
    assert not found.allows(KeyFacts("ec", 384, curve="secp384r1"))
    assert not found.allows(KeyFacts("ed25519", 256))
    assert not found.allows(KeyFacts("rsa", 2048, exponent=65537))
    assert found.longest == timedelta(hours=24)


def test_a_size_of_rsa_allows_larger_ones():
    """Who takes 3072 bits takes 4096, and not 2048."""
    found = read("{keys: [rsa-3072]}")
    assert [found.allows(KeyFacts("rsa", bits, exponent=65537)) for bits in (2048, 3072, 4096)] == [False, True, True]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{identities: ['pay*']}", "issuance.identities"),
        ("{identities: ['*/a']}", "issuance.identities"),
        ("{identities: ['a//b']}", "issuance.identities"),
        ("{dns: ['*.*.internal']}", "issuance.dns"),
        ("{dns: [UPPER.internal]}", "issuance.dns"),
        ("{keys: [rsa-1024]}", "issuance.keys"),
        ("{longest: 10y}", "issuance.longest"),
        ("{names: [a]}", "issuance"),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str):
    """The key is in the error, and the remedy."""
    with pytest.raises(BadInput) as told:
        read(text)
    assert told.value.key.startswith(key)
    assert told.value.hint


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "identities": st.lists(st.sampled_from(["payments", "team/*", "*"]), unique=True, min_size=1),
            "dns": st.lists(st.sampled_from(["*.internal", "api.example.org"]), unique=True, min_size=1),
            "keys": st.lists(st.sampled_from(KEY_TYPES), unique=True, min_size=1),
            "longest": st.sampled_from(["1h", "24h", "30d"]),
        },
    )
)
def test_it_is_read_again_as_it_was_written(plain: dict[str, object]):
    """Written down in its canonical form it is the same policy."""
    world = parse_world(WORLD + str(plain))
    again = parse_world(str(document(world)))
    assert again.issuance == world.issuance
    assert issuance_document(again.issuance) == document(world).get("issuance", {})
