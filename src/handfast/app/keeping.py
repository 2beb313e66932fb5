"""Keeping a certificate fresh: the first one, and each next one at two thirds of the life of the one before.

Or earlier, where its holder was told that another authority issues by now, or that other roots are delivered. Every new
certificate has a new key. A failed renewal is tried again, sooner as the end comes nearer; the old one stays.

The new key is on disk before anybody is asked, and stays until its certificate is there: an answer may be lost, by a kill, too. Who
asks again with the same key shows that it is the same holder, so nobody waits for the certificate that was lost. Once a
certificate of it was kept, a key is never asked with again.

Clocks are set, and hosts are suspended. Who waits looks at the clock meanwhile; and what does not count any more, as the clock was
set back since it came, is replaced, once: where the issuer's clock is ahead of ours, the next one would be of the future as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import structlog

from handfast.app.server.messages import CertificateAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refused
from handfast.io.credentials import Credential, load, next_key, save
from handfast.io.ports import Clock
from handfast.io.topic import Topic
from handfast.io.waiting import first_of
from handfast.trust.facts import pem_certificates
from handfast.trust.renewal import Counting, renew_at, superseded
from handfast.trust.rotation import PACE, Pace

_log = structlog.get_logger("handfast")

Ask = Callable[[str], Awaitable[CertificateAnswer]]
"""Ask for a certificate with a CSR (PEM)."""
_LOOK_EVERY_S = 60.0


class Kept:
    """One credential in one file, kept fresh."""

    def __init__(self, path: Path, clock: Clock, ask: Ask, pace: Pace = PACE) -> None:
        """Begin with what is on disk, if that still counts."""
        self._path, self._clock, self._ask, self._pace = path, clock, ask, pace
        self._jitter = random.uniform(-1, 1)  # noqa: S311 - spreads renewals, keeps no secret
        self._alone = asyncio.Lock()
        self._told: Topic[Counting | None] = Topic(None)
        self._superseded_since: datetime | None = None
        self.fault = ""  # why the last renewal failed; empty where it did not
        self._next, held = path.with_suffix(".next-key"), load(path)
        self._spent = held.key_pem if held else ""
        self._came = clock.now()
        self.current: Topic[Credential | None] = Topic(held if held and held.window.contains(self._came) else None)

    async def ensure(self, *, anew: bool = False) -> Credential:
        """Give the credential, after getting the first or the next one where that is due; with ``anew`` it is due now.

        Raises:
            HandfastError: there is none that counts, and none is to be had.
        """
        async with self._alone:
            return await self._ensured(anew=anew)

    async def _ensured(self, *, anew: bool) -> Credential:
        held = self.current.value
        if held and not anew and self._clock.now() < self._due(held):
            return held
        try:
            return await self._renew()
        except HandfastError as error:
            self.fault = str(error)
            if held and held.window.contains(self._clock.now()):
                _log.warning(Reason.RENEWAL_FAILED.value, path=self._path.name, error=self.fault)
                return held
            raise

    async def _renew(self) -> Credential:
        key = next_key(self._next, self._spent)
        try:
            answer = await self._ask(key.csr_pem)
        except Refused as refused:
            if refused.refusal.reason is Reason.ISSUANCE_KEY_COMPROMISED:  # the one that was lost was revoked
                self._forget_next()
            raise
        credential = Credential(key.key_pem, answer.chain, answer.bundle)
        save(self._path, credential)
        self._spent, self._came = key.key_pem, self._clock.now()
        self._forget_next()
        self.fault = ""
        self.current.publish(credential)
        self._superseded_since = None
        self._weigh()
        return credential

    def _forget_next(self) -> None:
        with contextlib.suppress(OSError):  # what is spent is not taken again, wherever it lies
            self._next.unlink(missing_ok=True)

    def told(self, counting: Counting) -> None:
        """Learn what counts now. Where the credential is of something else, it is renewed early; who waits is woken."""
        self._told.publish(counting)
        self._weigh()

    def _weigh(self) -> None:
        held, counting = self.current.value, self._told.value
        if (
            held is None
            or counting is None
            or not superseded(held.leaf.aki, pem_certificates(held.bundle_pem), counting)
        ):
            self._superseded_since = None
        else:
            self._superseded_since = self._superseded_since or self._clock.now()

    def _due(self, held: Credential) -> datetime:
        now = self._clock.now()
        if now < self._came and now < held.window.not_before:
            return now
        return renew_at(held.window, self._jitter, self._superseded_since, self._pace)

    async def wait(self) -> None:
        """Wait until it is worth looking again, or until `told` says something new."""
        told, left = self._told.value, self.next_look()
        while left > _LOOK_EVERY_S and self._told.value == told:
            await first_of(self._clock.sleep(_LOOK_EVERY_S), self._told.wait_for_change(told))
            left = min(left - _LOOK_EVERY_S, self.next_look())
        await first_of(self._clock.sleep(left), self._told.wait_for_change(told))

    def next_look(self) -> float:
        """Give the seconds until it is worth looking again: at the time of renewal, after one that failed a tenth of what is left.

        0 where the time came while nobody looked.
        """
        held = self.current.value
        if held is None:
            return 1.0
        now = self._clock.now()
        due = (self._due(held) - now).total_seconds()
        left = (held.window.not_after - now).total_seconds()
        if due > 0 or not self.fault:
            return max(due, 0.0)
        return max(min(left / 10, self._pace.spread.total_seconds()), 0.5)
