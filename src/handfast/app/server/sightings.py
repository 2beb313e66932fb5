"""Which certificates were seen in use, at the API and at gateways, until that is written down.

Decides when a connection's certificate was shown: as it began, however late its record comes. Refuses to know what follows from a
sighting (`handfast.io.ledger.replacing`), and what waits for it (`Rotation`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from handfast.base.events import ConnectionEnded, Event
from handfast.base.refusal import Unavailable
from handfast.io.ledger.rotation import Rotations

MOST_AT_GATEWAYS = 10_000
"""Of so many certificates it is remembered, for a few seconds, that they connected somewhere."""
_LONGEST = timedelta(days=366)
_MS = timedelta(milliseconds=1)


class Sightings:
    """What was seen since it was last written down. ``grace`` is how long what was under way with an old leaf may take."""

    def __init__(self, rotations: Rotations, grace: timedelta) -> None:
        """Begin with nothing."""
        self._rotations, self._grace = rotations, grace
        self._at_api: dict[str, datetime] = {}
        self._at_gateways: dict[str, datetime] = {}

    def at_api(self, serial: str, now: datetime) -> None:
        """Remember that somebody called with a leaf."""
        self._at_api[serial] = now

    def at_gateways(self, told: Iterable[Event], now: datetime) -> None:
        """Remember the certificates of connections that a gateway tells of. Its clock and its word are bounded by ours."""
        for event in told:
            if isinstance(event, ConnectionEnded) and event.certificate:
                self._connected(event.certificate.fingerprint, _began(event, now))

    def _connected(self, fingerprint: str, began: datetime) -> None:
        seen = self._at_gateways
        if fingerprint in seen or len(seen) < MOST_AT_GATEWAYS:
            seen[fingerprint] = max(began, seen.get(fingerprint, began))

    async def note(self) -> None:
        """Write it down. What cannot be written now is kept.

        Raises:
            Unavailable: the ledger does not answer.
        """
        used, connected = self._at_api, self._at_gateways
        self._at_api, self._at_gateways = {}, {}
        try:
            await self._rotations.note_seen(used, self._grace)
            await self._rotations.note_at_gateways(connected, self._grace)
        except Unavailable:
            self._at_api, self._at_gateways = used | self._at_api, connected | self._at_gateways
            raise


def _began(event: ConnectionEnded, now: datetime) -> datetime:
    ended = min(max(event.at, now - _LONGEST), now)
    return ended - min(max(event.duration_ms, 0), _LONGEST // _MS) * _MS
