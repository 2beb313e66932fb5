from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.base.windows import Window, whole_second
from handfast.trust.addresses import StatusSite
from handfast.trust.csr import read_csr
from handfast.trust.entries import LONGEST_TTL, SHORTEST_TTL, Workload
from handfast.trust.plan import LEAST_LEFT, LeafPlan, LeafRequest, is_dns_name, plan, serial_from
from handfast.trust.profile import LEAF
from tests.trust.material import (
    DOMAIN,
    NOW,
    PAYMENTS,
    csr_facts,
    dns_names,
    issuer,
    planned,
    plans,
    private_key,
    reason,
    request,
)

SERIAL = serial_from(bytes(20))
ENTRY = Workload(PAYMENTS, dns=("payments.internal", "pay.internal"), ttl=timedelta(hours=1))


def outcome(asked: LeafRequest, workload: Workload | None = None, now: datetime = NOW) -> LeafPlan | Refusal:
    return plan(asked, issuer(), workload=workload, now=now, serial=SERIAL)


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


@pytest.mark.parametrize(
    ("left", "cut"),
    [(timedelta(hours=1), False), (timedelta(minutes=59, seconds=59), True), (LEAST_LEFT, True)],
)
def test_a_leaf_that_would_outlive_its_issuer_ends_with_it(left: timedelta, cut: bool):
    """To the second it may live as asked; one more is cut off, and the plan says so."""
    end = issuer().window.not_after
    found = outcome(request(ttl=timedelta(hours=1)), now=end - left)
    assert isinstance(found, LeafPlan)
    assert (found.window.not_after, found.cut_short) == (end, cut)


def test_an_issuer_that_is_about_to_end_cuts_nothing_short():
    """What would be left is of no use. A life that fits is granted all the same."""
    now = issuer().window.not_after - LEAST_LEFT + timedelta(seconds=1)
    refused = outcome(request(ttl=timedelta(hours=1)), now=now)
    assert reason(refused) is Reason.ISSUANCE_ISSUER_ENDS
    assert "handfast ca rotate" in Reason.ISSUANCE_ISSUER_ENDS.hint
    fitting = outcome(request(ttl=timedelta(minutes=4)), now=now)
    assert isinstance(fitting, LeafPlan)
    assert not fitting.cut_short


@given(st.integers(-10, 2 * 86400 * 10**6), st.integers(5, 2 * 86400))
def test_near_its_issuers_end_a_leaf_lives_as_long_as_it_can(left_us: int, ttl_s: int):
    """As asked where that fits, else to the end; and whatever is refused would have had next to nothing."""
    end = issuer().window.not_after
    now, ttl = end - timedelta(microseconds=left_us), timedelta(seconds=ttl_s)
    found = outcome(request(ttl=ttl), now=now)
    if isinstance(found, LeafPlan):
        assert found.window.not_after == min(whole_second(now + ttl), end)
        assert found.cut_short is (whole_second(now + ttl) > end)
    else:
        assert found.reason is Reason.ISSUANCE_ISSUER_ENDS
        assert end - now < min(ttl, LEAST_LEFT)


@pytest.mark.parametrize("after", [timedelta(0), timedelta(days=1)])
def test_an_issuer_that_has_ended_signs_nothing(after: timedelta):
    """Not even the shortest life."""
    shortest = request(ttl=SHORTEST_TTL)
    assert reason(outcome(shortest, now=issuer().window.not_after + after)) is Reason.ISSUANCE_ISSUER_ENDS


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


def test_an_entry_that_demands_staples_makes_its_certificates_do_so():
    """Whoever asks and with whatever profile: it follows from the entry alone, and changes nothing else of the profile."""
    strict, site = replace(ENTRY, must_staple=True), StatusSite("http://status.example.org")
    asked = replace(request(ttl=timedelta(minutes=5)), profile=replace(LEAF, longest=timedelta(hours=2)))
    demanding, plain = (
        plan(asked, issuer(), workload=one, now=NOW, serial=SERIAL, status=site) for one in (strict, ENTRY)
    )
    assert isinstance(demanding, LeafPlan)
    assert isinstance(plain, LeafPlan)
    assert (demanding.profile, plain.profile) == (replace(asked.profile, must_staple=True), asked.profile)
    assert replace(demanding, profile=plain.profile) == plain


def test_no_staple_is_demanded_that_nobody_could_get():
    """A certificate that names no responder would be refused by its clients wherever it is served."""
    assert reason(outcome(request(), replace(ENTRY, must_staple=True))) is Reason.ISSUANCE_NO_STATUS
