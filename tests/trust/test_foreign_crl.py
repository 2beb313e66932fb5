from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.trust import der
from handfast.trust.facts import pem
from handfast.trust.foreign import judge, read_ca
from handfast.trust.foreign_crl import (
    LONGEST_SERIAL,
    MAX_LIST_BYTES,
    MAX_LISTS,
    MOST_REVOKED,
    RevocationList,
    crl_ders,
    judge_crl,
    listed,
    newer,
)
from tests.support.partners import authority, crl
from tests.support.pki import Issued

ROOT = authority("Acme Root")
ISSUING = authority("Acme Issuing", ROOT)
CAS = judge([ROOT.cert_der, ISSUING.cert_der])
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def scope(**more: object) -> x509.IssuingDistributionPoint:
    plain: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**(plain | more))  # type: ignore[arg-type]


def of_serial(octets: int) -> bytes:
    """Sign a list with one serial that no library writes."""
    tbs, algorithm, _ = der.children(crl(ISSUING, (5,)))
    *fields, entries = der.children(tbs)
    _, date = der.children(der.children(entries)[0])
    entry = der.sequence(der.tlv(0x02, b"\x55" * octets), date)
    changed = der.sequence(*fields, der.sequence(entry))
    assert isinstance(ISSUING.key, ec.EllipticCurvePrivateKey)
    signature = ISSUING.key.sign(changed, ec.ECDSA(hashes.SHA256()))
    return der.sequence(changed, algorithm, der.tlv(0x03, b"\0" + signature))


def refused(raw: bytes) -> Reason:
    outcome = judge_crl(raw, CAS, NOW)
    assert isinstance(outcome, Refusal)
    return outcome.reason


def test_a_good_list_is_read():
    """It is of the CA that signed it, and names serials as certificates do."""
    (read,) = judge_crl(crl(ISSUING, (0x0A, 0xFF01)), CAS, NOW)
    assert read.ca == read_ca(ISSUING.cert_der).fingerprint
    assert read.serials == ("0a", "ff01")
    assert read.since < NOW.timestamp() < read.until


def test_a_list_of_a_key_with_two_certificates_counts_for_both():
    """A renewed CA certificate is the same CA."""
    again = Issued(ISSUING.cert, ISSUING.key)
    renewed = x509.CertificateBuilder(
        issuer_name=ROOT.cert.subject,
        subject_name=ISSUING.cert.subject,
        public_key=ISSUING.key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=NOW - DAY,
        not_valid_after=NOW + DAY,
        extensions=list(ISSUING.cert.extensions),
    ).sign(ROOT.key, ISSUING.cert.signature_hash_algorithm)  # type: ignore[arg-type]
    cas = judge([ROOT.cert_der, ISSUING.cert_der, Issued(renewed, again.key).cert_der])
    read = judge_crl(crl(ISSUING, (5,)), cas, NOW)
    assert not isinstance(read, Refusal)
    assert len(read) == 2


UNUSABLE = {
    "of another": crl(authority("Somebody")),
    "of another with the same name": crl(authority("Acme Issuing")),
    "signed by another CA of the chain": crl(ISSUING, signer=ROOT),
    "no list": b"\x30\x03\x02\x01\x01",
    "changes alone": crl(ISSUING, extensions=[(x509.DeltaCRLIndicator(1), True)]),
    "CAs alone": crl(ISSUING, extensions=[(scope(only_contains_ca_certs=True), True)]),
    "some reasons": crl(
        ISSUING, extensions=[(scope(only_some_reasons=frozenset({x509.ReasonFlags.superseded})), True)]
    ),
    "of others too": crl(ISSUING, extensions=[(scope(indirect_crl=True), True)]),
    "a part": crl(ISSUING, extensions=[(scope(full_name=[x509.UniformResourceIdentifier("http://a/1.crl")]), True)]),
    "something critical": crl(
        ISSUING, extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"), True)]
    ),
    "too many": crl(ISSUING, range(1, MOST_REVOKED + 2)),
    "a serial that is none": of_serial(LONGEST_SERIAL + 1),
    "a CA that signs no lists": crl(authority("Acme Root", signs=False)),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_list_that_proves_nothing_is_refused(what: str):
    """Not standing in it would mean nothing, or somebody else says so."""
    assert refused(UNUSABLE[what]) == Reason.REVOCATION_CRL_UNUSABLE


def test_users_alone_is_what_leaves_are():
    """A list of all leaves, and of no CA, speaks of every client."""
    assert not isinstance(
        judge_crl(crl(ISSUING, extensions=[(scope(only_contains_user_certs=True), True)]), CAS, NOW), Refusal
    )


def test_a_serial_past_the_standard_is_read():
    """Some CAs write longer ones than they may; what each costs a gateway is bounded all the same."""
    (read,) = judge_crl(of_serial(LONGEST_SERIAL), CAS, NOW)
    assert read.serials == ("55" * LONGEST_SERIAL,)


def test_time_counts():
    """One that has ended, or has not begun, is refused."""
    assert refused(crl(ISSUING, since=-2 * DAY, until=-DAY)) == Reason.REVOCATION_CRL_EXPIRED
    assert refused(crl(ISSUING, since=DAY, until=2 * DAY)) == Reason.REVOCATION_CRL_NOT_YET_VALID


def test_an_older_list_does_not_take_the_place_of_a_newer():
    """Played back, it would bring the revoked back."""
    old, new = RevocationList("a", 1, 50, ()), RevocationList("a", 2, 40, ("01",))
    assert newer(old, new) == newer(new, old) == new


def test_our_own_are_read_however_old():
    """What we revoked stays revoked."""
    (read,) = listed(crl(ISSUING, (7,), since=-2 * DAY, until=-DAY), CAS)
    assert read.serials == ("07",)
    assert listed(crl(authority("Somebody"), (7,)), CAS) == ()
    with pytest.raises(BadInput):
        listed(b"\x30\x00", CAS)


def test_files_hold_one_or_several():
    """DER is one list; PEM may be more, and whatever stands between them does not count."""
    one, other = crl(ROOT), crl(ISSUING)
    text = pem(one, "X509 CRL") + "words\n" + pem(other, "X509 CRL")
    assert crl_ders(one) == (one,)
    assert crl_ders(text.encode()) == (one, other)


@pytest.mark.parametrize(
    "raw", [b"", b"words", b"x" * (MAX_LIST_BYTES + 1), pem(b"x", "X509 CRL").encode() * (MAX_LISTS + 1), b"-----BEGIN X509 CRL-----A-----END X509 CRL-----"]
)  # fmt: skip
def test_what_is_no_list_is_refused(raw: bytes):
    """So is what is too long, and too many."""
    with pytest.raises(BadInput):
        crl_ders(raw)


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_list_is_refused(at: int, octet: int):
    """Whatever octet is another, it is a refusal and never a list."""
    raw = GOOD
    damaged = raw[: at % len(raw)] + bytes([octet]) + raw[at % len(raw) + 1 :]
    outcome = judge_crl(damaged, CAS, NOW)
    assert damaged == raw or isinstance(outcome, Refusal)


GOOD = crl(ISSUING, (9,))
