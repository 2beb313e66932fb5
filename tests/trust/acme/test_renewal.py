from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput
from handfast.base.windows import Window
from handfast.trust.acme.renewal import CertificateId, look_again, suggested_window
from handfast.trust.facts import hex_serial

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_the_rfcs_example():
    """RFC 9773 section 4.1: the serial's sign octet stands in the id."""
    text = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    read = CertificateId.parse(text)
    assert (read.issuer, read.serial) == ("69885b6b87464041e1b37b847ba0ae2cde01c8d4", "87654321")
    assert str(read) == text


@given(st.binary(max_size=20), st.integers(1, 2**159))
def test_an_id_comes_back(issuer: bytes, serial: int):
    """Whatever it names."""
    named = CertificateId(issuer.hex(), hex_serial(serial))
    assert CertificateId.parse(str(named)) == named


@given(st.text(alphabet="AZaz09-_.=", max_size=140))
def test_an_id_has_one_spelling(text: str):
    """What is read is written the same, or it is refused."""
    try:
        read = CertificateId.parse(text)
    except BadInput:
        return
    assert str(read) == text or set(read.serial) == {"0"}


@pytest.mark.parametrize(
    "text", ["", ".", "AAAA", "AAAA.", "AAAA.gA", "AAAA.AAE", "A=.AQ", "AAAA.AQ.AQ", "A" * 127 + ".AQ"]
)
def test_what_is_no_id(text: str):
    """Negative and padded serials are none."""
    with pytest.raises(BadInput):
        CertificateId.parse(text)


@given(st.integers(120, 400 * 86400))
def test_a_window_lies_within_the_life(seconds: int):
    """After its first half, and well before its end."""
    life = Window(NOW, NOW + timedelta(seconds=seconds))
    window = suggested_window(life, NOW, revoked=False)
    assert NOW + life.length / 2 < window.not_before < window.not_after < life.not_after
    assert 60 <= look_again(life) <= 6 * 3600


def test_what_is_revoked_is_replaced_now():
    """The window is over."""
    window = suggested_window(Window(NOW, NOW + timedelta(days=1)), NOW, revoked=True)
    assert window.not_after <= NOW
