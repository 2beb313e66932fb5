from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.windows import whole_second
from handfast.trust import der
from handfast.trust.facts import hex_serial
from handfast.trust.leaf import assemble
from handfast.trust.revocation import (
    CRL_LIFE,
    CrlOutline,
    CrlPlan,
    RevocationReason,
    Revoked,
    around,
    crl_plan,
    entry,
    live,
    signed,
    tbs,
)
from tests.trust.material import NOW, ca_der, issuer, issuer_key

_FLAGS = {
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.CA_COMPROMISE: x509.ReasonFlags.ca_compromise,
    RevocationReason.AFFILIATION_CHANGED: x509.ReasonFlags.affiliation_changed,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION_OF_OPERATION: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.PRIVILEGE_WITHDRAWN: x509.ReasonFlags.privilege_withdrawn,
    RevocationReason.AA_COMPROMISE: x509.ReasonFlags.aa_compromise,
}


def revoked(
    serial: int = 0xABC,
    *,
    at: datetime = NOW,
    reason: RevocationReason = RevocationReason.KEY_COMPROMISE,
    not_after: datetime = NOW + timedelta(days=1),
) -> Revoked:
    return Revoked(serial=hex_serial(serial), fingerprint="", at=at, reason=reason, not_after=not_after)


def crl(plan: CrlPlan) -> x509.CertificateRevocationList:
    listed = tbs(plan)
    return x509.load_der_x509_crl(assemble(listed, issuer_key().sign(listed, ec.ECDSA(hashes.SHA256()))))


def built(plan: CrlPlan) -> x509.CertificateRevocationList:
    """Make the same list with the builder of `cryptography`: the oracle."""
    ca = x509.load_der_x509_certificate(ca_der())
    ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    builder = x509.CertificateRevocationListBuilder(ca.subject, plan.window.not_before, plan.window.not_after)
    builder = builder.add_extension(aki, critical=False).add_extension(x509.CRLNumber(plan.number), critical=False)
    for one in plan.entries:
        entry = x509.RevokedCertificateBuilder(int(one.serial, 16), one.at)
        if one.reason is not RevocationReason.UNSPECIFIED:
            entry = entry.add_extension(x509.CRLReason(_FLAGS[one.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer_key(), hashes.SHA256())


moments = st.datetimes(datetime(2020, 1, 1), datetime(2070, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
entries = st.builds(
    revoked,
    st.integers(1, 2**159),
    at=moments,
    reason=st.sampled_from(RevocationReason),
    not_after=st.just(datetime(2099, 1, 1, tzinfo=UTC)),
)


@given(st.lists(entries, max_size=20), st.integers(0, 2**159 - 1), moments)
def test_the_template_writes_what_the_builder_writes(listed: list[Revoked], number: int, now: datetime):
    """Byte for byte, for any entries, numbers and dates before and after 2050."""
    plan = crl_plan(listed, issuer(), number=number, now=now)
    assert tbs(plan) == built(plan).tbs_certlist_bytes


def test_each_reason_has_the_number_of_the_rfc():
    """RFC 5280 section 5.3.1, without the two that bring a certificate back."""
    assert {reason.value: reason.code for reason in RevocationReason} == {
        "unspecified": 0,
        "keyCompromise": 1,
        "cACompromise": 2,
        "affiliationChanged": 3,
        "superseded": 4,
        "cessationOfOperation": 5,
        "privilegeWithdrawn": 9,
        "aACompromise": 10,
    }


def test_a_certificate_that_has_expired_leaves_the_list():
    """At its end and after it; a moment before, it is still there."""
    one = revoked()
    assert live([one], one.not_after - timedelta(microseconds=1)) == (one,)
    assert live([one], one.not_after) == ()


def test_a_list_counts_from_a_minute_ago_for_seven_days():
    """Backdated for slow clocks, in whole seconds."""
    window = crl_plan((), issuer(), number=1, now=NOW).window
    second = whole_second(NOW)
    assert (window.not_before, window.not_after) == (second - timedelta(seconds=60), second + CRL_LIFE)


def test_a_list_can_count_until_a_given_time():
    """The root's list lives as long as the root."""
    until = issuer().window.not_after
    assert crl_plan((), issuer(), number=1, now=NOW, until=until).window.not_after == until


def test_a_serial_stands_there_once_with_its_first_revocation():
    """Whoever was first gave the date and the reason."""
    first = revoked(at=NOW - timedelta(hours=1), reason=RevocationReason.SUPERSEDED)
    assert crl_plan([revoked(), first], issuer(), number=1, now=NOW).entries == (first,)


@given(st.permutations([revoked(serial) for serial in (1, 9, 256, 0xFFFF, 2**100)]))
def test_the_order_of_revocations_does_not_change_the_list(listed: list[Revoked]):
    """The same revocations are the same bytes."""
    wanted = crl_plan(sorted(listed, key=lambda one: int(one.serial, 16)), issuer(), number=1, now=NOW)
    assert crl_plan(listed, issuer(), number=1, now=NOW) == wanted


def test_an_empty_list_has_no_sequence_of_entries():
    """RFC 5280 section 5.1.2.6: absent where nothing is revoked."""
    listed = crl(crl_plan((), issuer(), number=7, now=NOW))
    assert len(listed) == 0
    assert listed.is_signature_valid(issuer_key().public_key())
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7


def test_unspecified_is_said_by_saying_nothing():
    """RFC 5280 section 5.3.1."""
    listed = crl(crl_plan([revoked(reason=RevocationReason.UNSPECIFIED)], issuer(), number=1, now=NOW))
    (entry,) = listed
    assert len(entry.extensions) == 0


@pytest.mark.parametrize("number", [-1, 2**159])
def test_a_number_that_no_list_can_have_is_bad_input(number: int):
    """RFC 5280 section 5.2.3: 20 octets, not negative."""
    with pytest.raises(BadInput, match="number"):
        crl_plan((), issuer(), number=number, now=NOW)


@pytest.mark.parametrize("number", [0, 2**159 - 1])
def test_the_least_and_the_largest_number_are_written(number: int):
    """The bounds themselves are within."""
    listed = crl(crl_plan((), issuer(), number=number, now=NOW))
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == number


# Lists whose entries somebody else keeps


def uris(*urls: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(url) for url in urls]


def built_around(outline: CrlOutline) -> x509.CertificateRevocationList:
    """Make the same list with the builder of `cryptography`, with one entry."""
    ca = x509.load_der_x509_certificate(ca_der())
    ski = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
    builder = x509.CertificateRevocationListBuilder(ca.subject, outline.window.not_before, outline.window.not_after)
    builder = builder.add_extension(aki, critical=False).add_extension(x509.CRLNumber(outline.number), critical=False)
    if outline.base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(outline.base), critical=True)
    if outline.places:
        place = x509.IssuingDistributionPoint(uris(*outline.places), None, False, False, None, False, False)
        builder = builder.add_extension(place, critical=True)
    if outline.freshest:
        point = x509.DistributionPoint(uris(outline.freshest), None, None, None)
        builder = builder.add_extension(x509.FreshestCRL([point]), critical=False)
    one = x509.RevokedCertificateBuilder(0xABC, whole_second(NOW)).build()
    return builder.add_revoked_certificate(one).sign(issuer_key(), hashes.SHA256())


@given(
    st.none() | st.integers(0, 2**100),
    st.lists(st.sampled_from(["http://a/0.crl", "http://b/0.crl"]), unique=True),
    st.sampled_from(["", "http://a/0-delta.crl"]),
)
def test_what_stands_around_entries_is_what_the_builder_writes(base: int | None, places: list[str], freshest: str):
    """Byte for byte: a shard, a list of changes, a list that names its changes."""
    window = crl_plan((), issuer(), number=1, now=NOW).window
    outline = CrlOutline(issuer=issuer(), number=9, window=window, places=tuple(places), freshest=freshest, base=base)
    listed = entry("0abc", int(NOW.timestamp()), "unspecified")
    before, after = around(outline, len(listed))
    assert before + listed + after == built_around(outline).tbs_certlist_bytes


@given(st.integers(0, 70000))
def test_what_stands_around_a_signed_list_is_what_is_assembled(size: int):
    """For any length of it, in the shortest form."""
    before, after = around(
        CrlOutline(issuer=issuer(), number=1, window=crl_plan((), issuer(), number=1, now=NOW).window), size
    )
    message = before + bytes(size) + after
    head, tail = signed(len(message), issuer(), b"signature")
    assert head + message + tail == der.sequence(message, issuer().algorithm.identifier, der.bit_string(b"signature"))


@pytest.mark.parametrize("serial", ["00", "01", "7f", "80", "0080", "ff" * 20, "00" * 3 + "01"])
def test_an_entrys_serial_is_an_integer(serial: str):
    """Whatever its spelling, it is written in as few octets as keep its sign."""
    wanted = der.sequence(der.integer(int(serial, 16)), der.time(NOW))
    assert entry(serial, int(NOW.timestamp()), "unspecified") == wanted
