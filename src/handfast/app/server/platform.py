"""What the endpoints work with, made once by `build`."""

from __future__ import annotations

from dataclasses import dataclass

from handfast.app.server.journal import Journal
from handfast.app.server.metrics import Metrics
from handfast.app.server.slices import Slices
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority
from handfast.io.issuance import Issuance
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The server's parts."""

    authority: Authority
    issuance: Issuance
    ledger: SqlLedger
    clock: Clock
    journal: Journal
    metrics: Metrics
    slices: Slices

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain that this server issues for."""
        return self.authority.trust_domain
