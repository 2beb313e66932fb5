from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window
from handfast.trust import der, leaf
from handfast.trust.lint import LintedPlan
from handfast.trust.plan import LeafPlan
from handfast.trust.profile import RESPONDER, SERVER_AUTH
from tests.trust.lint_parts import (
    AKI,
    CONSTRAINTS,
    DNS,
    EKU,
    SAN,
    SKI,
    USAGE,
    findings,
    good,
    linted,
    with_extensions,
    with_field,
)
from tests.trust.material import DOMAIN, csr_facts, planned, plans, private_key, request


@given(plans())
def test_what_the_template_writes_passes(plan: LeafPlan):
    """Every plan that can be made is linted, and its bytes are kept."""
    assert linted(plan).tbs == leaf.tbs(plan)


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda p: replace(p, serial=p.serial ^ 1), "serial"),
        (lambda p: replace(p, identity=DOMAIN.id("ledger")), "names"),
        (lambda p: replace(p, dns=p.dns[:1]), "names"),
        (lambda p: replace(p, dns=p.dns[::-1]), "names"),
        (lambda p: replace(p, subject=csr_facts("p384")), "key"),
        (lambda p: replace(p, window=Window(p.window.not_before, p.window.not_after + timedelta(seconds=1))), "window"),
        (lambda p: replace(p, issuer=replace(p.issuer, subject_der=leaf.common_name("Another CA"))), "issuer"),
        (lambda p: replace(p, issuer=replace(p.issuer, key_id=bytes(20))), "authority_key_id"),
        (lambda p: replace(p, profile=replace(p.profile, ekus=(SERVER_AUTH,))), "extended_usage"),
        (lambda p: replace(p, profile=replace(p.profile, curves=frozenset())), "key"),
        (lambda p: replace(p, profile=replace(p.profile, longest=timedelta(hours=1))), "window"),
        (lambda p: replace(p, issuer=replace(p.issuer, trust_domain=TrustDomain("example.com"))), "names"),
    ],
)
def test_bytes_that_say_something_else_than_the_plan_are_found(change: Callable[[LeafPlan], LeafPlan], finding: str):
    """Each field of the plan is held against the bytes."""
    plan = good()
    assert finding in findings(leaf.tbs(plan), change(plan))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@pytest.mark.parametrize("serial", [0, 1, 2**62, 2**159])
def test_a_serial_that_is_too_short_or_too_long_is_found(serial: int):
    """Planned or not, a serial has 64 bits and fits into 20 octets."""
    plan = replace(good(), serial=serial)
    assert findings(leaf.tbs(plan), plan) & {"serial", "bytes"}


@pytest.mark.parametrize(("later", "earlier"), [(0, 1), (1, 0)])
def test_a_window_outside_the_issuers_is_found(later: int, earlier: int):
    """Planned or not, a leaf lives within its issuer: one second at either end is too much."""
    plan = good()
    begin, end = plan.window.not_before, plan.window.not_after
    short = Window(begin + timedelta(seconds=later), end - timedelta(seconds=earlier))
    plan = replace(plan, issuer=replace(plan.issuer, window=short))
    assert findings(leaf.tbs(plan), plan) == {"window"}


def test_a_key_that_the_profile_does_not_allow_is_found():
    """A plan that names a weak key by another kind's facts does not pass."""
    public = private_key("rsa1024").public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    plan = replace(good(), subject=replace(csr_facts(), spki=spki))
    assert "key" in findings(leaf.tbs(plan), plan)


def san(*names: bytes) -> bytes:
    return der.extension(SAN, der.sequence(*names))


URI = der.tlv(0x86, b"spiffe://example.org/payments")
A, B = (der.tlv(0x82, name.encode()) for name in DNS)


@pytest.mark.parametrize(
    ("oid", "value", "finding"),
    [
        (SAN, san(URI, der.tlv(0x86, b"spiffe://example.org/admin"), A, B), "names"),
        (SAN, san(A, B), "names"),
        (SAN, san(A, URI, B), "names"),
        (SAN, san(URI, A, B, der.tlv(0x87, b"\x7f\0\0\1")), "names"),
        (SAN, san(URI, A, B, der.tlv(0x81, b"a@b")), "names"),
        (SAN, san(), "names"),
        (SAN, der.extension(SAN, der.sequence(URI, A, B), critical=True), "extensions"),
        (CONSTRAINTS, der.extension(CONSTRAINTS, der.sequence(b"\x01\x01\xff"), critical=True), "constraints"),
        (CONSTRAINTS, der.extension(CONSTRAINTS, der.sequence()), "extensions"),
        (USAGE, der.extension(USAGE, der.bit_string(b"\x84", 2), critical=True), "usage"),
        (USAGE, der.extension(USAGE, der.bit_string(b"\xa0", 5), critical=True), "usage"),
        (EKU, der.extension(EKU, der.sequence(der.oid("2.5.29.37.0"))), "extended_usage"),
        (SKI, der.extension(SKI, der.octet_string(bytes(20))), "subject_key_id"),
        (AKI, der.extension(AKI, der.sequence(der.tlv(0x80, bytes(20)))), "authority_key_id"),
        ("1.2.3.4", der.extension("1.2.3.4", b"\x05\x00"), "extensions"),
        ("2.5.29.30", der.extension("2.5.29.30", der.sequence()), "extensions"),
    ],
)
def test_an_extension_that_a_leaf_must_not_have_so_is_found(oid: str, value: bytes, finding: str):
    """Other names, rights, flags or extensions than ours do not pass."""
    plan = good()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({oid: value}))
    assert findings(tbs, plan) & {finding, "bytes"}


@pytest.mark.parametrize(
    ("oid", "value", "finding"),
    [
        (USAGE, der.extension(USAGE, der.bit_string(b"\x80\x00", 7), critical=True), "usage"),
        (USAGE, der.extension(USAGE, der.bit_string(b"\x80", 0), critical=True), "usage"),
        (SAN, der.sequence(der.oid(SAN), b"\x01\x01\x00", der.octet_string(der.sequence(URI, A, B))), "names"),
    ],
)
def test_a_second_spelling_of_the_same_is_found(oid: str, value: bytes, finding: str):
    """Octets and bits that say nothing have no place in DER, whether the library passes over them or not."""
    plan = good()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({oid: value}))
    assert findings(tbs, plan) & {finding, "bytes"}


def test_another_order_is_found():
    """What is signed is what was planned, and not something that means the same."""
    plan = good()
    fields = der.children(leaf.tbs(plan))
    (together,) = der.children(fields[7])
    turned = der.tlv(0xA3, der.sequence(*reversed(der.children(together))))
    assert findings(with_field(leaf.tbs(plan), 7, turned), plan) == {"extensions"}


def test_a_usage_goes_by_the_key_in_the_bytes():
    """A plan that calls an elliptic curve RSA would let it encrypt."""
    plan = good()
    lying = replace(plan, subject=replace(plan.subject, key=csr_facts("rsa2048").key))
    assert findings(leaf.tbs(lying), lying) == {"usage"}


def test_a_key_that_the_plan_names_otherwise_is_found():
    """Its identifier is worked out from the bits that stand there."""
    plan = good()
    lying = replace(plan, subject=replace(plan.subject, key_id=csr_facts("p384").key_id))
    assert findings(leaf.tbs(lying), lying) == {"subject_key_id"}


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda oid, value, *, critical=False: der.sequence(der.oid(oid), der.tlv(0x0C, value)),  # noqa: ARG005 - left out
        lambda oid, value, *, critical=False: der.sequence(der.oid(oid), b"\x01\x01\xff", der.octet_string(value)),  # noqa: ARG005 - as above
        lambda oid, value, *, critical=False: der.sequence(der.oid("1.2.3"), der.octet_string(value)),  # noqa: ARG005 - as above
    ],
    ids=["no octets", "all critical", "another name"],
)
def test_a_mistake_in_what_writer_and_linter_share_is_found(
    monkeypatch: pytest.MonkeyPatch, spoilt: Callable[..., bytes]
):
    """The linter's frames are its own, with names that the library writes."""
    monkeypatch.setattr(der, "extension", spoilt)
    plan = planned(request(DOMAIN.id("never/seen"), dns=DNS))
    assert findings(leaf.tbs(plan), plan) & {"extensions", "bytes"}


@pytest.mark.parametrize("oid", [SAN, EKU, SKI, AKI, USAGE, CONSTRAINTS])
def test_an_extension_that_is_missing_is_found(oid: str):
    """Each of the six has to be there."""
    plan = good()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.pop(oid) and None)
    assert findings(tbs, plan) == {"extensions"}


def test_a_responder_that_lives_long_is_found():
    """Nobody can learn that it was revoked, so it is short-lived."""
    plan = planned(request(reserved=True, ttl=timedelta(days=8), profile=RESPONDER))
    assert findings(leaf.tbs(plan), plan) == {"window"}


def test_an_extension_that_stands_there_twice_is_found():
    """RFC 5280 section 4.2 lets none appear twice."""
    plan = good()
    tbs = with_extensions(leaf.tbs(plan), lambda extensions: extensions.update({"again": extensions[SAN]}))
    assert findings(tbs, plan) == {"bytes"}


@pytest.mark.parametrize(
    ("at", "value", "finding"),
    [
        (0, der.tlv(0xA0, der.integer(0)), "version"),
        (0, der.tlv(0xA0, der.integer(1)), "version"),
        (6, der.tlv(0x81, b"\x00unique"), "version"),
        (2, der.sequence(der.oid("1.2.840.10045.4.3.3")), "algorithm"),
        (3, leaf.common_name("Another CA"), "issuer"),
        (5, leaf.common_name("admin"), "subject"),
        (5, der.sequence(), "subject"),
    ],
)
def test_a_field_that_is_not_the_planned_one_is_found(at: int, value: bytes, finding: str):
    """Version, algorithm, issuer and subject are held against the plan."""
    plan = good()
    assert findings(with_field(leaf.tbs(plan), at, value), plan) & {finding, "bytes"}


def test_an_issuer_name_of_the_same_text_in_other_bytes_is_found():
    """Chains are built by comparing names, and not every library compares them by text."""
    plan = good()
    attribute = der.sequence(der.oid("2.5.4.3"), der.tlv(0x13, b"Issuing CA"))  # PrintableString, not UTF8String
    other = der.sequence(der.tlv(0x31, attribute))
    assert findings(with_field(leaf.tbs(plan), 3, other), plan) == {"issuer"}


@given(st.data())
def test_no_change_of_the_bytes_goes_unseen(data: st.DataObject):
    """One changed octet anywhere is found, and never raises."""
    plan = good()
    tbs = bytearray(leaf.tbs(plan))
    at = data.draw(st.integers(0, len(tbs) - 1))
    tbs[at] ^= data.draw(st.integers(1, 255))
    assert findings(bytes(tbs), plan)


@given(st.binary(max_size=64))
def test_garbage_is_found(data: bytes):
    """What is no TBSCertificate is a finding, not an exception."""
    assert findings(data, good())


def test_nobody_else_makes_a_linted_plan():
    """Neither the class, nor `replace`, nor a copy with other bytes."""
    whole = linted(good())
    with pytest.raises(TypeError, match="only lint"):
        LintedPlan(whole.plan, b"other bytes", object())
    with pytest.raises((TypeError, ValueError)):
        replace(whole, tbs=b"other bytes")
    assert copy.copy(whole).tbs == whole.tbs
