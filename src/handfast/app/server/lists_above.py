"""The revocation lists of CAs above ours on this disk: noticed when one was replaced, used at once, and given to the other servers.

Decides nothing about a list: who put it here has judged it (`handfast.io.renewed_lists`), and what other servers give is sealed
(`handfast.io.sharing`). Refuses to know who serves them: `seen` wakes those.
"""

from __future__ import annotations

import structlog

from handfast.app.server.slices import Slices
from handfast.base.refusal import BadInput
from handfast.io.generations import Generations, ListMark
from handfast.io.sharing import Sharing
from handfast.io.topic import Topic
from handfast.trust import rotation

_log = structlog.get_logger("handfast")


class ListsAbove:
    """The lists of the CAs above ``authorities``. ``sharing`` is there where files travel between servers by the ledger."""

    def __init__(self, authorities: Generations, slices: Slices, sharing: Sharing | None) -> None:
        """Have seen none yet."""
        self._authorities, self._slices, self._sharing = authorities, slices, sharing
        self.seen: Topic[tuple[ListMark, ...]] = Topic(())
        self._to_share = False

    async def bring(self, rows: rotation.Generations) -> None:
        """Put in place what other servers have and this one lacks.

        Raises:
            BadInput: something there does not open, and is needed. Unavailable: the ledger or the disk fails.
        """
        if self._sharing:
            await self._sharing.bring(rows)

    async def has_news(self, rows: rotation.Generations) -> bool:
        """Tell whether another server gave something since `bring`."""
        return self._sharing is not None and await self._sharing.has_news(rows)

    async def look(self, *, anew: bool) -> None:
        """Make the slice anew where a list was replaced, and give that to the others; or in any case (``anew``).

        Raises:
            BadInput: one cannot be used, and the slice is needed. Unavailable: the ledger fails.
        """
        marks = self._authorities.list_marks()
        if anew:
            await self._slices.refresh()
        elif marks != self.seen.value:
            self._to_share = await self._taken()
        self.seen.publish(marks)
        if self._to_share and self._sharing:
            await self._sharing.offer(self._authorities.rows)
        self._to_share = False

    async def _taken(self) -> bool:
        """Go by what is on the disk now. A file that somebody spoilt there stops nothing: the last good slice stays."""
        try:
            await self._slices.refresh()
        except BadInput as error:
            _log.error("lists.refused", error=str(error))
            return False
        _log.info("lists.taken")
        return True
