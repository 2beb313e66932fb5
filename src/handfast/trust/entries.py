"""Workload entries: which names an identity may carry, and how long its certificates may live; and which names an agent may have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handfast.base.events import SERVER
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId

DEFAULT_TTL = timedelta(hours=24)
LONGEST_TTL = timedelta(days=397)
SHORTEST_TTL = timedelta(seconds=5)
RESERVED = "handfast/"
RESERVED_AGENTS = frozenset({SERVER})
"""An agent of this name could report what would read, and count, as the server's own word."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One entry of ``workloads`` in the world file.

    ``dns`` are the DNS names that its certificates carry; ``ttl`` is how long they live, and the longest they may.
    ``owner`` is who looks after them; empty where the world does not say. ``must_staple``: whoever serves with them has to staple
    an OCSP response (RFC 7633).
    """

    identity: SpiffeId
    dns: tuple[str, ...] = ()
    ttl: timedelta = DEFAULT_TTL
    owner: str = ""
    must_staple: bool = False


def refuse_agent(name: str) -> Refusal | None:
    """Refuse an agent a name by which events, findings and metrics know the platform itself: AGENT_RESERVED."""
    return Refusal(Reason.AGENT_RESERVED, {"agent": name}) if name in RESERVED_AGENTS else None
