import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority, create_authority
from handfast.io.ca_lists import read_list
from handfast.io.signers import KeyKind, new_authority_key, public_der
from handfast.trust import der
from handfast.trust.algorithms import algorithm_of
from handfast.trust.revocation import crl_plan, tbs
from tests.support.clock import START, FakeClock


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Authority]:
    """Give two authorities of the same name."""
    place = tmp_path_factory.mktemp("two")
    return [create_authority(place / name, TrustDomain("example.org"), FakeClock(), None) for name in "ab"]


async def test_a_list_is_read_in_both_forms(two: list[Authority]):
    """PEM, as slices have it, and DER, as it is served."""
    text = (await two[0].crl([], 7, START)).encode()
    listed = read_list(text, two[0].issuing_der, 7)
    assert listed is not None
    assert read_list(listed.public_bytes(Encoding.DER), two[0].issuing_der, 7) == listed


async def test_a_list_that_is_not_the_issuers_or_not_that_number_is_none(two: list[Authority]):
    """Whoever can write to where it lies cannot make one, nor pass one off as another."""
    one, other = two
    text = (await one.crl([], 7, START)).encode()
    der = x509.load_pem_x509_crl(text).public_bytes(Encoding.DER)
    assert read_list(text, other.issuing_der, 7) is None
    assert read_list(text, one.issuing_der, 8) is None
    assert read_list(der[:-1] + bytes([der[-1] ^ 1]), one.issuing_der, 7) is None
    for spoilt in (b"", b"\x30\x00", b"-----BEGIN X509 CRL-----", der[:-2], one.issuing_der):
        assert read_list(spoilt, one.issuing_der, 7) is None


async def test_a_list_under_another_algorithm_is_none(two: list[Authority]):
    """The algorithm follows from the key: a list that names another one is none of ours, whoever signed it."""
    one = two[0]
    other = algorithm_of(public_der(new_authority_key(KeyKind.P384)))
    plain = tbs(crl_plan([], one.issuer_facts, number=7, now=START))
    own = one.issuer_facts.algorithm.identifier
    inside = plain.replace(own, other.identifier)
    for listed, named, read in (
        (plain, own, True),
        (inside, other.identifier, False),
        (inside, own, False),
        (plain, other.identifier, False),
    ):
        signature = await one.signer.sign(listed)
        made = der.sequence(listed, named, der.bit_string(signature))
        assert (read_list(made, one.issuing_der, 7) is not None) is read
