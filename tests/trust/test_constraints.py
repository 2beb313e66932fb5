from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import TrustDomain
from handfast.trust import leaf
from handfast.trust.constraints import NameConstraints, breaches, exceeds, permitted, read, written
from handfast.trust.lint import lint
from handfast.trust.plan import LeafPlan, plan, serial_from
from tests.trust.material import DOMAIN, NOW, dns_names, issuer, planned, request

INTERNAL = permitted(DOMAIN, ["internal"])


def extensions(value: x509.NameConstraints) -> x509.Extensions:
    return x509.Extensions([x509.Extension(x509.NameConstraints.oid, critical=True, value=value)])


def refused(constraints: NameConstraints, *dns: str, host: str = "example.org", name: str = "") -> dict[str, str]:
    return dict(breaches(constraints, host, dns, name))


@pytest.mark.parametrize(
    ("permitted_dns", "name", "passes"),
    [
        ("internal", "internal", True),
        ("internal", "a.internal", True),
        ("internal", "a.b.internal", True),
        ("internal", "*.internal", True),
        ("internal", "ainternal", False),
        ("internal", "internal.org", False),
        ("a.internal", "internal", False),
        ("a.internal", "*.internal", False),
        ("a.internal", "*.a.internal", True),
        (".internal", "a.internal", True),
        (".internal", "internal", False),
    ],
)
def test_a_permitted_name_stands_for_itself_and_all_below(permitted_dns: str, name: str, passes: bool):
    """RFC 5280 section 4.2.1.10: labels are added on the left. A dot in front, which some CAs write, leaves out the name itself."""
    assert (refused(NameConstraints(dns=(permitted_dns,)), name) == {}) is passes


@pytest.mark.parametrize(
    ("excluded", "name", "passes"),
    [
        ("secret.internal", "a.internal", True),
        ("secret.internal", "secret.internal", False),
        ("secret.internal", "x.secret.internal", False),
        ("secret.internal", "*.internal", False),
        ("secret.internal", "internal", True),
        ("secret.internal", "*.other", True),
        ("", "anything", False),
    ],
)
def test_an_excluded_name_takes_all_below_along_and_wildcards_above(excluded: str, name: str, passes: bool):
    """A wildcard that would cover an excluded name is excluded, too."""
    assert (refused(NameConstraints(excluded_dns=(excluded,)), name) == {}) is passes


@pytest.mark.parametrize(
    ("constraint", "host", "passes"),
    [
        ("example.org", "example.org", True),
        ("example.org", "a.example.org", False),
        (".example.org", "a.example.org", True),
        (".example.org", "example.org", False),
        ("example.com", "example.org", False),
    ],
)
def test_the_host_of_an_identity_is_exact_or_below_a_dot(constraint: str, host: str, passes: bool):
    """RFC 5280 section 4.2.1.10, for URIs."""
    assert (refused(NameConstraints(hosts=(constraint,)), host=host) == {}) is passes
    assert bool(refused(NameConstraints(excluded_hosts=(constraint,)), host=host)) is passes


def test_a_common_name_with_a_dot_counts_where_there_are_no_names():
    """OpenSSL takes it for a DNS name then, and would refuse the chain."""
    assert refused(INTERNAL, name="api.v2") == {"dns": "api.v2"}
    assert refused(INTERNAL, name="payments") == {}
    assert refused(INTERNAL, "a.internal", name="api.v2") == {}


def test_what_is_written_is_read():
    """The extension carries all four lists."""
    whole = NameConstraints(
        dns=("internal",), hosts=("example.org",), excluded_dns=("x.internal",), excluded_hosts=("a.b",)
    )
    assert read(extensions(written(whole))) == whole
    assert read(x509.Extensions([])) is None


def test_constraints_on_other_kinds_are_passed_over_or_refused():
    """Addresses and mail bind nothing that we write; a directory name would bind the subject."""
    addresses = x509.NameConstraints(None, [x509.IPAddress(ip_network("0.0.0.0/0")), x509.RFC822Name("example.org")])
    assert read(extensions(addresses)) == NameConstraints()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    for lists in (([x509.DirectoryName(name)], None), (None, [x509.DirectoryName(name)])):
        with pytest.raises(BadInput, match="DirectoryName"):
            read(extensions(x509.NameConstraints(*lists)))


@pytest.mark.parametrize("name", ["", ".internal", "*.internal", "Internal", "inter nal", "ü", "a;b"])
def test_what_no_constraint_can_carry_is_refused(name: str):
    """A dot or a star in front would mean something else to each TLS library."""
    with pytest.raises(BadInput, match="cannot be permitted"):
        permitted(DOMAIN, [name])


@pytest.mark.parametrize(
    ("inner", "outer", "beyond"),
    [
        (INTERNAL, INTERNAL, ""),
        (permitted(DOMAIN, ["a.internal"]), INTERNAL, ""),
        (permitted(DOMAIN, ["org"]), INTERNAL, "org"),
        (None, INTERNAL, "any DNS name"),
        (NameConstraints(hosts=("example.org",)), INTERNAL, "any DNS name"),
        (permitted(TrustDomain("example.com"), ["internal"]), INTERNAL, "example.com"),
        (INTERNAL, NameConstraints(excluded_dns=("x.internal",)), "x.internal"),
        (INTERNAL, NameConstraints(excluded_dns=("com",)), ""),
        (None, NameConstraints(excluded_dns=("com",)), "com"),
        (INTERNAL, permitted(DOMAIN, ["com", "internal"]), ""),
        (permitted(DOMAIN, ["a.internal"]), NameConstraints(excluded_dns=("internal",)), "internal"),
        (NameConstraints(excluded_dns=("internal",)), NameConstraints(excluded_dns=("x.internal",)), ""),
        (NameConstraints(excluded_dns=("x.internal",)), NameConstraints(excluded_dns=("internal",)), "internal"),
        (NameConstraints(hosts=(".example.org",)), NameConstraints(hosts=(".example.org",)), ""),
        (NameConstraints(hosts=(".a.example.org",)), NameConstraints(hosts=(".example.org",)), ""),
        (NameConstraints(hosts=(".example.org",)), NameConstraints(hosts=("example.org",)), ".example.org"),
    ],
)
def test_an_authority_below_may_not_name_more(inner: NameConstraints | None, outer: NameConstraints, beyond: str):
    """It could not anyway: TLS checks the whole chain, and would refuse what it issued."""
    assert exceeds(inner, outer) == beyond


@given(st.lists(dns_names, max_size=4), st.sampled_from(["internal", "a", "b.c"]))
def test_a_leaf_that_passes_below_passes_above(names: list[str], subtree: str):
    """Where the inner constraints do not exceed the outer ones, no leaf within the inner breaks the outer."""
    outer, inner = permitted(DOMAIN, [subtree]), permitted(DOMAIN, [f"x.{subtree}"])
    assert exceeds(inner, outer) == ""
    if not refused(inner, *names):
        assert not refused(outer, *names)


# --- in plan and lint


def constrained() -> LeafPlan:
    return replace(planned(request(dns=("a.internal",))), issuer=replace(issuer(), constraints=(INTERNAL,)))


@pytest.mark.parametrize("name", ["a.example.org", "*.example.org"])
def test_a_leaf_outside_is_refused_by_plan_with_a_reason(name: str):
    """Before a serial is spent, and with the names that would do."""
    bound = replace(issuer(), constraints=(INTERNAL,))
    outcome = plan(request(dns=("a.internal", name)), bound, workload=None, now=NOW, serial=serial_from(bytes(20)))
    assert isinstance(outcome, Refusal)
    assert outcome.reason is Reason.ISSUANCE_NAME_CONSTRAINT
    assert outcome.evidence == {"dns": name, "permitted": "dns internal; uri host example.org"}


def test_a_leaf_within_is_planned_and_linted():
    """Its names are permitted, and so is its trust domain."""
    bound = replace(issuer(), constraints=(INTERNAL,))
    outcome = plan(request(dns=("a.internal",)), bound, workload=None, now=NOW, serial=serial_from(bytes(20)))
    assert isinstance(outcome, LeafPlan)
    assert not isinstance(lint(leaf.tbs(outcome), outcome), Refusal)


def test_lint_finds_a_leaf_outside_by_itself():
    """It does not rely on plan: bytes that break the constraints are never signed."""
    slipped = replace(constrained(), dns=("a.example.org",))
    found = lint(leaf.tbs(slipped), slipped)
    assert isinstance(found, Refusal)
    assert "outside" in found.evidence["names"]


def test_the_constraints_of_each_authority_above_count():
    """A root's bind as well as the issuing CA's."""
    narrow = replace(issuer(), constraints=(INTERNAL, permitted(DOMAIN, ["a.internal"])))
    outcome = plan(request(dns=("b.internal",)), narrow, workload=None, now=NOW, serial=serial_from(bytes(20)))
    assert isinstance(outcome, Refusal)
