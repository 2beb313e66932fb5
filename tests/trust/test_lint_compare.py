from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.trust import der, leaf
from handfast.trust.lint import LintedPlan, compare
from tests.trust.lint_parts import good, linted, signed
from tests.trust.material import DOMAIN, issuer, issuer_key


def test_a_certificate_signed_from_the_linted_bytes_compares():
    """What was linted and signed with the issuer's key is delivered."""
    whole = linted(good())
    assert compare(signed(whole.tbs), whole) is None


def mismatch(data: bytes, whole: LintedPlan) -> str:
    found = compare(data, whole)
    assert found is not None
    assert found.reason is Reason.ISSUANCE_MISMATCH
    return found.evidence["certificate"]


def test_another_plan_signed_by_the_issuer_does_not_compare():
    """A signer that signs something else is found out."""
    whole = linted(good())
    other = leaf.tbs(replace(whole.plan, identity=DOMAIN.id("admin")))
    assert "not those that were linted" in mismatch(signed(other), whole)


def test_another_keys_signature_does_not_compare():
    """A signer that uses another key is found out."""
    whole = linted(good())
    assert "signature" in mismatch(signed(whole.tbs, ec.generate_private_key(ec.SECP256R1())), whole)


def test_another_algorithm_around_the_same_bytes_does_not_compare():
    """Outer and inner algorithm are the same (RFC 5280 section 4.1.1.2)."""
    whole = linted(good())
    tbs, _, signature = der.children(signed(whole.tbs))
    assert mismatch(der.sequence(tbs, der.sequence(der.oid("1.2.840.10045.4.3.3")), signature), whole)


def test_something_after_the_signature_does_not_compare():
    """A certificate ends where it ends."""
    whole = linted(good())
    assert mismatch(signed(whole.tbs) + b"\0", whole)


@given(st.data())
def test_no_change_of_a_signed_certificate_goes_unseen(data: st.DataObject):
    """One changed octet anywhere is a mismatch, and never raises."""
    whole = linted(good())
    changed = bytearray(signed(whole.tbs))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    assert mismatch(bytes(changed), whole)


def test_bits_of_the_signature_that_do_not_count_do_not_compare():
    """OpenSSL passes over the count of unused bits where they are zero; a second spelling of a certificate is none of ours."""
    whole = linted(good())
    tbs, algorithm, signature = next(
        parts for parts in (der.children(signed.__wrapped__(whole.tbs)) for _ in range(200)) if not parts[2][-1] & 1
    )
    respelled = der.sequence(tbs, algorithm, der.bit_string(signature[3:], 1))
    assert "laid out" in mismatch(respelled, whole)


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"garbage", b"\x30\x03\x30\x01\x00"])
def test_garbage_does_not_compare(data: bytes):
    """What a broken signer gives is a mismatch, not an exception."""
    assert mismatch(data, linted(good()))


def test_the_issuer_that_plans_name_is_the_one_that_signs():
    """The facts of the issuer carry the key that verifies."""
    public = issuer_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert issuer().public_key_der == public
