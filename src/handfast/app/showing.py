"""Credentials that ``up`` keeps for people on its machine: an operator's, and the demo's client.

Decides that such a one is renewed as an agent's is: in time, and early while an authority is replaced; with the old one for as long
as that counts, and the new one is then used once, so that nobody waits for the old, nor for one that was lost on its way to here. Who copied the old one
elsewhere is seen only where it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from handfast.app.client import Api
from handfast.app.keeping import Ask, Kept
from handfast.app.server.build import Server
from handfast.app.server.messages import AuthorityAnswer, CertificateAnswer, RenewRequest
from handfast.base.reasons import Reason
from handfast.base.refusal import HandfastError, Refused
from handfast.io.credentials import Credential
from handfast.io.ports import Clock
from handfast.sdk.contexts import client_context

_log = structlog.get_logger("handfast")
AGAIN_S = 5.0

Show = Callable[[Credential], None]


@contextlib.asynccontextmanager
async def showing(path: Path, server: Server, clock: Clock, first: Ask, show: Show) -> AsyncIterator[None]:
    """Keep the credential in ``path``, and show it whenever it is another one. ``first`` asks for it without an old one.

    Raises:
        HandfastError: there is none that counts, and none is to be had.
    """
    one = Shown(path, server, clock, first, show)
    await one.freshen()
    tasks = [asyncio.create_task(work()) for work in (one.keep, one.listen)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Shown:
    """One such credential."""

    def __init__(self, path: Path, server: Server, clock: Clock, first: Ask, show: Show) -> None:
        """Begin with what is on disk, if that still counts."""
        self._server, self._clock, self._first, self._show = server, clock, first, show
        self._kept = Kept(path, clock, self._ask, server.config.pace)
        self._shown: Credential | None = None
        self._used: Credential | None = None

    async def keep(self) -> None:
        """Renew it as it comes due, for ever; what was not used yet is used as soon as that can be."""
        while True:
            await (self._kept.wait() if self._used == self._shown else self._clock.sleep(AGAIN_S))
            try:
                await self.freshen()
            except HandfastError as error:
                _log.warning(Reason.RENEWAL_FAILED.value, error=str(error))

    async def listen(self) -> None:
        """Follow the authorities, so that what they leave behind is renewed early."""
        async for _ in self._server.platform.rotation.settled.subscribe():
            with contextlib.suppress(
                HandfastError
            ):  # while files are missing nothing is issued, and nothing can be renewed
                self._kept.told(self._server.platform.authorities.counting)

    async def freshen(self) -> None:
        """Have one that counts, show it, and use it.

        Raises:
            HandfastError: there is none that counts, and none is to be had.
        """
        held = await self._kept.ensure()
        if held != self._shown:
            self._show(held)
            self._shown = held
        if held != self._used:
            await self._use(held)

    async def _use(self, held: Credential) -> None:
        try:
            async with self._api(held) as api:
                await api.call("GET", "/v1/authority", AuthorityAnswer)
            await self._server.platform.rotation.kept(held.leaf.serial)
        except HandfastError as error:
            _log.debug("credential.unused", error=str(error))
            return
        self._used = held

    async def _ask(self, csr: str) -> CertificateAnswer:
        """Ask with the one before, where there is one that the server takes.

        What fails for a while only is tried again: of a first one nobody would know that it replaces the one before.
        """
        held = self._kept.current.value
        if held and self._counts(held):
            with contextlib.suppress(Refused):
                async with self._api(held) as api:
                    return await api.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=csr))
        return await self._first(csr)

    def _counts(self, held: Credential) -> bool:
        """Tell whether the server may take it. That of a root which is gone fails in the handshake, without a word."""
        accepted = self._server.platform.authorities.accepts(held.leaf.aki)
        return accepted and held.window.contains(self._clock.now())

    def _api(self, held: Credential) -> Api:
        roots = self._server.platform.authority.bundle_pem.encode()
        return Api.remote(self._server.url, client_context(held.chain_pem.encode(), held.key_pem.encode(), roots))
