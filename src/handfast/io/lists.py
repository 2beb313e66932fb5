"""Revocation lists as files: made from the ledger, signed, put in place whole, and found again by whoever serves them.

Decides when a list is due and how long it counts, and holds no more of it than the octets of one. Refuses to know HTTP.

A complete list is made on schedule and when something was revoked; the changes to it sooner, and more often. A long list rests
after it was made for twenty times as long as that took: meanwhile the changes alone say what is new.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import IO

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtensionOID

from handfast.base.refusal import Unavailable
from handfast.base.windows import Window, whole_second
from handfast.io.authorities import Authority
from handfast.io.ca_lists import read_list
from handfast.io.files import explained
from handfast.io.ledger.lists import MAX_BYTES, ListHead, SharedLists
from handfast.io.ledger.status import Entries, ListKey, StatusTable
from handfast.io.ports import Clock
from handfast.trust.addresses import crl_path, delta_path, shard_of
from handfast.trust.algorithms import verify
from handfast.trust.profile import BACKDATE
from handfast.trust.revocation import CrlOutline, around, entry, signed

_log = structlog.get_logger("handfast")

LIST_LIFE, LIST_EVERY = timedelta(hours=24), timedelta(hours=6)
"""How long a complete list counts, and how often one is made though nothing has changed."""
CHANGES_LIFE, CHANGES_EVERY = timedelta(hours=1), timedelta(minutes=20)
"""The same of the changes to it."""
LATE = timedelta(minutes=5)
"""How much later a revocation may become visible than the time that it bears: another server's clock, and its commit."""
LOOK_EVERY = timedelta(seconds=5)
"""How often a server looks whether another one has signed a list. At a revocation all look at once."""
KEPT = timedelta(days=2)
"""How long the ledger keeps a list that nobody makes anew."""
_CHANGES = delta_path("", 0).removeprefix(crl_path("", 0).removesuffix(".crl"))
REST, SHORT_S = 20, 0.1
"""How many times as long as it took to make it a list rests, and what takes so little that it need not."""


@dataclass(frozen=True, slots=True)
class Published:
    """One list as it is served. ``etag`` names its octets."""

    file: Path
    size: int
    number: int
    window: Window
    made_at: datetime
    etag: str
    revision: int = 0


@dataclass(slots=True)
class _Shard:
    """What is known of one list: when the last of each kind was made, and from when on a new one may be."""

    key: ListKey
    complete: datetime | None = None
    changes: datetime | None = None
    rested: datetime | None = None
    stale: bool = False

    @property
    def complete_path(self) -> str:
        """Where the complete list is found."""
        return crl_path(self.key.issuer, self.key.shard)

    @property
    def changes_path(self) -> str:
        """Where the changes to it are found."""
        return delta_path(self.key.issuer, self.key.shard)


@dataclass(frozen=True, slots=True)
class _Made:
    """A list that is about to be made: for which path, when, and how often one is."""

    path: str
    at: datetime
    scheduled_at: datetime
    revision: int
    every: timedelta

    def head(self, number: int) -> ListHead:
        """Give what the ledger knows of it."""
        return ListHead(
            path=self.path, number=number, revision=self.revision, made_at=self.at, scheduled_at=self.scheduled_at
        )


@dataclass(slots=True)
class RevocationLists:
    """The lists of one issuer. ``next_number`` gives the numbers, never one twice (RFC 5280 section 5.2.3).

    ``shards`` and ``urls`` come from the ledger's `StatusTable`: without ``urls`` a list names no address, and there are no lists of
    changes, as nobody could find them. Where several servers have one ledger, each list is signed by one of them: the others find it
    in ``shared``. ``revision`` counts what agents must know; a list has at least what was revoked by its own. By ``stopwatch``
    (seconds) it is known how long a list took.
    """

    authority: Authority
    table: StatusTable
    clock: Clock
    directory: Path
    next_number: Callable[[], Awaitable[int]]
    shards: int = 1
    urls: tuple[str, ...] = ()
    shared: SharedLists | None = None
    revision: Callable[[], int] = lambda: 0
    stopwatch: Callable[[], float] = time.monotonic
    published: dict[str, Published] = field(default_factory=dict)
    """By path, such as ``/crl/5e…/0.crl``."""
    _state: list[_Shard] = field(default_factory=list)
    _looked: datetime | None = None

    def __post_init__(self) -> None:
        """Know the lists; none is made yet."""
        issuer = self.authority.issuer_facts.key_id.hex()
        self._state = [_Shard(ListKey(issuer=issuer, shard=at, shards=self.shards)) for at in range(self.shards)]

    async def refresh(self) -> None:
        """Make each list that is due, and each that something was revoked in since the last call.

        Raises:
            Unavailable: the ledger or the key cannot be used now. What was published stays.
        """
        now, revision = self.clock.now(), self.revision()
        await self._take_shared()
        await self._see_changes(now, revision)
        for one in self._state:
            await self._refresh(one, self.clock.now(), revision)
        self._looked = now

    def due(self) -> datetime:
        """Give when the next list is due, if nothing is revoked before."""
        now = self.clock.now()
        looks = [self._looked + LOOK_EVERY] if self.shared and self._looked else []
        return min([*looks, *(self._due(one) for one in self._state)], default=now)

    def _due(self, one: _Shard) -> datetime:
        now = self.clock.now()
        if one.complete is None or one.rested is None:
            return now
        moments = [one.complete + LIST_EVERY]
        if self.urls:
            moments.append((one.changes or now) + CHANGES_EVERY)
        if one.stale:
            moments.append(one.rested)
        return min(moments)

    async def _see_changes(self, now: datetime, revision: int) -> None:
        """Find the lists that something was revoked in, and that do not know of it yet."""
        await self._mark(now)
        for one in self._state:
            if self.shared and self._known(one.complete_path) >= revision:
                one.stale = False

    def _known(self, path: str) -> int:
        found = self.published.get(path)
        return found.revision if found else -1

    async def _mark(self, now: datetime) -> None:
        if self._looked is None:
            return
        everything = ListKey(issuer=self._state[0].key.issuer, shard=0, shards=1)
        async for part in self.table.revoked_since(everything, min(self._looked, now) - LATE):
            for shard in {shard_of(serial, self.shards) for serial, _, _ in part}:
                self._state[shard].stale = True
            if all(one.stale for one in self._state):
                return

    async def _refresh(self, one: _Shard, now: datetime, revision: int) -> None:
        scheduled = one.complete is None or now >= one.complete + LIST_EVERY
        if scheduled or (one.stale and (one.rested is None or now >= one.rested)):
            await self._complete(one, now, revision, scheduled=scheduled)
            await self._changes(one, now, revision)
        elif one.stale or one.changes is None or now >= one.changes + CHANGES_EVERY:
            await self._changes(one, now, revision)

    async def _complete(self, one: _Shard, now: datetime, revision: int, *, scheduled: bool) -> None:
        number, began = await self.next_number(), self.stopwatch()
        window = _window(now, LIST_LIFE)
        outline = self._outline(one, number, window)
        one.stale = False  # before it is read, so that what is revoked meanwhile makes it stale again
        made = _Made(one.complete_path, now, now if scheduled else one.complete or now, revision, LIST_EVERY)
        ours = await self._publish(made, outline, self.table.revoked(one.key, now))
        if scheduled and ours:
            await self.table.scheduled(one.key, number, now, window)
            one.complete = now
        took = self.stopwatch() - began
        one.rested = now + timedelta(seconds=REST * took if took > SHORT_S else 0)

    async def _changes(self, one: _Shard, now: datetime, revision: int) -> None:
        due = one.changes is None or now >= one.changes + CHANGES_EVERY
        if self.shared and not due and self._known(one.changes_path) >= revision:
            return
        base = await self.table.base(one.key, now)
        if not self.urls or base is None:
            one.changes = now
            return
        number = await self.next_number()
        outline = self._outline(one, number, _window(now, CHANGES_LIFE), base.number)
        entries = self.table.revoked_since(one.key, base.made_at - LATE)
        if await self._publish(_Made(one.changes_path, now, now, revision, CHANGES_EVERY), outline, entries):
            one.changes = now

    def _outline(self, one: _Shard, number: int, window: Window, base: int | None = None) -> CrlOutline:
        issuer, shard = one.key.issuer, one.key.shard
        # A list that is the only one of its issuer counts for every certificate, also for those that name no list.
        places = tuple(f"{url}{crl_path(issuer, shard)}" for url in self.urls) if self.shards > 1 else ()
        return CrlOutline(
            issuer=self.authority.issuer_facts,
            number=number,
            window=window,
            places=places,
            freshest=f"{self.urls[0]}{delta_path(issuer, shard)}" if self.urls and base is None else "",
            base=base,
        )

    async def _publish(self, made: _Made, outline: CrlOutline, entries: AsyncIterator[Entries]) -> bool:
        """Sign a list and serve it, unless another server was faster: then serve that one. Tell whether ours counts."""
        message = await self._message(outline, entries)
        signature = await self.authority.signer.sign(message)
        facts = self.authority.issuer_facts
        try:
            await asyncio.to_thread(verify, signature, message, facts.public_key_der)
        except InvalidSignature as error:
            raise Unavailable("the signer gave a signature that is not the issuing authority's") from error
        before, after = signed(len(message), facts, signature)
        if not await self._offer(made, outline, (before, message, after)):
            head = (await self._take_shared()).get(made.path)
            if head and head.number == self._number(made.path):
                return False
        await self._serve(made.head(outline.number), outline.window, signature, (before, message, after))
        return True

    async def _offer(self, made: _Made, outline: CrlOutline, parts: Sequence[bytes]) -> bool:
        """Give a list to the other servers; tell whether it counts for them, or is none of their business."""
        if self.shared is None or sum(map(len, parts)) > MAX_BYTES:
            return True
        if made.scheduled_at == made.at:
            await self.shared.forget(made.at - KEPT)
        return await self.shared.offer(made.head(outline.number), b"".join(parts), made.scheduled_at - made.every / 2)

    async def _serve(self, head: ListHead, window: Window, signature: bytes, parts: Sequence[bytes]) -> None:
        # A name of its own: who reads the list before goes on reading it.
        name = head.path.removeprefix("/crl/").replace("/", "-").removesuffix(".crl")
        file = self.directory / f"{name}-{head.number}.crl"
        await asyncio.to_thread(_put, file, parts)
        old = self.published.get(head.path)
        self.published[head.path] = Published(
            file=file,
            size=sum(map(len, parts)),
            number=head.number,
            window=window,
            made_at=whole_second(head.made_at),
            etag=f'"{sha256(signature).hexdigest()[:32]}"',
            revision=head.revision,
        )
        if old:
            old.file.unlink(missing_ok=True)

    # What other servers signed

    async def _take_shared(self) -> dict[str, ListHead]:
        """Serve what the ledger has, where it is newer than what is served here, and good. Give what it has, by path."""
        if self.shared is None:
            return {}
        heads = await self.shared.heads(f"/crl/{self._state[0].key.issuer}/")
        for one in self._state:
            if (head := heads.get(one.complete_path)) and await self._take(head):
                one.complete, one.rested = head.scheduled_at, self.clock.now()
            if self.urls and (head := heads.get(one.changes_path)) and await self._take(head):
                one.changes = head.made_at
        complete = [self.published.get(one.complete_path) for one in self._state]
        if self._looked is None and all(complete):
            self._looked = min(found.made_at for found in complete if found)
        return heads

    async def _take(self, head: ListHead) -> bool:
        assert self.shared is not None
        if self._number(head.path) >= head.number or not (content := await self.shared.content(head)):
            return False
        found = await asyncio.to_thread(_checked, content, head, self.authority.issuing_der, self.clock.now())
        if found is None:
            _log.warning("sharing.refused", path=head.path, number=head.number)
            return False
        await self._serve(head, *found, (content,))
        return True

    def _number(self, path: str) -> int:
        found = self.published.get(path)
        return found.number if found else -1

    # The octets

    async def _message(self, outline: CrlOutline, entries: AsyncIterator[Entries]) -> bytes:
        """Give the TBSCertList. Its entries wait in a file until their length is known, so that they are in memory once."""
        with tempfile.TemporaryFile(dir=self.directory) as spool:
            async for part in entries:
                await asyncio.to_thread(_spool, spool, part)  # a list may be long
            return await asyncio.to_thread(_whole, outline, spool)


def _spool(spool: IO[bytes], part: Entries) -> None:
    spool.write(b"".join(entry(serial, at, reason) for serial, at, reason in part))


def _whole(outline: CrlOutline, spool: IO[bytes]) -> bytes:
    before, after = around(outline, spool.tell())
    spool.seek(0)
    whole = io.BytesIO()
    whole.write(before)
    shutil.copyfileobj(spool, whole, 1 << 20)
    whole.write(after)
    return whole.getvalue()  # no copy: the buffer itself


def _checked(content: bytes, head: ListHead, issuing_der: bytes, now: datetime) -> tuple[Window, bytes] | None:
    """Give window and signature of a list that another server signed; None unless it is the issuer's and counts now."""
    listed = read_list(content, issuing_der, head.number)
    if listed is None or listed.next_update_utc is None or not listed.last_update_utc <= now < listed.next_update_utc:
        return None
    # Both kinds are the issuer's: one must not be served as the other.
    if head.path.endswith(_CHANGES) != any(one.oid == ExtensionOID.DELTA_CRL_INDICATOR for one in listed.extensions):
        return None
    return Window(listed.last_update_utc, listed.next_update_utc), listed.signature


def _window(now: datetime, life: timedelta) -> Window:
    second = whole_second(now)
    return Window(second - BACKDATE, second + life)


def _put(file: Path, parts: Iterable[bytes]) -> None:
    """Put a file in place whole. It need not outlive a power cut: all lists are made anew at each start."""
    with explained("written", file), tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as beside:
        try:
            beside.writelines(parts)
            beside.flush()
            Path(beside.name).replace(file)
        except BaseException:
            Path(beside.name).unlink(missing_ok=True)
            raise
