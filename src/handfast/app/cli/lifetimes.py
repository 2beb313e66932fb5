"""Lives that an operator asks for."""

from __future__ import annotations

from datetime import timedelta

from handfast.access.values import duration, duration_text
from handfast.base.refusal import BadInput


def seconds(ttl: str) -> int:
    """Read ``--ttl``, such as 15m or 7d.

    Raises:
        BadInput: it is none.
    """
    try:
        return int(duration(ttl).total_seconds())
    except BadInput as error:
        raise error.at(key="--ttl") from error


def lifetime(what: str, ttl: str, least: timedelta, most: timedelta) -> int:
    """Read ``--ttl`` of something that is handed out, and give its seconds.

    Raises:
        BadInput: it is none, or ``what`` does not live so short or so long.
    """
    life = seconds(ttl)
    if not least.total_seconds() <= life <= most.total_seconds():
        raise BadInput(f"{what} lives from {duration_text(least)} to {duration_text(most)}", key="--ttl")
    return life
