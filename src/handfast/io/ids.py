"""Names for events: made alone by any replica, and short enough to be typed.

Decides that an id begins with the time, as a UUID of version 7 does (RFC 9562 section 5.7): names that are made together stand
together in the ledger's index, where chance would scatter them over all of it. Nothing reads the time back.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable

_TIME_OCTETS, _RANDOM_OCTETS = 6, 10


def new_event_id(random_bytes: Callable[[int], bytes] = secrets.token_bytes, nanoseconds: int | None = None) -> str:
    """Make an id of 48 bits of the time and 80 of chance: 26 characters of lower case base32 (RFC 4648 section 6), no padding.

    ``nanoseconds`` are counted from 1970, and are now where they are not given.
    """
    milliseconds = (time.time_ns() if nanoseconds is None else nanoseconds) // 1_000_000
    octets = milliseconds.to_bytes(_TIME_OCTETS, "big") + random_bytes(_RANDOM_OCTETS)
    return base64.b32encode(octets)[:26].decode().lower()
