"""The protocols between the pure core's orchestration and the world outside. Four in all.

A fifth needs a second real implementation. Pure code never sees one.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from handfast.base.events import Event
from handfast.base.refusal import Refusal
from handfast.io.records import CertificateRecord


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """Give the time, in UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Signer(Protocol):
    """A private key that signs and is never seen. A file, a token, a network service."""

    @property
    def public_key_der(self) -> bytes:
        """The key's SubjectPublicKeyInfo, DER."""

    async def sign(self, message: bytes) -> bytes:
        """Sign ``message``, a TBSCertificate or the like, by the algorithm that follows from the key (`trust.algorithms`).

        Raises:
            Unavailable: the key cannot be used now.
        """


class Ledger(Protocol):
    """Where intents and outcomes of issuance are kept. What a call returned from is durable."""

    async def record_intent(self, record: CertificateRecord) -> Refusal | None:
        """Keep what is about to be signed, before it is; a serial that is taken is refused."""

    async def record_issued(self, serial: str, der: bytes, event: Event) -> None:
        """Keep the signed certificate beside its intent, with its event."""

    async def record_failed(self, serial: str, event: Event) -> None:
        """Keep that an intent came to nothing, and why."""
