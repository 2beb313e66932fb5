"""An authority with its ledger in files, for the tests of lists and responders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from handfast.base.refusal import Refusal
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import Authority, create_authority
from handfast.io.issuance import Issuance, IssuedCertificate
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.status import StatusTable
from handfast.io.lists import RevocationLists
from handfast.io.responder import Responder
from handfast.io.sealed import Passphrase
from handfast.io.sqlite import SqliteDatabase
from tests.support.clock import FakeClock
from tests.trust.material import DOMAIN, request

TRUST: TrustDomain = DOMAIN


@dataclass
class Parts:
    """What a server would have put together."""

    directory: Path
    clock: FakeClock
    authority: Authority
    database: SqliteDatabase
    ledger: SqlLedger

    @property
    def table(self) -> StatusTable:
        """The ledger, as strangers see it."""
        return StatusTable(self.database)

    async def issue(self, **asked: object) -> IssuedCertificate:
        """Issue a certificate."""
        issuance = Issuance(self.authority, self.ledger, self.clock)
        issued = await issuance.issue(request(**asked), workload=None, requester="test")  # type: ignore[arg-type]
        assert not isinstance(issued, Refusal), issued
        return issued

    async def revoke(self, serial: str, reason: str = "superseded") -> None:
        """Revoke it."""
        assert await self.ledger.revoke([serial], self.clock.now(), reason, [])

    def lists(self, shards: int = 1, urls: tuple[str, ...] = ("http://s",)) -> RevocationLists:
        """Give the lists; none is made yet."""
        return RevocationLists(
            self.authority,
            self.table,
            self.clock,
            self.directory,
            lambda: self.ledger.next_counter("crl"),
            shards,
            urls,
            stopwatch=lambda: 0.0,  # a machine under load must not let short lists rest
        )

    def responder(self, passphrase: Passphrase | None = None, most: int = 100) -> Responder:
        """Give the responder; it has no certificate yet."""
        return Responder(
            self.authority,
            Issuance(self.authority, self.ledger, self.clock),
            self.table,
            self.clock,
            self.directory / "ocsp.pem",
            lambda: self.ledger.changes.value,
            passphrase,
            most=most,
            jitter=0,
        )


@asynccontextmanager
async def parts(directory: Path) -> AsyncIterator[Parts]:
    """Make an authority and an empty ledger."""
    clock = FakeClock()
    authority = create_authority(directory / "ca", TRUST, clock, None)
    database = await SqliteDatabase.open(directory / "ledger.sqlite")
    try:
        yield Parts(directory, clock, authority, database, await SqlLedger.open(database))
    finally:
        await database.close()
