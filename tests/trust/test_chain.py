from __future__ import annotations

from functools import cache

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.trust.chain import explain_chain
from tests.support.pki import Issued, Pki


@cache
def ours() -> Pki:
    return Pki()


@cache
def older() -> Pki:
    """Another installation with the same names."""
    return Pki()


@cache
def foreign() -> Pki:
    return Pki("Foreign")


def known(*pkis: Pki) -> list[bytes]:
    roots = [pki.root.public_bytes(Encoding.DER) for pki in pkis if pki.root]
    return [*roots, *(pki.issuing.cert_der for pki in pkis)]


def why(leaf: Issued, *pkis: Pki, sent_others: int = 0) -> Reason:
    return explain_chain(leaf.cert_der, sent_others=sent_others, known=known(*pkis))


def test_a_leaf_alone_of_a_known_issuing_authority_lacks_its_intermediate():
    """The name is known, the signature verifies, and nothing else was sent."""
    assert why(ours().leaf(), ours(), foreign()) is Reason.CHAIN_MISSING_INTERMEDIATE


def test_a_leaf_of_a_known_issuing_authority_that_came_with_others_has_an_unknown_root():
    """Something was sent, so what is missing is trust, not the intermediate."""
    assert why(ours().leaf(), ours(), sent_others=1) is Reason.CHAIN_UNKNOWN_AUTHORITY


def test_one_of_two_intermediates_is_not_enough():
    """Where a CA stands between root and issuing CA, both have to be sent; with both, what is missing is trust."""
    pki = Pki(between=True)
    cas = [*known(pki), *(one.public_bytes(Encoding.DER) for one in pki.issuing.above)]
    told = [explain_chain(pki.leaf().cert_der, sent_others=sent, known=cas) for sent in range(3)]
    missing, unknown = Reason.CHAIN_MISSING_INTERMEDIATE, Reason.CHAIN_UNKNOWN_AUTHORITY
    assert told == [missing, missing, unknown]
    # Where the upper one is not known here, one more than the issuing CA cannot be asked for.
    assert why(pki.leaf(), pki, sent_others=1) is unknown


def test_a_leaf_of_another_installation_has_the_same_name_and_another_key():
    """The name is known, and no key of that name signed it."""
    assert why(older().leaf(), ours()) is Reason.CHAIN_SAME_NAME_OTHER_KEY
    assert why(older().leaf(), ours(), sent_others=1) is Reason.CHAIN_SAME_NAME_OTHER_KEY


def test_one_of_two_authorities_of_the_same_name_is_found():
    """An older authority that is still known counts, whatever the order."""
    leaf = older().leaf()
    assert why(leaf, ours(), older()) is Reason.CHAIN_MISSING_INTERMEDIATE
    assert why(leaf, older(), ours()) is Reason.CHAIN_MISSING_INTERMEDIATE


def test_a_leaf_of_an_authority_that_nobody_knows_is_unknown():
    """No name fits."""
    assert why(foreign().leaf(), ours()) is Reason.CHAIN_UNKNOWN_AUTHORITY
    assert why(ours().leaf()) is Reason.CHAIN_UNKNOWN_AUTHORITY


def test_a_leaf_of_a_root_that_is_known_lacks_no_intermediate():
    """A root signed it, and that root does not count at this host."""
    root = ours().root
    assert root is not None
    leaf = explain_chain(ours().issuing.cert_der, sent_others=0, known=[root.public_bytes(Encoding.DER)])
    assert leaf is Reason.CHAIN_UNKNOWN_AUTHORITY


def test_a_self_signed_leaf_is_told_whoever_is_known():
    """Its own name and its own key signed it."""
    assert why(ours().leaf(self_signed=True), ours()) is Reason.CERT_SELF_SIGNED


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"x" * 100_000])
def test_a_leaf_that_cannot_be_read_is_told(data: bytes):
    """Garbage is a reason, not an exception."""
    assert explain_chain(data, sent_others=0, known=known(ours())) is Reason.CERT_UNREADABLE


def test_what_cannot_be_read_among_the_known_is_passed_over():
    """One damaged authority hides no other."""
    with_garbage = [b"", b"garbage", *known(ours())]
    found = explain_chain(ours().leaf().cert_der, sent_others=0, known=with_garbage)
    assert found is Reason.CHAIN_MISSING_INTERMEDIATE


@cache
def some_leaf() -> Issued:
    return ours().leaf()


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.data())
def test_a_changed_leaf_is_never_said_to_be_signed_by_us(data: st.DataObject):
    """One changed octet of what was signed gives a reason, and not the one that says that the signature is good."""
    tbs = some_leaf().cert.tbs_certificate_bytes
    changed = bytearray(some_leaf().cert_der)
    at = changed.index(tbs) + data.draw(st.integers(0, len(tbs) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    found = explain_chain(bytes(changed), sent_others=0, known=known(ours()))
    assert found in {Reason.CERT_UNREADABLE, Reason.CHAIN_SAME_NAME_OTHER_KEY, Reason.CHAIN_UNKNOWN_AUTHORITY}
