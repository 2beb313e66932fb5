"""Keeping a certificate fresh: the first one, and each next one at two thirds of the life of the one before.

Every new certificate has a new key. A failed renewal is tried again, sooner as the end comes nearer; the old one stays.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from handfast.app.server.messages import CertificateAnswer
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError
from handfast.io.credentials import Credential, load, new_key, save
from handfast.io.ports import Clock
from handfast.io.topic import Topic

_log = structlog.get_logger("handfast")

Ask = Callable[[str], Awaitable[CertificateAnswer]]
"""Ask for a certificate with a CSR (PEM)."""


class Kept:
    """One credential in one file, kept fresh."""

    def __init__(self, path: Path, clock: Clock, ask: Ask) -> None:
        """Begin with what is on disk, if that still counts."""
        self._path, self._clock, self._ask = path, clock, ask
        self._jitter = random.uniform(-1, 1)  # noqa: S311 - spreads renewals, keeps no secret
        self._alone = asyncio.Lock()
        self.fault = ""  # why the last renewal failed; empty where it did not
        held = load(path)
        self.current: Topic[Credential | None] = Topic(held if held and held.window.contains(clock.now()) else None)

    async def ensure(self) -> Credential:
        """Give the credential, after getting the first or the next one where that is due.

        Raises:
            HandfastError: there is none that counts, and none is to be had.
        """
        async with self._alone:
            return await self._ensured()

    async def _ensured(self) -> Credential:
        held = self.current.value
        if held and self._clock.now() < held.window.renew_at(self._jitter):
            return held
        try:
            return await self._renew()
        except HandfastError as error:
            if held and held.window.contains(self._clock.now()):
                self.fault = str(error)
                _log.warning(Reason.RENEWAL_FAILED.value, path=self._path.name, error=self.fault)
                return held
            raise

    async def _renew(self) -> Credential:
        key = new_key()
        answer = await self._ask(key.csr_pem)
        credential = Credential(key.key_pem, answer.chain, answer.bundle)
        save(self._path, credential)
        self.fault = ""
        self.current.publish(credential)
        return credential

    def next_look(self) -> float:
        """Give the seconds until it is worth looking again: at the time of renewal, or a tenth of what is left."""
        held = self.current.value
        if held is None:
            return 1.0
        now = self._clock.now()
        due = (held.window.renew_at(self._jitter) - now).total_seconds()
        left = (held.window.not_after - now).total_seconds()
        return max(due, min(left / 10, 60.0), 0.5)
