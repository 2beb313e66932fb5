"""What the platform remembers: certificates, revisions, events, agents, traffic.

Decides nothing by itself: the parts of this package do, one class each, and `SqlLedger` is all of them over one database.
"""

from __future__ import annotations

from handfast.io.database import Database
from handfast.io.ledger.acme import Acme
from handfast.io.ledger.agents import AgentRecord, Agents
from handfast.io.ledger.certificates import (
    CertificatePage,
    CertificateQuery,
    Certificates,
    Counts,
    RevokedCertificate,
)
from handfast.io.ledger.chain import Chain, ChainPage
from handfast.io.ledger.enrolment import Enrolment
from handfast.io.ledger.events import Events, count_up
from handfast.io.ledger.inventory import Found, Inventory, InventoryPage, InventoryQuery, Selector, WatchedRecord
from handfast.io.ledger.revisions import Revision, Revisions
from handfast.io.ledger.traffic import Traffic, TrafficCount

__all__ = [
    "AgentRecord",
    "CertificatePage",
    "CertificateQuery",
    "ChainPage",
    "Counts",
    "Found",
    "InventoryPage",
    "InventoryQuery",
    "Revision",
    "RevokedCertificate",
    "Selector",
    "SqlLedger",
    "TrafficCount",
    "WatchedRecord",
]


class SqlLedger(Acme, Certificates, Revisions, Agents, Enrolment, Traffic, Chain, Inventory, Events):
    """The ledger over SQL. What a call returned from is durable."""

    @classmethod
    async def open(cls, db: Database) -> SqlLedger:
        """Make a ledger whose topics say what the database says, and go on saying it, whoever writes."""
        ledger = cls(db)
        await ledger.refresh()
        await db.hear(ledger.refresh)
        return ledger

    async def next_counter(self, name: str) -> int:
        """Give 1, 2, 3 … for ``name``, never the same twice: a CRL's number, say (RFC 5280 section 5.2.3)."""
        results = await self._db.write(count_up(name))
        return int(results[0].rows[0][0])
