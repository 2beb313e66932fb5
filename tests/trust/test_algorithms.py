from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput, Refusal
from handfast.io.signers import sign_with
from handfast.trust import leaf, revocation
from handfast.trust.algorithms import algorithm_for, algorithm_of, identifier_in, verify
from handfast.trust.facts import IssuerFacts, hex_serial, issuer_facts
from handfast.trust.lint import LintedPlan, compare, lint
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import KeyFacts
from handfast.trust.revocation import RevocationReason, Revoked, crl_plan
from tests.trust.material import NOW, PrivateKey, ca_der, planned, plans, private_key

KINDS = ["p256", "p384", "rsa2048", "ed25519"]
kinds = st.sampled_from(KINDS)


@cache
def issuer(kind: str) -> IssuerFacts:
    return issuer_facts(ca_der(key=private_key(kind)))


def public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@cache  # signatures differ from call to call, which would confuse hypothesis
def signature(kind: str, message: bytes) -> bytes:
    return sign_with(private_key(kind), message)


def signed(kind: str, tbs: bytes) -> bytes:
    return leaf.assemble(tbs, signature(kind, tbs))


@given(plans(), kinds)
def test_the_builder_writes_the_same_leaf_for_every_issuing_key(plan: LeafPlan, kind: str):
    """Byte for byte what `cryptography` makes of the same fields, with the algorithm that it chooses for the key."""
    plan = replace(plan, issuer=issuer(kind))
    ours = x509.load_der_x509_certificate(signed(kind, leaf.tbs(plan)))
    builder = (
        x509.CertificateBuilder(ours.issuer, ours.subject, ours.public_key(), ours.serial_number)
        .not_valid_before(ours.not_valid_before_utc)
        .not_valid_after(ours.not_valid_after_utc)
    )
    for one in ours.extensions:
        builder = builder.add_extension(one.value, critical=one.critical)
    built = builder.sign(private_key(kind), algorithm_of(plan.issuer.public_key_der).hash)
    assert ours.tbs_certificate_bytes == built.tbs_certificate_bytes
    assert ours.signature_algorithm_oid == built.signature_algorithm_oid
    ours.verify_directly_issued_by(x509.load_der_x509_certificate(ca_der(key=private_key(kind))))


@given(st.lists(st.integers(1, 2**150), max_size=5), kinds)
def test_the_builder_writes_the_same_list_for_every_issuing_key(serials: list[int], kind: str):
    """The same for revocation lists."""
    entries = [
        Revoked(
            serial=hex_serial(one),
            fingerprint="",
            at=NOW,
            reason=RevocationReason.SUPERSEDED,
            not_after=NOW + timedelta(1),
        )
        for one in serials
    ]
    tbs = revocation.tbs(crl_plan(entries, issuer(kind), number=7, now=NOW))
    ours = x509.load_der_x509_crl(signed(kind, tbs))
    builder = x509.CertificateRevocationListBuilder(ours.issuer, ours.last_update_utc, ours.next_update_utc)
    for extension in ours.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    for entry in ours:
        builder = builder.add_revoked_certificate(entry)
    built = builder.sign(private_key(kind), algorithm_of(issuer(kind).public_key_der).hash)
    assert ours.tbs_certlist_bytes == built.tbs_certlist_bytes
    assert ours.is_signature_valid(private_key(kind).public_key())


@given(plans(), kinds)
def test_what_is_signed_with_each_key_is_linted_and_compares(plan: LeafPlan, kind: str):
    """Lint takes the algorithm that follows from the key, and the signature that belongs to it."""
    plan = replace(plan, issuer=issuer(kind))
    linted = lint(leaf.tbs(plan), plan)
    assert isinstance(linted, LintedPlan), linted
    assert compare(signed(kind, linted.tbs), linted) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_a_certificate_labelled_with_another_algorithm_is_linted_away(kind: str, other: str):
    """An algorithm is never chosen: another one than the key's is a finding before anything is signed."""
    if kind == other:
        return
    plan = replace(planned(), issuer=issuer(kind))
    found = lint(leaf.tbs(replace(plan, issuer=replace(issuer(kind), public_key_der=public(private_key(other))))), plan)
    assert isinstance(found, Refusal)
    assert "algorithm" in found.evidence


@given(st.binary(max_size=200), st.binary(max_size=200), kinds)
def test_a_signature_is_of_one_message_and_one_key(message: bytes, other: bytes, kind: str):
    """It verifies with its own, and with no other."""
    made = signature(kind, message)
    verify(made, message, public(private_key(kind)))
    if other != message:
        with pytest.raises(InvalidSignature):
            verify(made, other, public(private_key(kind)))


@given(st.binary(max_size=600), kinds)
def test_garbage_is_no_signature(garbage: bytes, kind: str):
    """Whatever a signer answers, the only exception is that it does not verify."""
    with pytest.raises(InvalidSignature):
        verify(garbage, b"message", public(private_key(kind)))


@pytest.mark.parametrize(
    "facts",
    [
        KeyFacts("ec", 521, curve="secp521r1"),
        KeyFacts("ec", 256, curve="secp256k1"),
        KeyFacts("rsa", 1024, exponent=65537),
        KeyFacts("rsa", 16384, exponent=65537),
        KeyFacts("rsa", 2048, exponent=3),
        KeyFacts("rsa", 2048, exponent=65538),
        KeyFacts("ed448", 456),
        KeyFacts("other", 0),
    ],
    ids=str,
)
def test_other_keys_sign_nothing(facts: KeyFacts):
    """Too weak, too slow or not understood everywhere: said with what would do."""
    with pytest.raises(BadInput, match="no authority signs") as caught:
        algorithm_for(facts)
    assert "P-256" in caught.value.hint


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), dsa.generate_private_key(1024), rsa.generate_private_key(65537, 1024)],
    ids=lambda key: type(key).__name__,
)
def test_other_keys_verify_nothing(key: ec.EllipticCurvePrivateKey):
    """A public key of another kind is bad input, also when it can be read."""
    with pytest.raises(BadInput, match="no authority signs"):
        algorithm_of(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@given(st.binary(max_size=300))
def test_what_is_no_key_is_bad_input(garbage: bytes):
    """Nothing else comes out of reading one."""
    with pytest.raises(BadInput):
        algorithm_of(garbage)


@given(st.binary(max_size=300))
def test_what_names_no_algorithm_is_not_assembled(garbage: bytes):
    """A signature without its algorithm is no certificate."""
    try:
        found = identifier_in(garbage)
    except BadInput:
        return
    assert found[0] == 0x30


def test_an_ed25519_key_has_an_algorithm_without_a_hash():
    """It hashes by itself (RFC 8410 section 3): no parameters, no digest."""
    algorithm = algorithm_of(public(ed25519.Ed25519PrivateKey.generate()))
    assert (algorithm.hash, algorithm.identifier.hex()) == (None, "300506032b6570")
