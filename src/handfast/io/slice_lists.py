"""The revocation lists in slices: one of each issuer and revision, the same from each server.

Decides when a list may be given again, and whether one that another server signed is believed: one that its issuer's key verifies,
and that counts now. Refuses to know what is revoked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from handfast.io import off_loop
from handfast.io.authorities import Authority
from handfast.io.ca_lists import read_list
from handfast.io.ledger.lists import ListHead, SharedLists
from handfast.trust.revocation import Entry

PREFIX = "slice/"
ANEW = timedelta(hours=1)
"""How old a list may be to be given again. It counts for days."""
KEPT = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class _Held:
    head: ListHead
    text: str


class SliceLists:
    """Lists for slices. ``shared`` is where other servers find them; without, this server alone does."""

    def __init__(self, next_number: Callable[[], Awaitable[int]], shared: SharedLists | None = None) -> None:
        """Hold none yet."""
        self._next_number, self._shared = next_number, shared
        self._held: dict[str, _Held] = {}

    async def list_of(self, issuer: Authority, revoked: Collection[Entry], revision: int, now: datetime) -> str:
        """Give a list (PEM) that has at least what was revoked by ``revision``; ``revoked`` are those, or more.

        Raises:
            Unavailable: the ledger or the key cannot be used now.
        """
        path = PREFIX + issuer.issuer_facts.key_id.hex()
        if not self._fits(path, revision, now):
            await self._look(path, issuer, now)
        if self._fits(path, revision, now):
            return self._held[path].text
        return await self._made(path, issuer, revoked, revision, now)

    def _fits(self, path: str, revision: int, now: datetime) -> bool:
        held = self._held.get(path)
        # Where the clock was set back, one of before does not count yet.
        return (
            held is not None and held.head.revision >= revision and held.head.made_at <= now < held.head.made_at + ANEW
        )

    async def _made(
        self, path: str, issuer: Authority, revoked: Collection[Entry], revision: int, now: datetime
    ) -> str:
        number = await self._next_number()
        text = await issuer.crl(revoked, number, now)
        head = ListHead(path=path, number=number, revision=revision, made_at=now, scheduled_at=now)
        if self._shared and not await self._shared.offer(head, text.encode(), now - ANEW / 2):
            await self._look(path, issuer, now)
            if self._fits(path, revision, now):
                return self._held[path].text  # another server was faster
        self._held[path] = _Held(head, text)
        if self._shared:
            await self._shared.forget(now - KEPT)
        return text

    async def _look(self, path: str, issuer: Authority, now: datetime) -> None:
        """Hold the list that the ledger has, where that is a newer one and a good one."""
        if self._shared is None:
            return
        head, held = (await self._shared.heads(path)).get(path), self._held.get(path)
        if head is None or (held and held.head.number >= head.number):
            return
        text = await self._shared.content(head)
        if text is None:
            return
        if await off_loop.run(_is_good, text, issuer, head.number, now, long=len(text) > off_loop.LONG_BYTES):
            self._held[path] = _Held(head, text.decode("ascii"))


def _is_good(text: bytes, issuer: Authority, number: int, now: datetime) -> bool:
    """Tell whether a list is the issuer's and counts now: whoever writes the database is not asked."""
    listed = read_list(text, issuer.issuing_der, number)
    return listed is not None and listed.last_update_utc <= now < (listed.next_update_utc or now)
