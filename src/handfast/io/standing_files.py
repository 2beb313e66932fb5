"""What an agent knows of partners' certificates, on its disk: a gateway that begins anew knows whom it knew.

Decides how much is kept, and what of it is believed when it is read: what nobody but its owner could write, of the same authority, its CAs and
its responder, and what counts at that moment. Refuses to know which of two words is gone by (`handfast.trust.standing`). The law of this
file: a word that takes a "good" back is on the disk before anybody hears it, so no restart brings the "good" back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from handfast.access.authority import ForeignAuthority
from handfast.base.refusal import BadInput, HandfastError
from handfast.base.windows import to_unix
from handfast.io.files import private_directory, read_secret, write_secret
from handfast.io.foreign_answers import place_of
from handfast.io.ports import Clock
from handfast.io.standings import MOST_KEPT, Record
from handfast.trust.standing import Standing, Word

SOON_S, LATER_S = 1.0, 30.0
"""How long a new "good" waits for others before it is written, and how long one that says the same again."""
MOST_OCTETS = 160 * MOST_KEPT
_FILE = re.compile(r"[a-z0-9-]{1,64}\.[0-9a-f]{32}\.json")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_LAST = 2**40
"""No time here is later (Unix seconds)."""
_log = structlog.get_logger("handfast.agent")


@dataclass(slots=True)
class _Shelf:
    """What is kept of one authority, by certificate, the oldest first; ``version`` counts its changes, ``written`` is that on the disk."""

    path: Path
    held: OrderedDict[str, Standing]
    version: int = 0
    written: int = 0
    pause_s: float = LATER_S
    timer: asyncio.Task[None] | None = None
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class StandingFiles:
    """The kept words, a file for each authority. What cannot be read is asked for again."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Keep them in ``directory``, which is made when the first word comes."""
        self._directory, self._clock = directory, clock
        self._shelves: dict[str, _Shelf] = {}
        self._reading = asyncio.Lock()

    def follow(self, authorities: Mapping[str, ForeignAuthority]) -> None:
        """Forget all that belongs to no authority here, its CAs and its responder."""
        named = {f"{place_of(one)}.json" for one in authorities.values() if one.responder}
        for gone in self._shelves.keys() - named:
            _stop(self._shelves.pop(gone))
        with contextlib.suppress(OSError):  # what stays is never looked at
            for found in self._directory.iterdir():
                if _FILE.fullmatch(found.name) and found.name not in named:
                    found.unlink()

    def record(self, authority: ForeignAuthority, certificate: str) -> Record:
        """Give what outlives this process of a certificate (by its fingerprint)."""

        async def recall() -> Standing | None:
            kept, now = (await self._shelf(authority)).held.get(certificate), self._now()
            return kept if kept and _believed(kept, now) else None

        async def keep(said: Standing) -> None:
            await self._keep(await self._shelf(authority), certificate, said)

        return Record(recall, keep)

    async def close(self) -> None:
        """Write what is not written yet."""
        for shelf in self._shelves.values():
            _stop(shelf)
            await self._write(shelf)

    async def _shelf(self, authority: ForeignAuthority) -> _Shelf:
        name = f"{place_of(authority)}.json"
        async with self._reading:
            if name not in self._shelves:
                path = self._directory / name
                self._shelves[name] = _Shelf(path, await asyncio.to_thread(_read, path, self._now()))
        return self._shelves[name]

    async def _keep(self, shelf: _Shelf, certificate: str, said: Standing) -> None:
        before = shelf.held.pop(certificate, None)
        if said.word is not Word.UNKNOWN:
            shelf.held[certificate] = said
        elif before is None:
            return
        while len(shelf.held) > MOST_KEPT:
            shelf.held.popitem(last=False)
        shelf.version += 1
        known = before is not None and before.word is said.word
        if known or said.word is Word.GOOD:
            self._write_later(shelf, LATER_S if known else SOON_S)
        else:
            await self._write(shelf)

    def _write_later(self, shelf: _Shelf, pause_s: float) -> None:
        if shelf.timer and shelf.pause_s <= pause_s:
            return
        _stop(shelf)
        shelf.pause_s, shelf.timer = pause_s, asyncio.create_task(self._after(shelf))

    async def _after(self, shelf: _Shelf) -> None:
        await self._clock.sleep(shelf.pause_s)
        shelf.timer = None  # from here on nobody stops it
        await self._write(shelf)

    async def _write(self, shelf: _Shelf) -> None:
        """Write all that is known by now. Many who want that at once share a write."""
        wanted = shelf.version
        async with shelf.writing:
            if shelf.written >= wanted:
                return
            shelf.written, now = shelf.version, self._now()
            kept = {name: _plain(one) for name, one in shelf.held.items() if one.counts(now)}
            await asyncio.to_thread(_replace, shelf.path, msgspec.json.encode(kept))

    def _now(self) -> int:
        return to_unix(self._clock.now())


def _stop(shelf: _Shelf) -> None:
    if shelf.timer:
        shelf.timer.cancel()
        shelf.timer = None


def _believed(kept: Standing, now: int) -> bool:
    """Tell whether a word counts. A "good" of the future is of a clock that was set back, and nobody knows for how long it would count."""
    return kept.counts(now) and (kept.word is Word.REVOKED or kept.since <= now)


def _plain(one: Standing) -> tuple[str, int, int, int]:
    return one.word.value, one.since, one.until, one.renew


def _read(path: Path, now: int) -> OrderedDict[str, Standing]:
    if not path.exists():
        return OrderedDict()
    try:
        plain = msgspec.json.decode(read_secret(path, MOST_OCTETS), type=dict[str, tuple[Word, int, int, int]])
        found = OrderedDict((name, Standing(*one)) for name, one in plain.items())
        if len(found) > MOST_KEPT or not all(_is_ours(name, one) for name, one in found.items()):
            raise BadInput("these are no standings of certificates", file=str(path))
    except (HandfastError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("standings.unread", file=path.name, error=str(error))
        return OrderedDict()
    return OrderedDict((name, one) for name, one in found.items() if one.word is not Word.UNKNOWN and one.counts(now))


def _is_ours(name: str, one: Standing) -> bool:
    return bool(_FINGERPRINT.fullmatch(name)) and all(0 <= time < _LAST for time in (one.since, one.until, one.renew))


def _replace(path: Path, content: bytes) -> None:
    """Write a file in the place of the one before. Where that fails there is none: what it said may not be so any more."""
    try:
        for made in (path.parent.parent, path.parent):
            private_directory(made)
        write_secret(path, content)
    except HandfastError as error:
        _log.warning("standings.unkept", file=path.name, error=str(error))
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
