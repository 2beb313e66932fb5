from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import example, given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.trust import der
from handfast.trust.foreign import FIELDS, MAX_CAS, attributes, chained, confusable, ended, judge, read_ca
from tests.envoy_real.forging import (
    BMP,
    CN,
    DNS,
    FOR_CLIENTS,
    NOT_CA,
    OU,
    RFC822,
    URI,
    UTF8,
    Draft,
    forge,
    names,
    subject,
    uses,
)
from tests.support.partners import authority, partner
from tests.support.pki import Issued, Pki

ROOT = authority("Acme Root")
ISSUING = authority("Acme Issuing", ROOT)
NOW = datetime.now(UTC)


def ders(*cas: Issued) -> list[bytes]:
    return [ca.cert_der for ca in cas]


def test_a_whole_chain_is_taken_in_any_order():
    """Roots and CAs come back sorted, each once."""
    one, other = judge(ders(ISSUING, ROOT, ROOT)), judge(ders(ROOT, ISSUING))
    assert one == other
    assert {ca.name for ca in one} == {"CN=Acme Root", "CN=Acme Issuing"}


def test_two_chains_may_be_one_authority():
    """A partner with two roots has both in one file."""
    assert len(judge([*ders(ROOT, ISSUING), *ders(authority("Second"))])) == 2 + 1


WEAK = Pki("x", issuing=ISSUING, root=ROOT.cert)
UNFIT = {
    "no certificate": [],
    "an issuing CA without its root": ders(ISSUING),
    "a client's certificate": [*ders(ROOT, ISSUING), WEAK.leaf().cert_der],
    "no CA": ders(authority("x", ca=False)),
    "no keyCertSign": ders(authority("x", signs=False)),
    "for servers alone": ders(authority("x", eku=ExtendedKeyUsageOID.SERVER_AUTH)),
    "a weak key": [WEAK.leaf("x", key="rsa-1024", ca=True, self_signed=True).cert_der],
    "a weak signature": [*ders(ROOT, ISSUING), WEAK.leaf("x", ca=True, sha1=True).cert_der],
    "another root of the same name": ders(authority("Acme Root"), ISSUING),
    "too many": ders(*(authority(f"{at}") for at in range(MAX_CAS + 1))),
    "no DER": [b"x"],
}


@pytest.mark.parametrize("what", UNFIT)
def test_an_unfit_chain_is_refused(what: str):
    """What could not verify a client, or would verify more than it should, is no chain."""
    with pytest.raises(BadInput):
        judge(UNFIT[what])


def test_the_missing_link_is_named():
    """The error says which certificate has no issuer."""
    with pytest.raises(BadInput, match="nobody in it issued CN=Acme Issuing"):
        judge(ders(ISSUING, authority("Acme Root")))


def test_two_that_certify_each_other_are_no_chain():
    """Nothing leads to a root."""
    a, b = authority("a"), authority("b")
    crossed = [authority("a", b), authority("b", a)]
    with pytest.raises(BadInput):
        judge(ders(*crossed))


def test_time_is_asked_of_each_ca():
    """One that has ended, or has not begun, is named."""
    cas = judge(ders(ROOT, ISSUING))
    assert ended(cas, NOW) == ""
    assert "ended on" in ended(cas, NOW + timedelta(days=40))
    assert "begins on" in ended(cas, NOW - timedelta(days=40))


@pytest.mark.parametrize("name", ["Acme Issuing", "acme  ISSUING", "AcmeIssuing", " Acme Issuing "])
def test_a_name_in_other_letters_is_the_same(name: str):
    """Verifiers fold case and spaces; so does this, and more."""
    assert confusable(read_ca(authority(name).cert_der), [read_ca(ISSUING.cert_der)])


def test_a_key_identifier_of_another_is_noticed():
    """Whoever claims it could be taken for the other."""
    claimed = bytes.fromhex(read_ca(ISSUING.cert_der).key_id)
    assert confusable(read_ca(authority("x", key_id=claimed).cert_der), [read_ca(ISSUING.cert_der)])
    assert confusable(read_ca(authority("x").cert_der), [read_ca(ISSUING.cert_der)]) is None


def test_only_what_a_root_issued_is_chained():
    """A CA of another root is left out."""
    stranger = read_ca(partner("Other").issuing.cert_der)
    root, issuing = read_ca(ROOT.cert_der), read_ca(ISSUING.cert_der)
    assert chained([stranger, issuing], [root]) == [root, issuing]


# Leaves

PKI = Pki("x", issuing=ISSUING, root=ROOT.cert)


def said(draft: Draft) -> dict[str, tuple[bytes, ...]]:
    return {field: values for field, values in attributes(forge(PKI, draft).der).items() if values}


def test_a_leaf_says_this_of_itself():
    """Subject, names, uses, policies and issuer, each by its field."""
    policies = der.extension("2.5.29.32", der.sequence(der.sequence(der.oid("1.2.3"))))
    extensions = (NOT_CA, FOR_CLIENTS, names((DNS, b"A.test"), (RFC822, b"A@b.test"), (URI, b"urn:a")), policies)
    who = subject((CN, UTF8, b"a"), (CN, UTF8, b"b"), (OU, BMP, "x".encode("utf-16-be")))
    assert said(Draft(extensions, subject=who)) == {
        "common_name": (b"a", b"b"),
        "organizational_unit": (b"",),
        "dns": (b"a.test",),
        "email": (b"A@b.test",),
        "uri": (b"urn:a",),
        "issuer_common_name": (b"Acme Issuing",),
        "eku": (der.oid("1.3.6.1.5.5.7.3.2")[2:],),
        "policy": (der.oid("1.2.3")[2:],),
    }


def test_a_leaf_may_say_nothing():
    """A certificate without extensions has its subject alone."""
    assert said(Draft(None)) == {"common_name": (b"a",), "issuer_common_name": (b"Acme Issuing",)}


def test_names_are_ascii():
    """Others are refused: nobody can tell what they are compared with."""
    with pytest.raises(BadInput):
        said(Draft((NOT_CA, uses("1.2.3"), names((DNS, b"\xe9.test")))))


@given(st.binary(max_size=200))
def test_octets_are_read_or_refused(octets: bytes):
    """Whatever comes, nothing but `BadInput` is raised."""
    for read in (attributes, read_ca):
        with pytest.raises(BadInput):
            read(octets)


@given(st.integers(0, len(ISSUING.cert_der) - 1), st.integers(0, 255))
@example(at=217, octet=0)
def test_a_damaged_certificate_is_read_or_refused(at: int, octet: int):
    """A bit of it changed, it is still read, or refused with a word."""
    damaged = ISSUING.cert_der[:at] + bytes([octet]) + ISSUING.cert_der[at + 1 :]
    with suppress(BadInput):
        assert set(attributes(damaged)) == set(FIELDS)
