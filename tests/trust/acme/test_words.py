"""The small parts: problems, identifiers, contacts, profiles, CSRs."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import TrustDomain
from handfast.trust.acme.accounts import Account, Binding, read_contact
from handfast.trust.acme.csr import read_order_csr
from handfast.trust.acme.identifiers import check_granted, read_identifiers
from handfast.trust.acme.problems import AcmeError, Problem, problem_of
from handfast.trust.acme.profiles import DEFAULT_PROFILE, PROFILES, check_profile, life
from handfast.trust.csr import CsrFacts
from handfast.trust.entries import LONGEST_TTL, Workload
from handfast.trust.plan import is_dns_name
from handfast.trust.profile import LEAF
from tests.support.acme import Csr, make_key
from tests.trust.material import planned, request

NOW = datetime(2026, 3, 4, tzinfo=UTC)
ACCOUNT = make_key()
HOUR = timedelta(hours=1)
GOOD = Csr(["a.internal"]).der


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_can_be_told(reason: Reason):
    """Any reason of the platform's becomes a problem with an HTTP status, its words bounded."""
    told = problem_of(Refusal(reason, {"seen": "x" * 1000}), "a.internal")
    assert told.http_status in range(400, 600)
    assert len(told.detail) <= 400
    assert told.identifier == "a.internal"
    assert told.error.urn == f"urn:ietf:params:acme:error:{told.error}"


@given(st.lists(st.fixed_dictionaries({"type": st.just("dns"), "value": st.text(max_size=30)}), max_size=5))
def test_identifiers_are_names(identifiers: list[dict[str, str]]):
    """What is read are names that a certificate can carry, each once."""
    outcome = read_identifiers(identifiers)
    if not isinstance(outcome, Problem):
        assert all(map(is_dns_name, outcome))
        assert len(set(outcome)) == len(outcome) > 0


@given(st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["type", "value"]), x)))  # fmt: skip
def test_anything_is_read_or_refused(plain: object):
    """Identifiers and contacts are strangers' words."""
    assert isinstance(read_identifiers(plain), tuple | Problem)
    assert isinstance(read_contact(plain), tuple | Problem)


def test_a_name_is_granted_or_not():
    """Exactly: what lies below a granted name is another name."""
    assert check_granted(["a.internal"], ["a.internal"]) is None
    for wrong in ("b.a.internal", "internal", "*.a.internal"):
        refused = check_granted(["a.internal", wrong], ["a.internal"])
        assert refused
        assert (refused.error, refused.identifier) == (AcmeError.REJECTED_IDENTIFIER, wrong)


def test_a_binding_ends():
    """By time, and by number."""
    binding = Binding(id="b", name="a", domains=(), accounts=1, expires=NOW)
    assert binding.open(NOW - HOUR)
    assert not binding.open(NOW)
    assert not Binding(id="b", name="a", domains=(), accounts=0, expires=NOW).open(NOW - HOUR)


def test_the_worlds_entry_counts():
    """Where there is one, it says which names; else the binding does."""
    account = Account(id="a", key=ACCOUNT.account_key, name="wiki", domains=("w.internal",), binding="b", created=NOW)
    entry = Workload(TrustDomain("example.org").id("wiki"), ("x.internal",))
    assert account.granted(None) == ("w.internal",)
    assert account.granted(entry) == ("x.internal",)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ttl", [timedelta(minutes=5), HOUR * 24, LONGEST_TTL])
def test_a_profile_grants_no_more_than_the_entry(profile: str, ttl: timedelta):
    """Nor than the most that the world issues."""
    entry = Workload(TrustDomain("example.org").id("a"), (), ttl)
    assert life(profile, entry, LONGEST_TTL) <= ttl
    assert life(profile, entry, HOUR) <= HOUR
    assert life(profile, None, LONGEST_TTL) <= timedelta(hours=24)


def test_profiles_are_listed():
    """What is not listed is refused."""
    assert check_profile(DEFAULT_PROFILE) is None
    refused = check_profile("")
    assert refused
    assert refused.error is AcmeError.INVALID_PROFILE


def test_a_csr_gives_its_key():
    """The names are the order's, in whatever case and order; the common name may be among them."""
    for csr in (
        Csr(["b.internal", "A.internal"]),
        Csr(["a.internal", "b.internal"], "B.INTERNAL"),
        Csr(["a.internal"], "b.internal"),
        Csr(["a.internal", "b.internal"], key=ed25519.Ed25519PrivateKey.generate()),
    ):
        outcome = read_order_csr(csr.der, ["a.internal", "b.internal"], ACCOUNT.account_key, LEAF)
        assert isinstance(outcome, CsrFacts), outcome


@pytest.mark.parametrize(
    "more",
    [
        x509.UniformResourceIdentifier("spiffe://example.org/other"),
        x509.RFC822Name("a@a.internal"),
        x509.DNSName("b.internal"),
        x509.DNSName("*.a.internal"),
    ],
)
def test_a_csr_asks_for_nothing_else(more: x509.GeneralName):
    """Another kind of name would not be given, so it is refused and not passed over."""
    outcome = read_order_csr(Csr(["a.internal"], more=[more]).der, ["a.internal"], ACCOUNT.account_key, LEAF)
    assert isinstance(outcome, Problem)
    assert outcome.error is AcmeError.BAD_CSR


@given(st.data())
def test_a_spoilt_csr_is_refused(data: st.DataObject):
    """One octet changed: its proof of possession is gone, or it cannot be read."""
    raw = bytearray(GOOD)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    assert isinstance(read_order_csr(bytes(raw), ["a.internal"], ACCOUNT.account_key, LEAF), CsrFacts | Problem)


def test_a_common_name_is_one_of_the_names():
    """The first that has room in it; the workload's where none has, or where nobody asked for it."""
    short, long = "a.internal", f"{'a' * 60}.internal"
    for names, expected in (((long, short), short), ((long,), "payments"), ((), "payments")):
        assert planned(replace(request(dns=names), named_by_dns=True)).common_name == expected
    assert planned(request(dns=(short,))).common_name == "payments"
