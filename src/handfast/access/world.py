"""The world: everything a user wrote, parsed once into a type that cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handfast.access.policy import Host
from handfast.base.spiffe import TrustDomain
from handfast.trust.entries import Workload


@dataclass(frozen=True, slots=True)
class World:
    """One revision of the world. ``hosts`` and ``workloads`` are by name."""

    trust_domain: TrustDomain
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
