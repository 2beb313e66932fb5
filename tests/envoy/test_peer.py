"""What is remembered of certificates, and of whose."""

from dataclasses import dataclass, replace

import pytest

from handfast.envoy.peer import _REMEMBERED, PEER, _remembered, chain_length, identity, offered, verified

PAYMENTS = "spiffe://example.org/payments"


@dataclass(frozen=True)
class Row:
    """A row's words about a certificate."""

    subject: str | None = "CN=payments"
    issuer: str | None = None
    serial: str | None = "0A"
    fingerprint: str | None = "AB"
    uri_sans: str | None = PAYMENTS
    dns_sans: str | None = None
    not_before: str | None = None
    not_after: str | None = "2026-11-22T04:15:35.000Z"
    chain_serials: str | None = "0a,0b"


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    _remembered.cache_clear()


def test_a_verified_certificate_is_read_once():
    """A row with the same words gives the same reading; any other word gives another."""
    read = verified(Row())
    assert read is not None
    assert verified(Row()) is read
    assert (read.serial, read.fingerprint, read.uri_sans, read.chain_length) == ("0a", "ab", (PAYMENTS,), 2)
    for word in PEER:
        other = verified(replace(Row(), **{word: "2026-11-20T04:15:35Z"}))
        assert other != read, word


def test_what_was_not_verified_is_not_remembered():
    """A stranger's texts, which may be long, take nobody's place."""
    verified(Row())
    for number in range(2 * _REMEMBERED):
        assert offered(Row(fingerprint=f"{number:x}" * 1000), pem="") is not None
    assert offered(Row(fingerprint="cd"), pem="no certificate") is not None
    assert _remembered.cache_info().currsize == 1


def test_memory_is_bounded():
    """However many certificates come, few are remembered."""
    for number in range(2 * _REMEMBERED):
        verified(Row(fingerprint=f"{number:x}"))
        identity(f"{PAYMENTS}{number}")
    assert _remembered.cache_info().currsize == identity.cache_info().currsize == _REMEMBERED


@pytest.mark.parametrize("absent", [None, "-", ""])
def test_without_a_fingerprint_there_is_none(absent: str | None):
    """Both ways in which Envoy writes that nothing was shown."""
    assert verified(Row(fingerprint=absent)) is None
    assert offered(Row(fingerprint=absent), pem="") is None
    assert chain_length(absent) == 0


@pytest.mark.parametrize("joined", [None, "", "-", f"{PAYMENTS},{PAYMENTS}", "https://example.org/payments"])
def test_what_is_no_one_identity_is_none(joined: str | None):
    """Several names are none."""
    assert identity(joined) == ""
    assert identity(PAYMENTS) == PAYMENTS
