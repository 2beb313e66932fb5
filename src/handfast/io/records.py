"""What the ledger keeps of certificates, as plain records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CertificateState(StrEnum):
    """Where a certificate stands. ``expired`` is no state: it follows from the clock."""

    INTENDED = "intended"
    ISSUED = "issued"
    FAILED = "failed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRecord:
    """One row of the inventory.

    ``serial`` and ``fingerprint`` (SHA-256 of the DER; empty while intended) are lower case hex. ``name`` is the identity's
    name, such as ``payments``; ``identity`` its SPIFFE id. ``tbs`` is what was planned to be signed, ``der`` the certificate.
    """

    serial: str
    issuer: str
    identity: str
    name: str
    dns: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    requester: str
    state: CertificateState = CertificateState.INTENDED
    tbs: bytes = b""
    der: bytes = b""
    fingerprint: str = ""
    recorded_at: datetime
    revoked_at: datetime | None = None
    revocation_reason: str = ""
