"""Nonces that say by themselves whether we made them and until when they count (RFC 8555 section 6.5).

Decides form and validity. Refuses to know which were used: whoever acts on a request keeps that, until they expire.

Making one keeps nothing, so a stranger who asks for millions fills no store; any server that has the key can check one.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from handfast.base.refusal import BadInput
from handfast.base.windows import from_unix, to_unix
from handfast.trust.acme.keys import from_base64url, to_base64url
from handfast.trust.acme.problems import AcmeError, Problem

NONCE_LIFE = timedelta(hours=1)
RANDOM_BYTES = 12
KEY_BYTES = 32
_TIME_BYTES = 5
_MAC_BYTES = 16
_SIZE = _TIME_BYTES + RANDOM_BYTES + _MAC_BYTES


def make_nonce(key: bytes, now: datetime, random: bytes) -> str:
    """Make a nonce from 12 random bytes: its end in Unix seconds, the random bytes, a MAC of both; base64url."""
    said = to_unix(now + NONCE_LIFE).to_bytes(_TIME_BYTES) + random
    return to_base64url(said + _mac(key, said))


def check_nonce(key: bytes, nonce: str, now: datetime) -> datetime | Problem:
    """Give when it ends, or `badNonce`. One that was used is for the caller to know."""
    try:
        octets = from_base64url(nonce)
    except BadInput:
        octets = b""
    said, mac = octets[:-_MAC_BYTES], octets[-_MAC_BYTES:]
    ours = len(octets) == _SIZE and hmac.compare_digest(mac, _mac(key, said))
    ends = from_unix(int.from_bytes(said[:_TIME_BYTES])) if ours else now
    return ends if now < ends else bad_nonce()


def bad_nonce() -> Problem:
    """Give the problem of a nonce that does not count; the client tries again with the fresh one that goes with it."""
    return Problem(AcmeError.BAD_NONCE, "the nonce is not ours, too old, or used; take the one of this answer")


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.digest(key, b"acme nonce" + said, "sha256")[:_MAC_BYTES]
