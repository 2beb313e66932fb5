"""A customer of the platform: a program that holds a certificate, keeps it fresh as an agent does, and sends requests all the while."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta

from handfast.app.client import Api
from handfast.app.keeping import Kept
from handfast.app.server.messages import AuthorityAnswer, CertificateAnswer, RenewRequest
from handfast.base.refusal import HandfastError
from handfast.io.clock import SystemClock
from handfast.io.credentials import Credential, save
from handfast.sdk.contexts import client_context
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.renewal import counting
from handfast.trust.rotation import Pace
from tests.e2e.clients import GONE, Connection
from tests.e2e.platform import Platform

LOOK_S = 0.1
STAYS = 40
"""How many requests go over one connection that stays."""
_PAUSE_S = 0.03
"""Between two of a sender: with several of them there is always one under way, and time left for what is tested."""


class Customer:
    """Sends from ``senders`` threads, half of them over connections that stay, half over a new one each time. Begin it with `at_work`."""

    def __init__(self, platform: Platform, host: str, name: str, settle_s: float, senders: int = 2) -> None:
        """Get a first certificate from an operator."""
        self.platform, self.host = platform, host
        first = platform.issue(name)
        bundle = platform.authorities().bundle
        credential = Credential(first.files.key.read_text(), first.files.chain.read_text(), bundle)
        path = platform.directory / f"customer-{first.serial}.pem"
        save(path, credential)
        self._kept = Kept(path, SystemClock(), self._ask, Pace(timedelta(seconds=settle_s)))
        self._context = self._made(credential)
        self.statuses, self.served = Counter[int](), set[int]()
        self.failures: list[str] = []
        self._over, self._epoch, self._port = threading.Event(), 0, platform.api_port
        self._rounds = [threading.Lock() for _ in range(senders)]
        works = [self._stay, self._come_anew]
        self._threads = [
            threading.Thread(target=works[number % 2], args=(one,)) for number, one in enumerate(self._rounds)
        ]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._keep())))

    @property
    def held(self) -> Credential:
        """What it holds now."""
        assert self._kept.current.value
        return self._kept.current.value

    @contextmanager
    def at_work(self) -> Iterator[Customer]:
        """Send for as long as the block lasts; at its end every request was answered well, and some by new certificates."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
        assert self.failures == []
        assert set(self.statuses) == {200}

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Send nothing for as long as the block lasts: the platform is away on purpose."""
        with ExitStack() as stack:
            for one in self._rounds:
                stack.enter_context(one)
            yield
            self._epoch, self._port = self._epoch + 1, self.platform.api_port

    # Requests

    def _stay(self, turn: threading.Lock) -> None:
        while not self._over.is_set():
            with turn:
                epoch, connection = self._epoch, self._connected()
            for _ in range(STAYS):
                with turn:
                    if connection is None or self._epoch != epoch or self._over.is_set():
                        break
                    self._sent(connection)
                time.sleep(_PAUSE_S)
            if connection:
                connection.close()

    def _come_anew(self, turn: threading.Lock) -> None:
        while not self._over.wait(_PAUSE_S):
            with turn:
                if connection := self._connected():
                    self._sent(connection)
                    connection.close()

    def _connected(self) -> Connection | None:
        try:
            connection = Connection(self.platform, self.host, context=self._context)
        except GONE as error:
            self.failures.append(f"connect: {error!r}")
            return None
        self.served.add(int(facts(connection.socket.getpeercert(binary_form=True) or b"").serial, 16))
        return connection

    def _sent(self, connection: Connection) -> None:
        try:
            self.statuses[connection.request().status] += 1
        except GONE as error:
            self.failures.append(f"request: {error!r}")

    # Its certificate

    async def _keep(self) -> None:
        while not self._over.is_set():
            with suppress(HandfastError):  # the platform is away
                await self._look()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Read which authorities count, with the certificate of now, and renew when that is due."""
        async with self._api() as api:
            now = await api.call("GET", "/v1/authority", AuthorityAnswer)
        self._kept.told(counting(pem_certificates(now.issuers)[0], pem_certificates(now.bundle)))
        self._context = self._made(await self._kept.ensure())

    async def _ask(self, csr: str) -> CertificateAnswer:
        async with self._api() as api:
            return await api.call("POST", "/v1/certificates/renew", CertificateAnswer, RenewRequest(csr=csr))

    def _api(self) -> Api:
        held = self.held
        context = client_context(held.chain_pem.encode(), held.key_pem.encode(), held.bundle_pem.encode())
        return Api.remote(f"https://localhost:{self._port}", context)

    def _made(self, held: Credential) -> ssl.SSLContext:
        """Give the TLS settings of this credential alone: its roots, too."""
        return client_context(held.chain_pem.encode(), held.key_pem.encode(), held.bundle_pem.encode())
