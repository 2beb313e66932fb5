from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from handfast.trust.acme.keys import from_base64url, to_base64url
from handfast.trust.acme.nonces import KEY_BYTES, NONCE_LIFE, RANDOM_BYTES, check_nonce, make_nonce
from handfast.trust.acme.problems import AcmeError, Problem

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
KEY, RANDOM = b"k" * KEY_BYTES, b"r" * RANDOM_BYTES
NONCE = make_nonce(KEY, NOW, RANDOM)


def test_a_nonce_says_until_when():
    """It counts until its end, for whoever has the key."""
    assert check_nonce(KEY, NONCE, NOW) == NOW + NONCE_LIFE
    assert check_nonce(KEY, NONCE, NOW + NONCE_LIFE - timedelta(seconds=1)) == NOW + NONCE_LIFE


def test_a_nonce_ends():
    """At its end it is bad, in the word that clients try again at."""
    outcome = check_nonce(KEY, NONCE, NOW + NONCE_LIFE)
    assert isinstance(outcome, Problem)
    assert outcome.error is AcmeError.BAD_NONCE


@given(st.integers(0, 8 * len(from_base64url(NONCE)) - 1))
def test_a_changed_bit_is_seen(place: int):
    """Nobody makes one longer, or another."""
    octets = bytearray(from_base64url(NONCE))
    octets[place // 8] ^= 1 << place % 8
    assert isinstance(check_nonce(KEY, to_base64url(bytes(octets)), NOW), Problem)


@given(st.text(max_size=80))
def test_a_text_is_no_nonce(text: str):
    """Whatever it is."""
    assert isinstance(check_nonce(KEY, text, NOW), Problem)


def test_another_key_makes_others():
    """A nonce of another installation does not count."""
    assert isinstance(check_nonce(b"x" * KEY_BYTES, NONCE, NOW), Problem)
