"""How long what an operator hands out can be used."""

from __future__ import annotations

from datetime import timedelta

from handfast.access.values import duration, duration_text
from handfast.base.refusal import BadInput


def lifetime(what: str, ttl: str, least: timedelta, most: timedelta) -> int:
    """Read ``--ttl``, such as 15m or 7d, and give its seconds.

    Raises:
        BadInput: it is none, or ``what`` does not live so short or so long.
    """
    life = duration(ttl)
    if not least <= life <= most:
        raise BadInput(f"{what} lives from {duration_text(least)} to {duration_text(most)}", key="--ttl")
    return int(life.total_seconds())
