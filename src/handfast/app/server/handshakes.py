"""The server's own failed handshakes, in the same vocabulary as the gateway's.

Decides how many of them are recorded: whoever reaches the port can fail as often as they like, so of a flood a few rows a second
stand for all, as at a gateway (`handfast.envoy.flood`). What waits to be written is bounded, also while the ledger is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from handfast.base.events import SERVER, HandshakeRefused, OfferedCertificate
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError
from handfast.doctor.openssl import recognise_openssl
from handfast.envoy.flood import ANYWHERE, Place, Shares
from handfast.io.ids import new_event_id
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.events import MAX_BATCH
from handfast.io.ports import Clock
from handfast.sdk.handshake import FailedHandshake
from handfast.trust.facts import facts

GATHERED_S = 1.0
"""How long those that share a row are counted before it is written."""
MOST_WAITING = 500
_MOST = 1024

_log = structlog.get_logger("handfast")


class FailedHandshakes:
    """Records the handshakes that fail at the server's front. ``known_cas`` gives the CAs by which chains are explained."""

    def __init__(self, ledger: SqlLedger, clock: Clock, known_cas: Callable[[], Sequence[bytes]]) -> None:
        """Nothing has failed yet."""
        self._ledger, self._clock, self._known_cas = ledger, clock, known_cas
        self._shares = Shares()
        self._alone: list[HandshakeRefused] = []
        self._shared: dict[Place, HandshakeRefused] = {}
        self._writing: asyncio.Task[None] | None = None

    def failed(self, failed: FailedHandshake) -> None:
        """Take one: it is written soon, or counted by one that is."""
        now = self._clock.now()
        place = self._place(failed, now)
        if place is None:
            self._alone.append(refused(failed, self._known_cas(), now))
        elif one := self._shared.get(place):
            self._shared[place] = replace(one, more=one.more + 1, among=place[0])
        else:
            self._shared[place] = refused(failed, self._known_cas(), now)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        """Write what waits.

        Raises:
            Unavailable: the ledger does not answer.
        """
        if self._writing:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._keep([*self._alone, *self._shared.values()])

    def _place(self, failed: FailedHandshake, now: datetime) -> Place | None:
        def reason() -> Reason:
            # Without its certificates, which would cost.
            return recognise_openssl(failed.reason_text, failed.verify_code)

        if len(self._alone) + len(self._shared) >= MOST_WAITING:
            return ANYWHERE, reason()  # there are few reasons
        return self._shares.place(int(now.timestamp()), failed.peer, reason, self._shared)

    async def _write(self) -> None:
        try:
            while self._alone or self._shared:
                if not self._alone:
                    await self._clock.sleep(GATHERED_S)
                await self._write_next()
        finally:
            self._writing = None

    async def _write_next(self) -> None:
        if self._alone:
            events, self._alone = self._alone, []
        else:
            events, self._shared = list(self._shared.values()), {}
        try:
            await self._keep(events)
        except asyncio.CancelledError:
            self._alone = [*events, *self._alone]  # for `close`; what was written already is passed over then
            raise
        except HandfastError as error:
            _log.warning("server.handshakes-untold", count=sum(1 + one.more for one in events), error=str(error))

    async def _keep(self, events: Sequence[HandshakeRefused]) -> None:
        for first in range(0, len(events), MAX_BATCH):
            await self._ledger.append(events[first : first + MAX_BATCH])


def refused(failed: FailedHandshake, known_cas: Sequence[bytes], now: datetime) -> HandshakeRefused:
    """Make the event of a handshake that failed at the server's front."""
    return HandshakeRefused(
        id=new_event_id(),
        at=now,
        gateway=SERVER,
        listener=failed.local,
        peer=failed.peer,
        server_name=failed.server_name[:_MOST],
        tls_version=failed.tls_version,
        reason=recognise_openssl(failed.reason_text, failed.verify_code, failed.offered, known_cas),
        certificate=_offered(failed.offered),
        raw=f"{failed.reason_text} {failed.verify_message}".strip()[:_MOST],
    )


def _offered(chain: Sequence[bytes]) -> OfferedCertificate | None:
    if not chain:
        return None
    try:
        leaf = facts(chain[0])
    except BadInput:
        return OfferedCertificate(chain_length=len(chain))
    return OfferedCertificate(
        subject=leaf.subject[:_MOST],
        issuer=leaf.issuer[:_MOST],
        serial=leaf.serial,
        fingerprint=leaf.fingerprint,
        uri_sans=tuple(name[:_MOST] for name in leaf.uri_sans[:32]),
        dns_sans=tuple(name[:_MOST] for name in leaf.dns_sans[:32]),
        not_before=leaf.window.not_before,
        not_after=leaf.window.not_after,
        chain_length=len(chain),
    )
