from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x448, x25519

from handfast.trust.profile import LEAF, KeyFacts, key_facts
from tests.trust.material import private_key


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_the_leaf_profile_allows_the_keys_that_tls_uses_well(kind: str):
    """ECDSA P-256 and P-384, Ed25519 and RSA of 2048 bits pass."""
    assert LEAF.allows(key_facts(private_key(kind).public_key()))


@pytest.mark.parametrize("bits", [0, 1024, 2047, 4097, 16384])
def test_the_leaf_profile_refuses_rsa_outside_its_bounds(bits: int):
    """RSA below 2048 bits is weak, above 4096 it is a burden for every peer."""
    assert not LEAF.allows(KeyFacts("rsa", bits, exponent=65537))


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_the_leaf_profile_allows_rsa_within_its_bounds(bits: int):
    """Both bounds are within."""
    assert LEAF.allows(KeyFacts("rsa", bits, exponent=65537))


@pytest.mark.parametrize("exponent", [0, 1, 3, 17, 65535, 65536, 65538, 2**256 + 1])
def test_the_leaf_profile_refuses_unusual_rsa_exponents(exponent: int):
    """The exponent is odd, above 2^16 and below 2^256."""
    assert not LEAF.allows(KeyFacts("rsa", 2048, exponent=exponent))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (ec.generate_private_key(ec.SECP521R1()), "ec"),
        (ec.generate_private_key(ec.SECP256K1()), "ec"),
        (ed448.Ed448PrivateKey.generate(), "ed448"),
        (x25519.X25519PrivateKey.generate(), "x25519"),
        (x448.X448PrivateKey.generate(), "x448"),
        (dsa.generate_private_key(1024), "dsa"),
    ],
    ids=["p521", "secp256k1", "ed448", "x25519", "x448", "dsa"],
)
def test_the_leaf_profile_refuses_every_other_kind_of_key(
    key: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey | rsa.RSAPrivateKey, kind: str
):
    """A kind that is not named is not allowed, and is told by its name."""
    found = key_facts(key.public_key())
    assert found.kind == kind
    assert not LEAF.allows(found)


def test_a_key_is_told_to_people_by_curve_or_size():
    """The text names what matters."""
    assert [str(key_facts(private_key(kind).public_key())) for kind in ("p256", "rsa2048", "ed25519")] == [
        "ec secp256r1",
        "rsa 2048",
        "ed25519 256",
    ]
