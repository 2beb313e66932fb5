"""How certificates stand, as it was learned: kept for a while, and asked for once however many want to know.

Decides who waits for whom, and how much is kept. Refuses to know who is asked: the server asks a responder, an agent asks the
server, and both by this. What counts after an answer is decided in `handfast.trust.standing`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from handfast.access.authority import ForeignAuthority
from handfast.base.windows import to_unix
from handfast.io.ports import Clock
from handfast.trust.standing import Standing, later

MOST_KEPT = 10_000
MOST_AT_ONCE, MOST_WAITING = 32, 1024
QUEUE_S = 1.0
"""How long a question waits for its turn. When a gateway begins anew, all clients of a partner may come in the same second."""
PATIENCE_S = 0.5
"""How long an answer is waited for while the last one still counts: a responder that hangs must not hold up whom it knows."""

Ask = Callable[[], Awaitable[Standing | None]]
"""Asks for one certificate. It gives None where there is no answer that can be used."""


@dataclass(frozen=True, slots=True)
class Record:
    """What outlives this process of one certificate: ``recall`` gives the last word, or None; ``keep`` is given each that counts."""

    recall: Ask
    keep: Callable[[Standing], Awaitable[None]]


@dataclass(slots=True)
class _Kept:
    """What is known of one authority's certificates, and the questions that are under way."""

    known: OrderedDict[str, Standing] = field(default_factory=OrderedDict)
    asked: dict[str, asyncio.Task[Standing]] = field(default_factory=dict)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))

    def put(self, certificate: str, standing: Standing) -> None:
        self.known[certificate] = standing
        self.known.move_to_end(certificate)
        while len(self.known) > MOST_KEPT:
            self.known.popitem(last=False)


class Standings:
    """One memory. Each authority has bounds of its own, so that none can push another's aside."""

    def __init__(self, clock: Clock) -> None:
        """Know nothing."""
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._followed: Mapping[str, ForeignAuthority] = {}

    def follow(self, authorities: Mapping[str, ForeignAuthority]) -> None:
        """Take the world's word for which authorities there are. What was learned belongs to their CAs and to whom we asked."""
        if authorities is self._followed:
            return
        same = {
            name for name, one in authorities.items() if name in self._followed and _same(one, self._followed[name])
        }
        self._kept = {name: kept for name, kept in self._kept.items() if name in same}
        self._followed = authorities

    async def of(self, authority: str, certificate: str, ask: Ask, record: Record | None = None) -> Standing:
        """Give the standing of a certificate (by its fingerprint): what is known, or what is learned now.

        Where too many are asked for, what is not known stays so for this time. While the last answer counts, the next one is
        waited for half a second and taken up by whoever comes later.
        """
        kept, now = self._kept.setdefault(authority, _Kept()), self._now()
        held = kept.known.get(certificate) or await _recalled(kept, certificate, record)
        if held and held.settled(now):
            return held
        if certificate not in kept.asked:
            if len(kept.asked) >= MOST_WAITING:
                return later(held, None, now)
            task = kept.asked[certificate] = asyncio.create_task(self._learn(kept, certificate, ask, record))
            task.add_done_callback(lambda _: kept.asked.pop(certificate, None))
        if held and held.counts(now):
            done, _ = await asyncio.wait({kept.asked[certificate]}, timeout=PATIENCE_S)
            return done.pop().result() if done else later(held, None, now)
        # Shielded: who goes away takes the answer from none of the others.
        return await asyncio.shield(kept.asked[certificate])

    async def _learn(self, kept: _Kept, certificate: str, ask: Ask, record: Record | None) -> Standing:
        try:
            async with asyncio.timeout(QUEUE_S):
                await kept.turns.acquire()
        except TimeoutError:
            return later(kept.known.get(certificate), None, self._now())
        try:
            said = await ask()
        finally:
            kept.turns.release()
        learned = later(kept.known.get(certificate), said, self._now())
        kept.put(certificate, learned)
        if record and learned is said:
            await record.keep(learned)
        return learned

    def _now(self) -> int:
        return to_unix(self._clock.now())


async def _recalled(kept: _Kept, certificate: str, record: Record | None) -> Standing | None:
    """Take up the word that was kept, unless another came meanwhile."""
    recalled = await record.recall() if record else None
    if recalled and certificate not in kept.known:
        kept.put(certificate, recalled)
    return kept.known.get(certificate)


def _same(one: ForeignAuthority, other: ForeignAuthority) -> bool:
    return (one.cas, one.responder) == (other.cas, other.responder)
