"""What the endpoints work with, made once by `build`."""

from __future__ import annotations

from dataclasses import dataclass

from handfast.app.server.acme.tools import AcmeTools
from handfast.app.server.allowances import Allowances
from handfast.app.server.journal import Journal
from handfast.app.server.metrics import Metrics
from handfast.app.server.rotation import Rotation
from handfast.app.server.slices import Slices
from handfast.app.server.standings import PartnerStandings
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority
from handfast.io.generations import Generations
from handfast.io.issuance import Issuance
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Clock
from handfast.io.responders import Responders


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The server's parts."""

    authorities: Generations
    rotation: Rotation
    issuance: Issuance
    ledger: SqlLedger
    clock: Clock
    journal: Journal
    metrics: Metrics
    slices: Slices
    standings: PartnerStandings
    acme: AcmeTools
    responders: Responders
    allowances: Allowances

    @property
    def authority(self) -> Authority:
        """The authority that issues now. Ask for it each time: another one may have taken over since."""
        return self.authorities.current

    @property
    def trust_domain(self) -> TrustDomain:
        """The trust domain that this server issues for."""
        return self.authorities.trust_domain
