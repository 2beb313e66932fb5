"""The whole inventory: what was issued here, and others' certificates that are watched; and what a revocation would hit.

Decides how one search runs over both tables, and which certificates a `Selector` means. Others' certificates stand in a table
of their own: nothing that counts on having issued a certificate can meet one of them. Refuses to know what a pattern
is as text, and who may revoke.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge

from handfast.base.events import CertificateImported
from handfast.base.refusal import BadInput
from handfast.io.database import Conflict, Row, Value, placeholders, step
from handfast.io.ledger.certificates import COLUMNS, record_of
from handfast.io.ledger.events import NEWEST, Events, bounded, from_micros, to_micros
from handfast.io.records import CertificateRecord, CertificateState

IMPORTED, DISCOVERED = "imported", "discovered"
MOST_DISCOVERED = 10_000
WATCHED, EXPIRED = "watched", "expired"
_RESERVED = "handfast/"
_LIVE = (CertificateState.ISSUED.value, CertificateState.INTENDED.value)
_CURSOR = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")
_WATCHED_COLUMNS = (
    "fingerprint, serial, issuer, subject, name, dns, not_before, not_after, owner, source, requester, recorded_at, der"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedRecord:
    """A certificate of somebody else's. ``issuer`` and ``subject`` are RFC 4514 text.

    ``source`` is ``imported``, or ``discovered`` in a connection: then there is no ``der``. ``name`` is its SPIFFE id, else its
    first DNS name, else its subject. Nothing of what was imported is verified.
    """

    fingerprint: str
    serial: str
    issuer: str
    subject: str
    name: str
    dns: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    owner: str
    source: str
    requester: str
    recorded_at: datetime
    der: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryQuery:
    """What to look for; empty means any.

    ``name`` may end with ``*``. ``state`` is one of `CertificateState`, where ``issued`` means not expired, or ``expired``, or
    ``watched``. ``serial`` is the beginning of one. ``after`` is the page before's `InventoryPage.next`. ``declared`` is who looks
    after which name as the world file says; that wins over what `Inventory.own` kept.
    """

    name: str = ""
    issuer: str = ""
    state: str = ""
    owner: str = ""
    fingerprint: str = ""
    serial: str = ""
    expiring_before: datetime | None = None
    after: str = ""
    limit: int = 100
    declared: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """One certificate of the inventory, with who looks after it."""

    record: CertificateRecord | WatchedRecord
    owner: str


@dataclass(frozen=True, slots=True)
class InventoryPage:
    """Certificates, newest first. ``next`` asks for the next page; empty where there is none."""

    found: list[Found]
    next: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which live certificates to revoke; what is given must all hold, and something must be.

    ``name`` is one, or with ``prefix`` the beginning of many: then the platform's own, below ``handfast/``, are left out,
    unless the beginning itself is among them. ``requesters`` are those who asked for the certificates.
    """

    name: str | None = None
    prefix: bool = False
    serial: str = ""
    fingerprint: str = ""
    issuer: str = ""
    requesters: tuple[str, ...] = ()


class Inventory(Events):
    """The search over all certificates, the watched ones, and the owners."""

    async def watch(self, records: Sequence[WatchedRecord], events: Sequence[CertificateImported]) -> list[str]:
        """Keep others' certificates, 1000 at most, each with its event, and give the fingerprints of those that were new.

        Importing one again gives it a new owner, where one is named.

        Raises:
            BadInput: they are none or too many, or one was issued here.
        """
        bounded(len(records))
        new = []
        for record, event in zip(records, events, strict=True):
            if await self._db.one("select 1 from certificates where fingerprint = $1", record.fingerprint):
                raise BadInput("this certificate was issued here, and is in the inventory", key=record.fingerprint)
            if await self._watched(record, event):
                new.append(record.fingerprint)
        return new

    async def _watched(self, record: WatchedRecord, event: CertificateImported) -> bool:
        sql = f"insert into watched ({_WATCHED_COLUMNS}) values ({placeholders(13)})"  # noqa: S608 - names of ours
        try:
            await self._commit(step(sql, *_watched_values(record)), events=[event])
        except Conflict:
            if record.owner:
                owned = "update watched set owner = $2 where fingerprint = $1"
                await self._db.write(step(owned, record.fingerprint, record.owner))
            return False
        return True

    async def discover(self, record: WatchedRecord) -> bool:
        """Keep a certificate that a client was let in with, and tell whether it is new here.

        It is passed over where it was issued here, and where `MOST_DISCOVERED` are kept already: authorities that are not
        ours can make as many as they like.
        """
        if await self.knows(record.fingerprint):
            return False
        ((kept,),) = await self._db.fetch("select count(*) from watched where source = $1", DISCOVERED)
        if kept >= MOST_DISCOVERED:
            return False
        sql = (
            f"insert into watched ({_WATCHED_COLUMNS}) values ({placeholders(13)}) on conflict (fingerprint) do nothing"  # noqa: S608 - names of ours
        )
        results = await self._db.write(step(sql, *_watched_values(record)))
        return results[0].count == 1

    async def knows(self, fingerprint: str) -> bool:
        """Tell whether a certificate is in the inventory, by the SHA-256 of its DER, lower case hex."""
        both = """select 1 from certificates where fingerprint = $1
            union all select 1 from watched where fingerprint = $1"""
        return await self._db.one(both, fingerprint) is not None

    async def forget_discovered(self, before: datetime) -> int:
        """Forget certificates that were discovered and ended before ``before``, and give how many."""
        sql = "delete from watched where source = $1 and not_after < $2"
        results = await self._db.write(step(sql, DISCOVERED, to_micros(before)))
        return results[0].count

    async def own(self, name: str, owner: str) -> None:
        """Keep who looks after the certificates of a name; an empty ``owner`` means that nobody does."""
        sql = """insert into owners (name, owner) values ($1, $2)
            on conflict (name) do update set owner = excluded.owner"""
        forget = "delete from owners where name = $1"
        await self._db.write(step(sql, name, owner) if owner else step(forget, name))

    async def inventory(self, query: InventoryQuery, now: datetime) -> InventoryPage:
        """Search, newest first.

        Raises:
            BadInput: the limit is not from 1 to 1000, or ``after`` is no cursor.
        """
        ours, theirs = _cursor(query.after)
        # Each table stays in the order of its seq, by which the next page goes on, also where a clock went back.
        found = list(
            merge(await self._ours(query, ours, now), await self._theirs(query, theirs, now), key=lambda one: -one[0])
        )
        page = found[: query.limit]
        for _, own, seq, _ in page:
            ours, theirs = (seq, theirs) if own else (ours, seq)
        more = len(found) > query.limit
        return InventoryPage([one for *_, one in page], f"{ours}-{theirs}" if more else "")

    async def in_inventory(self, fingerprint: str, now: datetime, declared: Mapping[str, str]) -> Found | None:
        """Find one certificate by the SHA-256 of its DER, lower case hex; ``declared`` as in `InventoryQuery`."""
        page = await self.inventory(InventoryQuery(fingerprint=fingerprint, limit=1, declared=declared), now)
        return page.found[0] if page.found else None

    async def _ours(self, query: InventoryQuery, after: int, now: datetime) -> list[_Placed]:
        if query.state == WATCHED:
            return []
        asked = _Asked(bounded(query.limit) + 1, after)
        _state(asked, query.state, now)
        _common(asked, query)
        if query.owner:
            _owned(asked, query)
        columns = ", ".join(f"c.{name}" for name in COLUMNS.split(", "))
        sql = f"""select coalesce(o.owner, ''), c.seq, {columns} from certificates c
            left join owners o on o.name = c.name where c.seq < $2{asked.where} order by c.seq desc limit $1"""  # noqa: S608 - names of ours
        rows = await self._db.fetch(sql, *asked.args)
        records = [(seq, record_of(tuple(row)), owner) for owner, seq, *row in rows]
        return [
            (to_micros(record.recorded_at), True, seq, Found(record, query.declared.get(record.name, owner)))
            for seq, record, owner in records
        ]

    async def _theirs(self, query: InventoryQuery, after: int, now: datetime) -> list[_Placed]:
        if query.state not in {"", WATCHED, EXPIRED}:
            return []
        asked = _Asked(bounded(query.limit) + 1, after)
        if query.state:
            asked.add("c.not_after > {}" if query.state == WATCHED else "c.not_after <= {}", to_micros(now))
        _common(asked, query)
        if query.owner:
            asked.add("c.owner = {}", query.owner)
        columns = ", ".join(f"c.{name}" for name in _WATCHED_COLUMNS.split(", "))
        sql = f"select c.seq, {columns} from watched c where c.seq < $2{asked.where} order by c.seq desc limit $1"  # noqa: S608 - names of ours
        records = [(seq, _watched_record(tuple(row))) for seq, *row in await self._db.fetch(sql, *asked.args)]
        return [(to_micros(record.recorded_at), False, seq, Found(record, record.owner)) for seq, record in records]

    # What a revocation hits

    async def selected(self, selector: Selector, now: datetime, limit: int, last: str = "") -> list[CertificateRecord]:
        """Give at most ``limit`` live certificates that are meant, newest first; that of the fingerprint ``last`` at the end.

        Raises:
            BadInput: nothing is asked for, or the limit is not from 1 to 1000.
        """
        asked = _selecting(selector, now, bounded(limit), last)
        sql = (
            f"select {COLUMNS} from certificates where 1 = 1{asked.where} "  # noqa: S608 - names of ours
            "order by case when fingerprint = $2 and fingerprint <> '' then 1 else 0 end, seq desc limit $1"
        )
        return [record_of(row) for row in await self._db.fetch(sql, *asked.args)]

    async def count_selected(self, selector: Selector, now: datetime) -> int:
        """Count the live certificates that are meant.

        Raises:
            BadInput: nothing is asked for.
        """
        asked = _selecting(selector, now)
        sql = f"select count(*) from certificates where 1 = 1{asked.where}"  # noqa: S608 - names of ours
        ((count,),) = await self._db.fetch(sql, *asked.args)
        return int(count)


class _Asked:
    """Conditions with their values, the first of which were given already."""

    def __init__(self, *given: Value) -> None:
        self.args: list[Value] = list(given)
        self._conditions: list[str] = []

    def add(self, condition: str, *values: Value) -> None:
        """Add a condition of ours; each ``{}`` in it is a value."""
        first = len(self.args) + 1
        self._conditions.append(condition.format(*(f"${number}" for number in range(first, first + len(values)))))
        self.args += values

    @property
    def where(self) -> str:
        """Give the conditions, each after ``and``."""
        return "".join(f" and {condition}" for condition in self._conditions)


_Placed = tuple[int, bool, int, Found]
"""When it was recorded, whether it was issued here, its seq there, and what it is."""


def _common(asked: _Asked, query: InventoryQuery) -> None:
    if query.name:
        stem = query.name.removesuffix("*")
        _name(asked, "c.name", stem, prefix=stem != query.name)
    if query.issuer:
        asked.add("c.issuer = {}", query.issuer)
    if query.fingerprint:
        asked.add("c.fingerprint = {}", query.fingerprint)
    if query.serial:
        asked.add("c.serial >= {} and c.serial < {}", query.serial, f"{query.serial}g")  # hex ends with f
    if query.expiring_before is not None:
        asked.add("c.not_after < {}", to_micros(query.expiring_before))


def _owned(asked: _Asked, query: InventoryQuery) -> None:
    """Ask for the names of an owner: those that the world gives it, and those kept here of which the world says nothing."""
    kept = "c.name in (select name from owners where owner = {})"
    others = [name for name, owner in query.declared.items() if owner != query.owner]
    its_own = [name for name, owner in query.declared.items() if owner == query.owner]
    if others:
        kept += f" and c.name not in ({_places(others)})"
    if its_own:
        kept = f"({kept} or c.name in ({_places(its_own)}))"
    asked.add(kept, query.owner, *others, *its_own)


def _places(values: Sequence[Value]) -> str:
    return ", ".join("{}" for _ in values)


def _name(asked: _Asked, column: str, stem: str, *, prefix: bool) -> None:
    if not prefix:
        asked.add(f"{column} = {{}}", stem)
    elif stem:
        asked.add(f"substr({column}, 1, {{}}) = {{}}", len(stem), stem)


def _state(asked: _Asked, state: str, now: datetime) -> None:
    """Ask for a state of what was issued here; ``issued`` and ``expired`` count the clock in.

    Raises:
        BadInput: there is no such state.
    """
    if state in {CertificateState.ISSUED, EXPIRED}:
        asked.add("c.state = {}", CertificateState.ISSUED.value)
        asked.add("c.not_after <= {}" if state == EXPIRED else "c.not_after > {}", to_micros(now))
    elif state:
        if state not in set(CertificateState):
            known = "issued, expired, revoked, failed, intended or watched"
            raise BadInput(f"{state[:80]!r} is not a state", key="state", hint=known)
        asked.add("c.state = {}", state)


def _selecting(selector: Selector, now: datetime, *given: Value) -> _Asked:
    exact = {"serial": selector.serial, "fingerprint": selector.fingerprint, "issuer": selector.issuer}
    if selector.name is None and not any((*exact.values(), selector.requesters)):
        raise BadInput("name what to revoke", key="name")
    asked = _Asked(*given)
    asked.add("not_after > {} and state in ({}, {})", to_micros(now), *_LIVE)
    if selector.name is not None:
        _name(asked, "name", selector.name, prefix=selector.prefix)
        if selector.prefix and not selector.name.startswith(_RESERVED):
            asked.add("substr(name, 1, {}) <> {}", len(_RESERVED), _RESERVED)
    for column, value in exact.items():
        if value:
            asked.add(f"{column} = {{}}", value)
    if selector.requesters:
        asked.add(f"requester in ({_places(selector.requesters)})", *selector.requesters)
    return asked


def _cursor(text: str) -> tuple[int, int]:
    if not text:
        return NEWEST, NEWEST
    found = _CURSOR.fullmatch(text)
    if not found:
        raise BadInput("this is not where a page ended", key="after", hint="take 'next' of the page before")
    return min(int(found[1]), NEWEST), min(int(found[2]), NEWEST)


def _watched_values(record: WatchedRecord) -> tuple[Value, ...]:
    return (
        record.fingerprint,
        record.serial,
        record.issuer,
        record.subject,
        record.name,
        json.dumps(record.dns),
        to_micros(record.not_before),
        to_micros(record.not_after),
        record.owner,
        record.source,
        record.requester,
        to_micros(record.recorded_at),
        record.der,
    )


def _watched_record(row: Row) -> WatchedRecord:
    fingerprint, serial, issuer, subject, name, dns, not_before, not_after, *rest = row
    owner, source, requester, recorded_at, der = rest
    return WatchedRecord(
        fingerprint=fingerprint,
        serial=serial,
        issuer=issuer,
        subject=subject,
        name=name,
        dns=tuple(json.loads(dns)),
        not_before=from_micros(not_before),
        not_after=from_micros(not_after),
        owner=owner,
        source=source,
        requester=requester,
        recorded_at=from_micros(recorded_at),
        der=der,
    )
