"""An authority without a server, and faults between the two."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from handfast.app.keeping import Kept
from handfast.app.server.messages import HostCertificateAnswer
from handfast.base.refusal import HandfastError, Refusal, Refused
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.issuance import Issuance
from handfast.trust.csr import read_csr
from handfast.trust.plan import LeafRequest
from tests.app.sites import DOMAIN
from tests.support.clock import FakeClock
from tests.support.ledger import FakeLedger

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
TRUST = TrustDomain(DOMAIN)


@dataclass
class Issuer:
    """Answers CSRs for one name. ``fault`` is raised instead while it is set."""

    directory: Path
    clock: FakeClock
    name: str = "payments"
    fault: HandfastError | None = None
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the authority."""
        self.authority = create_authority(self.directory / "authority", TRUST, self.clock, None)
        self._issuance = Issuance(self.authority, FakeLedger(), self.clock)

    async def ask(self, csr: str) -> HostCertificateAnswer:
        """Issue, as the server would. Nothing comes to be stapled."""
        self.asked.append(csr)
        if self.fault:
            raise self.fault
        facts = read_csr(csr.encode())
        assert not isinstance(facts, Refusal)
        request = LeafRequest(identity=TRUST.id(self.name), csr=facts, dns=("localhost",), reserved=True)
        issued = await self._issuance.issue(request, workload=None, requester="test")
        if isinstance(issued, Refusal):
            raise Refused(issued)
        record = issued.event
        return HostCertificateAnswer(
            serial=issued.serial,
            identity=record.identity,
            dns=list(record.dns),
            not_before=record.not_before,
            not_after=record.not_after,
            chain=issued.chain_pem,
            bundle=issued.bundle_pem,
        )


def timeless(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let OpenSSL, which goes by the machine's clock, leave dates alone: what is tested goes by the fake one."""
    context.verify_flags |= NO_CHECK_TIME  # type: ignore[assignment]
    return context


def kept(issuer: Issuer, name: str = "kept.pem") -> Kept:
    """Keep a certificate of the issuer's beside its authority."""
    return Kept(issuer.directory / name, issuer.clock, issuer.ask)
