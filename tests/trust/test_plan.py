from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window, whole_second
from handfast.trust import der
from handfast.trust.entries import LONGEST_TTL, Workload
from handfast.trust.plan import CsrFacts, LeafPlan, LeafRequest, is_dns_name, plan, read_csr, serial_from
from handfast.trust.profile import LEAF
from tests.trust.material import (
    DOMAIN,
    NOW,
    PAYMENTS,
    csr_der,
    csr_facts,
    dns_names,
    issuer,
    planned,
    plans,
    private_key,
    request,
)

SERIAL = serial_from(bytes(20))
ENTRY = Workload(PAYMENTS, dns=("payments.internal", "pay.internal"), ttl=timedelta(hours=1))


def outcome(asked: LeafRequest, workload: Workload | None = None, now: datetime = NOW) -> LeafPlan | Refusal:
    return plan(asked, issuer(), workload=workload, now=now, serial=SERIAL)


def reason(found: object) -> Reason:
    assert isinstance(found, Refusal), found
    return found.reason


# --- CSRs


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_a_csr_gives_its_key_whole(kind: str):
    """The key, its kind and its identifier come from the CSR, in PEM and in DER alike."""
    key = private_key(kind)
    found = read_csr(csr_der(key))
    as_pem = x509.load_der_x509_csr(csr_der(key)).public_bytes(Encoding.PEM)
    assert isinstance(found, CsrFacts)
    assert read_csr(as_pem) == found
    assert found.key_id == x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest


@pytest.mark.parametrize("kind", ["p521", "rsa1024"])
def test_a_csr_for_a_key_that_is_not_allowed_is_refused(kind: str):
    """The refusal names the key."""
    found = read_csr(csr_der(private_key(kind)))
    assert reason(found) is Reason.ISSUANCE_KEY_NOT_ALLOWED
    assert isinstance(found, Refusal)
    assert found.evidence["key"] in {"ec secp521r1", "rsa 1024"}


def test_a_csr_for_a_key_with_a_small_exponent_is_refused():
    """RSA with exponent 3 is not allowed, whatever its size."""
    assert reason(read_csr(csr_der(rsa.generate_private_key(3, 2048)))) is Reason.ISSUANCE_KEY_NOT_ALLOWED


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_a_csr_that_is_not_signed_with_its_own_key_is_refused(kind: str):
    """A changed signature proves nothing."""
    data = bytearray(csr_der(private_key(kind)))
    data[-1] ^= 1
    assert reason(read_csr(bytes(data))) is Reason.ISSUANCE_BAD_PROOF


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_a_csr_may_be_signed_with_any_digest(digest: hashes.HashAlgorithm):
    """The request names it, and what it names is what is checked."""
    made = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(private_key(), digest)
    assert made.is_signature_valid
    assert isinstance(read_csr(made.public_bytes(Encoding.DER)), CsrFacts)


@pytest.mark.parametrize(
    "other",
    ["1.2.840.10045.4.3.3", "1.2.840.113549.1.1.11", "1.3.101.112", "1.2.3"],
    ids=["sha384", "rsa", "ed25519", "unknown"],
)
def test_a_csr_that_names_another_algorithm_than_its_own_is_refused(other: str):
    """One digest for another, or another kind of key's signature, proves nothing."""
    request_info, _, signature = der.children(csr_der(private_key()))
    data = der.sequence(request_info, der.sequence(der.oid(other)), signature)
    assert reason(read_csr(data)) is Reason.ISSUANCE_BAD_PROOF


def test_a_csr_with_another_name_than_was_signed_is_refused():
    """The signature covers the whole request, not the key alone."""
    data = csr_der(private_key(), name="payments").replace(b"payments", b"payment5")
    assert reason(read_csr(data)) is Reason.ISSUANCE_BAD_PROOF


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN", b"\x30\x00", b"x" * 16385, b"-----BEGIN CERTIFICATE REQUEST-----\n-----END"]
)
def test_what_is_not_a_csr_is_bad_input(data: bytes):
    """Garbage and what is too large are refused at the door."""
    with pytest.raises(BadInput):
        read_csr(data)


def test_a_csr_that_is_too_large_is_not_even_parsed():
    """A good request with a lot of text before it is one byte too much."""
    text = x509.load_der_x509_csr(csr_der(private_key())).public_bytes(Encoding.PEM)
    filling = b"x" * (16 * 1024 - len(text) - 1) + b"\n"
    assert isinstance(read_csr(filling + text), CsrFacts)
    with pytest.raises(BadInput, match="larger"):
        read_csr(b"x" + filling + text)


def test_a_csr_of_a_version_that_does_not_exist_is_bad_input():
    """The library raises this apart from its other errors."""
    version_1, version_4 = b"\x02\x01\x00", b"\x02\x01\x03"
    with pytest.raises(BadInput):
        read_csr(csr_der(private_key()).replace(version_1, version_4, 1))


@given(st.data())
def test_a_changed_csr_is_read_or_refused_and_raises_nothing_else(data: st.DataObject):
    """Whatever is flipped, inserted or cut, the outcome is a value or `BadInput`."""
    whole = bytearray(csr_der(private_key(data.draw(st.sampled_from(["p256", "rsa2048", "ed25519"])))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        found = read_csr(bytes(whole))
    except BadInput:
        return
    assert isinstance(found, CsrFacts | Refusal)


# --- identities


def test_a_plan_says_what_was_asked():
    """Identity, names, key, issuer and serial are the given ones."""
    found = planned(request(dns=("a.internal",)))
    assert (found.identity, found.dns, found.subject, found.issuer) == (
        PAYMENTS,
        ("a.internal",),
        csr_facts(),
        issuer(),
    )


def test_another_trust_domain_is_refused():
    """An issuer names identities of its own trust domain alone."""
    foreign = TrustDomain("example.com").id("payments")
    assert reason(outcome(request(foreign))) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_reserved_names_are_for_the_platform():
    """A name below the reserved prefix needs a request of the platform's own."""
    agent = DOMAIN.id("handfast/agent/a")
    assert reason(outcome(request(agent))) is Reason.ENTRY_RESERVED
    assert isinstance(outcome(request(agent, reserved=True)), LeafPlan)


def test_the_entry_of_another_identity_grants_nothing():
    """An entry counts for its own identity alone."""
    assert reason(outcome(request(DOMAIN.id("ledger")), ENTRY)) is Reason.ENTRY_NO_MATCH


def test_the_common_name_is_the_last_segment_cut_to_64():
    """People see a short name, and X.520 its limit."""
    assert planned(request(DOMAIN.id("team/payments"))).common_name == "payments"
    assert planned(request(DOMAIN.id("team/" + "p" * 65))).common_name == "p" * 64


# --- DNS names


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "a.internal",
        "*.a.internal",
        "xn--bcher-kva.example",
        "0.a",
        "a-b.c",
        "a" * 63 + ".a",
        ".".join(["a" * 49] * 5),
    ],
)
def test_good_dns_names_pass(name: str):
    """Lower case letters, digits and hyphens in labels of 63."""
    assert is_dns_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "a.", ".a", "a..b", "A.internal", "a_b.internal", "-a.internal", "a-.internal", "*", "*.internal",
        "a.*.internal", "*a.internal", "**.a.b", "*.*.a.b", "10.0.0.1", "a.1", "ab--c.internal", "a,b.internal",
        "a;b.internal", "a=b.internal", 'a"b.internal', "a b.internal", "a\n.internal", "a.internal\n", "a\0.internal",
        "bücher.example", "a/b.internal", "a" * 64 + ".a", ".".join(["a" * 63] * 4), "[::1]", "*.",
    ],
)  # fmt: skip
def test_bad_dns_names_are_refused_by_name(name: str):
    """What is no DNS name never reaches a certificate, whoever asks."""
    assert not is_dns_name(name)
    found = outcome(request(dns=(name,)))
    assert reason(found) is Reason.ISSUANCE_NAME_NOT_ALLOWED


@given(st.text(max_size=40))
def test_a_dns_name_never_has_a_character_that_envoy_would_not_escape(name: str):
    """Whatever passes can stand in a header between commas and semicolons."""
    if is_dns_name(name):
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.*")


@given(dns_names)
def test_generated_dns_names_pass(name: str):
    """The strategy that the other tests stand on makes good names."""
    assert is_dns_name(name)


def test_a_bad_name_in_an_entry_is_refused_too():
    """An entry that was read wrongly does not open a door."""
    bad = replace(ENTRY, dns=("payments.internal,evil",))
    assert reason(outcome(request(), bad)) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_more_than_100_names_are_refused():
    """A hundred pass, a hundred and one do not."""
    names = tuple(f"a{n}.internal" for n in range(101))
    assert isinstance(outcome(request(dns=names[:100])), LeafPlan)
    assert reason(outcome(request(dns=names))) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_an_entry_bounds_the_names_and_gives_them_where_none_are_asked():
    """Some of the entry's names, or none for all of them; no other, and no wildcard's meaning."""
    some, every = outcome(request(dns=("pay.internal",)), ENTRY), outcome(request(), ENTRY)
    assert isinstance(some, LeafPlan)
    assert isinstance(every, LeafPlan)
    assert (some.dns, every.dns) == (("pay.internal",), ENTRY.dns)
    assert reason(outcome(request(dns=("ledger.internal",)), ENTRY)) is Reason.ISSUANCE_NAME_NOT_ALLOWED
    wild = replace(ENTRY, dns=("*.pay.internal",))
    assert reason(outcome(request(dns=("a.pay.internal",)), wild)) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_an_entry_without_names_grants_none():
    """No name of an entry is not any name."""
    bare = replace(ENTRY, dns=())
    assert reason(outcome(request(dns=("pay.internal",)), bare)) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_a_name_asked_for_twice_stands_there_once():
    """The order is that of the request."""
    assert planned(request(dns=("b.a", "a.a", "b.a"))).dns == ("b.a", "a.a")


# --- life


def test_a_life_begins_a_minute_ago_in_whole_seconds():
    """Backdated for slow clocks, and cut as X.509 cuts."""
    window = planned(request(ttl=timedelta(hours=1))).window
    second = whole_second(NOW)
    assert window == Window(second - timedelta(seconds=60), second + timedelta(hours=1))


@pytest.mark.parametrize(
    ("asked", "entry", "wanted"),
    [
        (None, None, timedelta(hours=24)),
        (None, ENTRY, timedelta(hours=1)),
        (timedelta(minutes=5), ENTRY, timedelta(minutes=5)),
        (timedelta(hours=1), ENTRY, timedelta(hours=1)),
        (LONGEST_TTL, None, LONGEST_TTL),
        (None, replace(ENTRY, ttl=timedelta(days=1000)), LONGEST_TTL),
    ],
)
def test_a_life_is_the_one_asked_or_the_entrys_or_a_day(
    asked: timedelta | None, entry: Workload | None, wanted: timedelta
):
    """What is not asked for is the entry's, or a day; nothing is over the longest."""
    found = outcome(request(ttl=asked), entry)
    assert isinstance(found, LeafPlan)
    assert found.window.not_after == whole_second(NOW) + wanted


@pytest.mark.parametrize(
    ("asked", "entry"),
    [
        (LONGEST_TTL + timedelta(seconds=1), None),
        (timedelta(hours=1, seconds=1), ENTRY),
        (timedelta(days=400), replace(ENTRY, ttl=timedelta(days=1000))),
        (timedelta.max, None),
    ],
)
def test_a_life_that_is_too_long_is_refused(asked: timedelta, entry: Workload | None):
    """The entry's life is the longest, and the profile's is without one."""
    assert reason(outcome(request(ttl=asked), entry)) is Reason.ISSUANCE_TOO_LONG


@pytest.mark.parametrize("ttl", [timedelta(seconds=4), timedelta(0), timedelta(days=-1)])
def test_a_life_that_is_too_short_is_bad_input(ttl: timedelta):
    """A request for no life at all cannot be made."""
    with pytest.raises(BadInput, match="5 seconds"):
        request(ttl=ttl)


def test_a_leaf_never_outlives_its_issuer():
    """To the second it may, one more it may not."""
    end = issuer().window.not_after
    asked = request(ttl=timedelta(hours=1))
    assert isinstance(outcome(asked, now=end - timedelta(hours=1)), LeafPlan)
    assert reason(outcome(asked, now=end - timedelta(minutes=59, seconds=59))) is Reason.ISSUANCE_ISSUER_ENDS


def test_a_clock_before_the_issuers_begin_is_refused():
    """A certificate of an issuer that is not valid yet helps nobody."""
    begin = issuer().window.not_before
    assert reason(outcome(request(), now=begin - timedelta(seconds=1))) is Reason.CERT_NOT_YET_VALID


def test_backdating_stops_at_the_issuers_begin():
    """A leaf made in its issuer's first minute does not begin before it."""
    begin = issuer().window.not_before
    found = outcome(request(), now=begin + timedelta(seconds=5))
    assert isinstance(found, LeafPlan)
    assert found.window.not_before == begin


@given(plans())
def test_every_plan_lies_within_its_issuers_window(made: LeafPlan):
    """Whatever is asked and whenever, the leaf lives within its issuer and at most as long as the profile says."""
    assert issuer().window.not_before <= made.window.not_before
    assert made.window.not_after <= issuer().window.not_after
    assert made.window.length <= LONGEST_TTL + timedelta(seconds=60)


# --- serials


@given(st.binary(min_size=20, max_size=20))
def test_a_serial_has_159_bits_and_20_octets(random: bytes):
    """Positive and of one length, whatever chance gives."""
    assert serial_from(random).bit_length() == 159


@given(st.binary(min_size=20, max_size=20), st.integers(0, 157))
def test_every_bit_of_chance_below_the_highest_counts(random: bytes, bit: int):
    """158 bits of the serial are chance."""
    flipped = (int.from_bytes(random, "big") ^ 1 << bit).to_bytes(20, "big")
    assert serial_from(random) ^ serial_from(flipped) == 1 << bit


@pytest.mark.parametrize("size", [0, 8, 19, 21])
def test_a_serial_of_another_length_is_refused(size: int):
    """Too little chance is no serial."""
    with pytest.raises(BadInput):
        serial_from(bytes(size))


def test_the_names_in_a_csr_do_not_count():
    """A CSR that asks for another name gets none of it."""
    key = private_key()
    names = x509.SubjectAlternativeName([x509.DNSName("evil.internal")])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    found = read_csr(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    assert found == csr_facts()


# The trust domain's own limits

NARROW = replace(LEAF, identities=("team/*",), dns=("*.internal",), longest=timedelta(hours=2))


def test_a_trust_domains_own_limits_bind_whoever_asks():
    """Names and lives that are not among them are refused, with or without an entry."""
    inside = replace(request(DOMAIN.id("team/payments"), dns=("pay.internal",), ttl=timedelta(hours=2)), profile=NARROW)
    assert isinstance(outcome(inside), LeafPlan)
    for outside, why in (
        (replace(inside, identity=DOMAIN.id("payments")), Reason.ISSUANCE_NAME_NOT_ALLOWED),
        (replace(inside, dns=("pay.example.org",)), Reason.ISSUANCE_NAME_NOT_ALLOWED),
        (replace(inside, ttl=timedelta(hours=3)), Reason.ISSUANCE_TOO_LONG),
    ):
        assert reason(outcome(outside)) is why
    entry = Workload(DOMAIN.id("team/payments"), dns=("pay.example.org",), ttl=timedelta(hours=1))
    assert reason(outcome(replace(inside, dns=(), ttl=None), entry)) is Reason.ISSUANCE_NAME_NOT_ALLOWED


def test_without_a_life_asked_for_the_longest_counts_where_a_day_is_too_long():
    """The usual day is cut to what the trust domain allows."""
    found = planned(replace(request(DOMAIN.id("team/payments")), profile=NARROW))
    assert found.window.not_after - NOW <= timedelta(hours=2)


def test_the_platforms_own_certificates_are_not_bound_by_them():
    """A narrow policy must not keep the server and the gateways from serving."""
    own = replace(
        request(DOMAIN.id("handfast/server"), dns=("localhost",), ttl=timedelta(days=7), reserved=True), profile=NARROW
    )
    assert isinstance(outcome(own), LeafPlan)
