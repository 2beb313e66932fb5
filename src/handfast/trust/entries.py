"""Workload entries: which names an identity may carry, and how long its certificates may live."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handfast.base.spiffe import SpiffeId

DEFAULT_TTL = timedelta(hours=24)
LONGEST_TTL = timedelta(days=397)
SHORTEST_TTL = timedelta(seconds=5)
RESERVED = "handfast/"


@dataclass(frozen=True, slots=True)
class Workload:
    """One entry of ``workloads`` in the world file.

    ``dns`` are the DNS names that its certificates carry; ``ttl`` is how long they live, and the longest they may.
    ``owner`` is who looks after them; empty where the world does not say.
    """

    identity: SpiffeId
    dns: tuple[str, ...] = ()
    ttl: timedelta = DEFAULT_TTL
    owner: str = ""
