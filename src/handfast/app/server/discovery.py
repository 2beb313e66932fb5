"""Others' certificates, put into the inventory as they are seen.

Decides what counts as seen: a request that was refused or reported, or the first one that a certificate was let in with. It came
after a handshake, so its certificate was verified against an authority that a host trusts: another's, or our own where the
inventory has lost it. What failed handshakes show is whatever a stranger likes, and is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from handfast.app.server.platform import Platform
from handfast.base.events import CertificateDiscovered, Event, OfferedCertificate, RequestDenied, RequestReported, kind
from handfast.io.ledger import SqlLedger, WatchedRecord
from handfast.io.ledger.inventory import DISCOVERED

PAGE = 500
_REMEMBERED = 10_000
_LONGEST = 512
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEEN_BY = [kind(RequestDenied), kind(RequestReported), kind(CertificateDiscovered)]


async def newly_seen(ledger: SqlLedger, events: Sequence[Event]) -> list[Event]:
    """Leave out what was told of certificates that the inventory knows: gateways tell of all."""
    return [
        event
        for event in events
        if not (isinstance(event, CertificateDiscovered) and await ledger.knows(event.certificate.fingerprint))
    ]


class Discovery:
    """Follows the ledger, from its newest events on."""

    def __init__(self, platform: Platform) -> None:
        """Begin after the newest event."""
        self._platform, self._after = platform, platform.ledger.event_head.value
        self._seen: set[str] = set()

    async def follow(self) -> None:
        """Look at requests as they are recorded, for ever.

        The newest of before come first: whoever was to look at them may have been killed, and gateways tell of a certificate once.
        """
        before = await self._platform.ledger.recent(PAGE, _SEEN_BY)
        self._after = min([self._after, *(seq - 1 for seq, _ in before)])
        async for _ in self._platform.ledger.event_head.subscribe():
            await self.catch_up()

    async def catch_up(self) -> None:
        """Look at what is new."""
        while page := await self._platform.ledger.page(self._after, PAGE, _SEEN_BY):
            for seq, event in page:
                if isinstance(event, RequestDenied | CertificateDiscovered) and event.certificate:
                    await self._look(event.certificate, event.gateway)
                self._after = seq

    async def _look(self, offered: OfferedCertificate, gateway: str) -> None:
        if offered.fingerprint in self._seen:
            return
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        if record := discovered(offered, gateway, self._platform.clock.now()):
            await self._platform.ledger.discover(record)
        self._seen.add(offered.fingerprint)


def discovered(offered: OfferedCertificate, gateway: str, now: datetime) -> WatchedRecord | None:
    """Give the inventory's record of a client's certificate; nothing where its report is not complete."""
    if not _SHA256.fullmatch(offered.fingerprint) or offered.not_before is None or offered.not_after is None:
        return None
    name = next(iter((*offered.uri_sans, *offered.dns_sans)), offered.subject)
    return WatchedRecord(
        fingerprint=offered.fingerprint,
        serial=offered.serial[:_LONGEST],
        issuer=offered.issuer[:_LONGEST],
        subject=offered.subject[:_LONGEST],
        name=name[:_LONGEST],
        dns=tuple(one[:_LONGEST] for one in offered.dns_sans[:100]),
        not_before=offered.not_before,
        not_after=offered.not_after,
        owner="",
        source=DISCOVERED,
        requester=f"gateway:{gateway}",
        recorded_at=now,
        der=b"",
    )
