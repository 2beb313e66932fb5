import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.spiffe import MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, TrustDomain

SEGMENT = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(lambda s: s not in {".", ".."})
DOMAIN = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)


@pytest.mark.parametrize("name", ["example.org", "a", "a_b-c.1", "a" * MAX_TRUST_DOMAIN_BYTES])
def test_trust_domains(name: str):
    """Lower case letters, digits, dots, dashes and underscores, 255 at most, are a trust domain."""
    assert str(TrustDomain(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "Example.org", "a:80", "user@a", "a/b", "a b", "\u00e4", "a\n", "%61", "a" * (MAX_TRUST_DOMAIN_BYTES + 1)],
)
def test_what_is_no_trust_domain(name: str):
    """Upper case, ports, users, escapes, other letters and long names are refused."""
    with pytest.raises(BadInput):
        TrustDomain(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe:///payments",
        "SPIFFE://example.org/payments",
        "https://example.org/payments",
        "spiffe://example.org/payments/",
        "spiffe://example.org//payments",
        "spiffe://example.org/./payments",
        "spiffe://example.org/../payments",
        "spiffe://example.org/pay%6dents",
        "spiffe://example.org/payments?x=1",
        "spiffe://example.org/payments#x",
        "spiffe://example.org/payments\n",
        "spiffe://example.org:443/payments",
        "spiffe://example.org/two,URI=spiffe://example.org/admin",
        " spiffe://example.org/payments",
    ],
)
def test_what_is_no_spiffe_id(text: str):
    """Other schemes, empty or relative segments, escapes, queries, ports and bare trust domains are refused."""
    with pytest.raises(BadInput):
        SpiffeId.parse(text)


def test_an_id_has_a_length():
    """2,048 bytes are an id, one more is none."""
    head = "spiffe://a/"
    assert len(str(SpiffeId.parse(head + "x" * (MAX_ID_BYTES - len(head))))) == MAX_ID_BYTES
    with pytest.raises(BadInput):
        SpiffeId.parse(head + "x" * (MAX_ID_BYTES - len(head) + 1))


@given(domain=DOMAIN, segments=st.lists(SEGMENT, min_size=1, max_size=5))
def test_an_id_is_its_text(domain: str, segments: list[str]):
    """Parsing gives back what was written, and the name is the path without its first slash."""
    text = f"spiffe://{domain}/{'/'.join(segments)}"
    identity = SpiffeId.parse(text)
    assert str(identity) == text
    assert identity == TrustDomain(domain).id(identity.name)


@given(st.text() | st.text().map(lambda text: f"spiffe://example.org/{text}"))
def test_any_text_is_an_id_or_bad_input(text: str):
    """What is accepted holds nothing but the letters of SPIFFE-ID section 2."""
    try:
        identity = SpiffeId.parse(text)
    except BadInput:
        return
    assert str(identity) == text
    assert re.fullmatch(r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+", text)
