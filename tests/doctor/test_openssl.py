import _ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.doctor.openssl import _REASONS, _VERIFY, recognise_openssl
from handfast.trust.facts import pem_certificates
from tests.support.pki import Pki

OURS = {"CLOSED_BY_PEER", "RESET_BY_PEER", "TIMEOUT"}
NEWER = {"RECORD_LAYER_FAILURE"}  # OpenSSL 3.2; Python's table may be older
KNOWN = set(_ssl.err_codes_to_names.values())


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("CERTIFICATE_VERIFY_FAILED", 10, Reason.CERT_EXPIRED),
        ("CERTIFICATE_VERIFY_FAILED", 9, Reason.CERT_NOT_YET_VALID),
        ("CERTIFICATE_VERIFY_FAILED", 18, Reason.CERT_SELF_SIGNED),
        ("CERTIFICATE_VERIFY_FAILED", 20, Reason.CHAIN_UNKNOWN_AUTHORITY),
        ("CERTIFICATE_VERIFY_FAILED", 23, Reason.REVOKED),
        ("CERTIFICATE_VERIFY_FAILED", 26, Reason.CERT_WRONG_EKU),
        ("CERTIFICATE_VERIFY_FAILED", 9999, Reason.HANDSHAKE_UNRECOGNISED),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", 0, Reason.CLIENT_NO_CERTIFICATE),
        ("peer did not return a certificate", 0, Reason.CLIENT_NO_CERTIFICATE),
        ("TLSV1_ALERT_UNKNOWN_CA", 0, Reason.CLIENT_REJECTED_US),
        ("HTTP_REQUEST", 0, Reason.TLS_PLAINTEXT),
        ("WRONG_VERSION_NUMBER", 0, Reason.TLS_NOT_TLS),
        ("UNSUPPORTED_PROTOCOL", 0, Reason.TLS_VERSION),
        ("CLOSED_BY_PEER", 0, Reason.HANDSHAKE_CLOSED),
        ("TIMEOUT", 0, Reason.HANDSHAKE_TIMEOUT),
        ("", 0, Reason.HANDSHAKE_UNRECOGNISED),
        ("SOMETHING_NEW", 0, Reason.HANDSHAKE_UNRECOGNISED),
    ],
)
def test_openssls_words_have_their_reason(text: str, code: int, reason: Reason):
    """The verification code decides where there is one, and the reason's name elsewhere."""
    assert recognise_openssl(text, code) is reason


def test_the_names_are_openssls_own():
    """A name that OpenSSL never says would never be recognised."""
    assert set(_REASONS) - OURS - NEWER <= KNOWN


def test_a_chain_is_explained_by_what_is_known_here():
    """OpenSSL says the same of a missing intermediate and of an unknown authority; we tell them apart."""
    ours, theirs = Pki(), Pki("Theirs")
    leaf = ours.leaf()
    issuing, root = ours.issuing.cert_pem, ours.roots_pem
    known = [der(issuing), der(root)]
    for code in (19, 20, 21):
        assert recognise_openssl("x", code, (leaf.cert_der,), known) is Reason.CHAIN_MISSING_INTERMEDIATE
        stranger = theirs.leaf()
        assert (
            recognise_openssl("x", code, (stranger.cert_der, der(theirs.issuing.cert_pem)), known)
            is Reason.CHAIN_UNKNOWN_AUTHORITY
        )


def der(pem: bytes) -> bytes:
    return pem_certificates(pem.decode())[0]


@given(
    st.text(max_size=40),
    st.integers(-(2**31), 2**31),
    st.lists(st.binary(max_size=40), max_size=3),
    st.lists(st.binary(max_size=40), max_size=2),
)
def test_whatever_is_reported_has_a_reason(text: str, code: int, offered: list[bytes], known: list[bytes]):
    """A stranger chose the certificates; none of them ends the server."""
    assert recognise_openssl(text, code, offered, known) in Reason


def test_an_odd_code_for_a_good_chain_is_not_called_good():
    """Every code that is known has a reason of its own or of its kind."""
    assert all(recognise_openssl("x", code) is reason for code, reason in _VERIFY.items())
