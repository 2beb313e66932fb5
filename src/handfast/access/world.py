"""The world: everything a user wrote, parsed once into a type that cannot be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handfast.access.authority import ForeignAuthority
from handfast.access.policy import Host
from handfast.base.spiffe import TrustDomain
from handfast.trust.entries import Workload
from handfast.trust.foreign_crl import RevocationList
from handfast.trust.profile import LEAF, Profile


@dataclass(frozen=True, slots=True)
class World:
    """One revision of the world. ``hosts`` and ``workloads`` are by name; ``issuance`` is what may be signed at most.

    ``authorities`` are those that are not ours, by name. ``lists`` are their last good revocation lists, by the same names: no user
    writes them.
    """

    trust_domain: TrustDomain
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    hosts: Mapping[str, Host] = field(default_factory=dict)
    issuance: Profile = LEAF
    authorities: Mapping[str, ForeignAuthority] = field(default_factory=dict)
    lists: Mapping[str, tuple[RevocationList, ...]] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """How many serials stand in the ``lists``."""
        return sum(len(one.serials) for lists in self.lists.values() for one in lists)
