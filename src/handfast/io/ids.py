"""Names for events: random, so that any replica makes them alone, and short enough to be typed."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable


def new_event_id(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Make an id of 128 random bits: 26 characters of lower case base32 (RFC 4648 section 6), no padding."""
    return base64.b32encode(random_bytes(16)).decode().rstrip("=").lower()
