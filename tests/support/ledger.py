"""A ledger in memory, and faults at the seams of issuance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256

from handfast.base.events import Event
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal, Refused
from handfast.io.ledger import SqlLedger
from handfast.io.ports import Signer
from handfast.io.records import CertificateRecord, CertificateState


class FakeLedger:
    """The `Ledger` of tests. What it holds is what a real one would have made durable."""

    def __init__(self) -> None:
        """Begin empty."""
        self.records: dict[str, CertificateRecord] = {}
        self.events: list[Event] = []

    async def record_intent(self, record: CertificateRecord) -> Refusal | None:
        """Keep what is about to be signed; a serial that is taken is refused."""
        if record.serial in self.records:
            return Refusal(Reason.ISSUANCE_LINT, {"serial": record.serial})
        self.records[record.serial] = record
        return None

    async def record_issued(self, serial: str, der: bytes, event: Event) -> None:
        """Keep the certificate beside its intent."""
        fingerprint = sha256(der).hexdigest()
        changed = replace(self._intent(serial), state=CertificateState.ISSUED, der=der, fingerprint=fingerprint)
        self.records[serial] = changed
        self.events.append(event)

    async def record_failed(self, serial: str, event: Event) -> None:
        """Keep that the intent came to nothing."""
        self.records[serial] = replace(self._intent(serial), state=CertificateState.FAILED)
        self.events.append(event)

    def interrupted(self, before: datetime) -> list[CertificateRecord]:
        """Give the intents that nothing came of: what a restart has to look at."""
        return [
            record
            for record in self.records.values()
            if record.state is CertificateState.INTENDED and record.recorded_at <= before
        ]

    def in_state(self, state: CertificateState) -> list[CertificateRecord]:
        """Give the records in one state."""
        return [record for record in self.records.values() if record.state is state]

    def _intent(self, serial: str) -> CertificateRecord:
        record = self.records.get(serial)
        if record is None or record.state is not CertificateState.INTENDED:
            raise Refused(Refusal(Reason.NOT_FOUND, {"serial": serial}))
        return record


class Crash(Exception):
    """The process ends here."""


@dataclass
class Seams:
    """Counts the seams that one issuance passes, and crashes at one of them. -1 crashes nowhere."""

    crash_at: int = -1
    passed: list[str] = field(default_factory=list)

    def at(self, name: str) -> None:
        """Pass a seam, or crash at it."""
        self.passed.append(name)
        if len(self.passed) - 1 == self.crash_at:
            raise Crash(name)


class FaultyLedger(FakeLedger):
    """A `FakeLedger` with a seam before each write and one after it, when it is durable and the caller does not know."""

    def __init__(self, seams: Seams) -> None:
        """Begin empty, with these seams."""
        super().__init__()
        self._seams = seams

    async def record_intent(self, record: CertificateRecord) -> Refusal | None:
        """Keep what is about to be signed; a serial that is taken is refused."""
        self._seams.at("before intent")
        refusal = await super().record_intent(record)
        self._seams.at("after intent")
        return refusal

    async def record_issued(self, serial: str, der: bytes, event: Event) -> None:
        """Keep the certificate beside its intent."""
        self._seams.at("before issued")
        await super().record_issued(serial, der, event)
        self._seams.at("after issued")

    async def record_failed(self, serial: str, event: Event) -> None:
        """Keep that the intent came to nothing."""
        self._seams.at("before failed")
        await super().record_failed(serial, event)
        self._seams.at("after failed")


class FaultySigner:
    """A signer with a seam on both sides, that remembers what it signed. ``spoil`` changes what is signed, or the signature."""

    def __init__(
        self,
        inner: Signer,
        seams: Seams,
        *,
        spoil_message: Callable[[bytes], bytes] = bytes,
        spoil_signature: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """Stand in front of ``inner``."""
        self._inner, self._seams = inner, seams
        self._spoil_message, self._spoil_signature = spoil_message, spoil_signature
        self.signed: list[bytes] = []

    @property
    def public_key_der(self) -> bytes:
        """Give the real key's public half."""
        return self._inner.public_key_der

    async def sign(self, message: bytes) -> bytes:
        """Sign, between two seams."""
        self._seams.at("before signature")
        signature = await self._inner.sign(self._spoil_message(message))
        self.signed.append(message)
        self._seams.at("after signature")
        return self._spoil_signature(signature)


@dataclass(frozen=True)
class Gone:
    """One revoked certificate, as `SqlLedger.revoked_live` gives it."""

    issuer: str
    serial: str
    fingerprint: str
    at: int
    reason: str


async def revoked_live(ledger: SqlLedger, now: datetime) -> list[Gone]:
    """Give all revoked certificates that have not expired, at once."""
    return [Gone(*one) async for part in ledger.revoked_live(now) for one in part]
