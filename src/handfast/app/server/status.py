"""The server's third face: where everybody learns what is revoked.

Decides which issuers are answered for, when their lists and responders are looked after, and what is counted. Refuses to know how
lists are made (`handfast.io.lists`), what an answer says (`handfast.io.responder`) and how it is served (`status_pages`). What
is served is signed, and nobody is asked who they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, Counter, Gauge

from handfast.app.server.platform import Platform
from handfast.app.server.status_pages import Fixed, Pages, Sources, fixed_certificate, fixed_list
from handfast.base.refusal import HandfastError, Refused, Unavailable
from handfast.io.authorities import Authority
from handfast.io.authority_files import is_list_of
from handfast.io.ca_responder import CaResponder
from handfast.io.database import Database
from handfast.io.files import private_directory
from handfast.io.generations import Generations
from handfast.io.ledger.lists import SharedLists
from handfast.io.ledger.rotation import Rotations
from handfast.io.ledger.status import StatusTable
from handfast.io.lists import Published, RevocationLists
from handfast.io.ports import Clock
from handfast.io.responder import Responder
from handfast.io.waiting import first_of
from handfast.sdk.front import Front
from handfast.sdk.limits import Limits
from handfast.trust.addresses import StatusSite, crl_above, crl_path, issuer_above, issuer_path
from handfast.trust.facts import facts
from handfast.trust.ocsp import OcspRequest
from handfast.trust.rotation import Stage

_log = structlog.get_logger("handfast")

LIMITS = Limits(connections=4000, head_bytes=16 * 1024, head_fields=64, body_s=10, keep_alive_s=30)
_LEAST_WAIT_S = 0.05
_OVER = frozenset({Stage.RETIRING, Stage.RETIRED})  # they issue nothing any more


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusConfig:
    """Where status is served, and what certificates say of it.

    ``listen`` is address and port; with port 0 nothing is served. ``url`` is what goes into certificates, such as
    ``http://status.example.org``; nothing does without it. ``shards`` is how many revocation lists an issuer has: chosen once.
    """

    listen: tuple[str, int] = ("127.0.0.1", 0)
    url: str = ""
    shards: int = 1

    @property
    def site(self) -> StatusSite | None:
        """What certificates say.

        Raises:
            BadInput: the address or the number cannot be used.
        """
        return StatusSite(self.url.rstrip("/"), self.shards) if self.url else None


NO_STATUS = StatusConfig()
"""Nothing is served, and certificates name no place."""


async def settle(config: StatusConfig, authorities: Generations, database: Database, clock: Clock) -> StatusSite | None:
    """Keep what certificates will say before the first one says it; give it.

    Raises:
        BadInput: it cannot be used, or there are certificates already that say another number of lists.
    """
    site = config.site
    if site:
        table = StatusTable(database)
        for row in authorities.rows:
            if row.issuer and row.stage not in _OVER:
                await table.settle(row.issuer, site.shards)
        await table.add_url(site.url, clock.now())
    return site


@dataclass(frozen=True, slots=True)
class _Issuer:
    """What is kept for one issuer."""

    lists: RevocationLists
    responder: Responder


class Status:
    """Serves the status of certificates. Start it, let it `keep`, stop it."""

    def __init__(
        self,
        platform: Platform,
        config: StatusConfig,
        database: Database,
        directory: Path,
    ) -> None:
        """Keep what it needs; nothing is served yet."""
        self._platform, self._config = platform, config
        self._table, self._directory = StatusTable(database), directory
        self._shared = SharedLists(database) if database.has_others else None
        self._issuers: dict[str, _Issuer] = {}
        self._for_cas = CaResponder(
            platform.authorities,
            Rotations(database).generations,
            platform.clock,
            lambda: platform.ledger.changes.value,
            platform.responders.passphrase,
        )
        self._fixed: dict[str, Fixed] = {}
        self._counts = _Counts(platform.metrics.registry)
        sources = Sources(self._fixed.get, self._listed, self._responder, self._counts.answered, platform.clock)
        self._front = Front(Pages(sources).app(), on_failed_handshake=lambda _: None, limits=LIMITS)
        self.address = config.listen

    async def start(self) -> None:
        """Make what is served, and serve it; nothing, where no port is configured.

        Raises:
            BadInput: the address is taken, or a file in the directory is not ours.
        """
        if not self._config.listen[1]:
            return
        private_directory(self._directory)
        for left_over in (*self._directory.glob("*.crl"), *self._directory.glob("tmp*")):
            left_over.unlink()
        try:
            await self._refresh()
        except (Refused, Unavailable) as error:
            self._tell(error)  # `keep` tries again; until then there are no lists, and OCSP says "try later"
        self.address = await self._front.listen_plain(*self._config.listen)

    async def stop(self, grace_s: float) -> None:
        """Stop serving."""
        await self._front.stop(grace_s)

    async def keep(self) -> None:
        """Follow the ledger, and replace what grows old, for ever.

        Raises:
            HandfastError: something failed that may pass. Call it again.
        """
        if not self._config.listen[1]:
            await asyncio.Event().wait()
        changes, settled = self._platform.ledger.changes, self._platform.rotation.settled
        above = self._platform.rotation.lists.seen
        while True:
            # Before, so that what comes meanwhile is not slept through.
            seen, rows, lists = changes.value, settled.value, above.value
            await self._refresh()
            wait = max((self._due() - self._platform.clock.now()).total_seconds(), _LEAST_WAIT_S)
            await first_of(
                changes.wait_for_change(seen),
                settled.wait_for_change(rows),
                above.wait_for_change(lists),
                self._platform.clock.sleep(wait),
            )

    async def _refresh(self) -> None:
        authorities = self._platform.authorities
        counting = {one.issuer_facts.key_id.hex() for one in authorities.delivered}
        for gone in self._issuers.keys() - counting:
            del self._issuers[gone]  # no leaf of it is left, and its lists would only grow old
        for authority in authorities.delivered:
            issuer = await self._issuer(authority)
            # Lists first: they can be made where no certificate can be issued any more.
            await issuer.lists.refresh()
            await issuer.responder.ensure()
        self._fixed.update(above_lists(authorities))
        self._for_cas.refresh()
        self._counts.lists(self._published())

    def _due(self) -> datetime:
        moments = (min(one.lists.due(), one.responder.next_look()) for one in self._issuers.values())
        return min(moments, default=self._platform.clock.now())

    def _tell(self, error: HandfastError) -> None:
        _log.error("status.interrupted", error=str(error))

    # Issuers

    async def _issuer(self, authority: Authority) -> _Issuer:
        key_id = authority.issuer_facts.key_id.hex()
        if key_id not in self._issuers:
            self._issuers[key_id] = await self._made(authority, key_id)
            self._fixed.update(certificates(authority))
        return self._issuers[key_id]

    async def _made(self, authority: Authority, key_id: str) -> _Issuer:
        platform, site = self._platform, self._config.site
        shards = await (self._table.settle(key_id, site.shards) if site else self._table.shards(key_id))
        lists = RevocationLists(
            authority,
            self._table,
            platform.clock,
            self._directory,
            lambda: platform.ledger.next_counter("crl"),
            shards,
            tuple(await self._table.urls()),
            self._shared,
            lambda: platform.ledger.changes.value,
        )
        return _Issuer(lists, platform.responders.of(authority))

    def _listed(self, path: str) -> Published | None:
        return next((found for one in self._issuers.values() if (found := one.lists.published.get(path))), None)

    def _published(self) -> Iterator[Published]:
        return (found for one in self._issuers.values() for found in one.lists.published.values())

    def _responder(self, asked: OcspRequest) -> Responder | CaResponder | None:
        every: tuple[Responder | CaResponder, ...] = (*(one.responder for one in self._issuers.values()), self._for_cas)
        return next((one for one in every if one.answers_for(asked)), None)


class _Counts:
    """The metrics of this face."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Name them."""
        self._answered = Counter("handfast_ocsp_answers", "OCSP answers by status", ["status"], registry=registry)
        self._lists = Gauge("handfast_revocation_lists", "Revocation lists that are served", registry=registry)
        self._soonest = Gauge(
            "handfast_revocation_list_soonest_end_seconds", "Unix time at which the first list ends", registry=registry
        )

    def answered(self, said: str) -> None:
        """Count one answer."""
        self._answered.labels(said).inc()

    def lists(self, published: Iterator[Published]) -> None:
        """Set what is known of the lists."""
        ends = [one.window.not_after.timestamp() for one in published]
        self._lists.set(len(ends))
        self._soonest.set(min(ends, default=0))


def certificates(authority: Authority) -> dict[str, Fixed]:
    """Give the certificates of an issuer and of all above it, by path."""
    ders = (authority.root_der, *authority.between, authority.issuing_der)
    made = {issuer_path((seen := facts(der)).ski): fixed_certificate(der, seen.window.not_before) for der in ders}
    made[issuer_above(authority.issuer_facts.key_id.hex())] = made[issuer_path(facts(authority.above).ski)]
    return made


def above_lists(authorities: Generations) -> dict[str, Fixed]:
    """Give the lists of all CAs above those that issue, by path: by their own key identifier, and by that of each CA below."""
    cas = (*authorities.roots, *(der for one in authorities.delivered for der in one.between))
    made: dict[str, Fixed] = {}
    for one in map(x509.load_pem_x509_crl, (text.encode() for text in authorities.root_crls())):
        listed = fixed_list(one.public_bytes(Encoding.DER), one.last_update_utc)
        der = next(der for der in cas if is_list_of(one, der))
        made[crl_path(facts(der).ski, 0)] = listed
        made.update({crl_above(key_id): listed for key_id in authorities.issued_by(der)})
    return made
