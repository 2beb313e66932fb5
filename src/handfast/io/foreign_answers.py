"""What responders of others answered, on disk, so that a server that begins anew knows whom it knew.

Decides which answers are kept, how many, and whether one that is read back still counts: it is judged again, with the question that
it answered. Refuses to know which of two answers counts: that is `handfast.trust.standing`. The law of this file: it says nothing
that a responder did not sign. An answer that is damaged, another's or over is removed; "revoked" is never over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock

from handfast.access.authority import ForeignAuthority
from handfast.base.refusal import BadInput, HandfastError
from handfast.base.windows import from_unix, to_unix
from handfast.io.files import explained, private_directory, read_secret
from handfast.trust.foreign import ForeignCa
from handfast.trust.foreign_ocsp import NONCE_OCTETS, Question, judge_ocsp
from handfast.trust.standing import Standing, Word

MOST_KEPT = 10_000
"""So many answers of one authority. The oldest goes first."""
MOST_OCTETS = 8 * 1024
"""A larger answer is not kept: after a restart it is asked for."""

_HEAD = re.compile(rb"([0-9]{1,11}) ([0-9a-f]{%d})\n" % (2 * NONCE_OCTETS))
_PLACE = re.compile(r"[a-z0-9-]{1,64}\.[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer (an OCSPResponse, DER) that was judged: what was asked, when, and what follows from it."""

    asked: Question
    at: datetime
    raw: bytes
    standing: Standing


@dataclass(slots=True)
class _Shelf:
    """The answers of one authority: by certificate what is there, as far as it is known, the oldest first."""

    directory: Path
    held: OrderedDict[str, Standing | None] = field(default_factory=OrderedDict)


class ForeignAnswers:
    """The kept answers of all authorities. Its methods are for threads: they read and write."""

    def __init__(self, directory: Path) -> None:
        """Keep them in ``directory``, which is made when the first one comes."""
        self._directory = directory
        self._shelves: dict[str, _Shelf] = {}
        self._lock = Lock()

    def follow(self, authorities: Mapping[str, ForeignAuthority]) -> None:
        """Forget all that belongs to no authority here, its CAs and its responder."""
        named = {place_of(one) for one in authorities.values() if one.responder}
        with self._lock, contextlib.suppress(OSError):  # what stays is never looked at
            self._shelves = {place: shelf for place, shelf in self._shelves.items() if place in named}
            for found in self._directory.iterdir():
                if _PLACE.fullmatch(found.name) and found.name not in named:
                    shutil.rmtree(found, ignore_errors=True)

    def keep(self, authority: ForeignAuthority, certificate: str, answer: Answer) -> None:
        """Keep an answer about a certificate (by its fingerprint), unless one that says the same counts for half as long still.

        Raises:
            BadInput, Unavailable: it cannot be written. Then there is none of this certificate any more, or it is revoked as it was.
        """
        with self._lock:
            shelf = self._shelf(authority)
            if _says_so(shelf.held.get(certificate), answer):
                return
            path = shelf.directory / certificate
            with explained("written", path):
                shelf.held.pop(certificate, None)
                if answer.standing.word is Word.REVOKED and _is_revoked(path, answer.asked):
                    shelf.held[certificate] = None  # it stays, until the new one is there
                else:
                    path.unlink(missing_ok=True)  # first: its word is not to come back, whatever becomes of the new one
                if len(answer.raw) <= MOST_OCTETS:
                    self._write(path, answer)
                    shelf.held[certificate] = answer.standing
                while len(shelf.held) > MOST_KEPT:
                    oldest, _ = shelf.held.popitem(last=False)
                    (shelf.directory / oldest).unlink(missing_ok=True)

    def recall(
        self, authority: ForeignAuthority, certificate: str, ca: ForeignCa, serial: int, now: datetime
    ) -> Standing | None:
        """Give what was answered last about a certificate (by its fingerprint) that ``ca`` issued with this serial, if that counts."""
        path = self._directory / place_of(authority) / certificate
        with self._lock, contextlib.suppress(OSError):
            if not path.exists():
                return None
            try:
                at, standing = _read(read_secret(path, 2 * MOST_OCTETS), ca, serial)
            except HandfastError:
                path.unlink(missing_ok=True)
                return None
            if not standing.counts(to_unix(now)):
                path.unlink(missing_ok=True)
            elif standing.word is Word.REVOKED or at <= now:
                return standing
        return None

    def _shelf(self, authority: ForeignAuthority) -> _Shelf:
        place = place_of(authority)
        if place not in self._shelves:
            shelf = _Shelf(self._directory / place)
            for made in (self._directory.parent, self._directory, shelf.directory):
                private_directory(made)
            with explained("read", shelf.directory):
                found = sorted(shelf.directory.iterdir(), key=lambda one: one.stat().st_mtime)
            shelf.held.update((one.name, None) for one in found)
            self._shelves[place] = shelf
        return self._shelves[place]

    def _write(self, path: Path, answer: Answer) -> None:
        """Write an answer, and wait for no disk: one that a power cut has damaged or taken away is asked for again."""
        beside = path.with_suffix(".new")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(f"{to_unix(answer.at)} {answer.asked.nonce.hex()}\n".encode() + answer.raw)
        beside.replace(path)


def place_of(authority: ForeignAuthority) -> str:
    """Name the directory of an authority, its CAs and its responder: an answer belongs to all three."""
    parts = [authority.responder, *sorted(ca.fingerprint for ca in authority.cas)]
    digest = sha256("\n".join(parts).encode()).hexdigest()
    return f"{authority.name}.{digest[:32]}"


def _says_so(held: Standing | None, answer: Answer) -> bool:
    """Tell whether what is kept will do: a file for each answer would be one a minute and client."""
    said, at = answer.standing, to_unix(answer.at)
    return held is not None and held.word is said.word and 2 * (held.until - at) >= said.until - at


def _is_revoked(path: Path, asked: Question) -> bool:
    try:
        _, kept = _read(read_secret(path, 2 * MOST_OCTETS), asked.ca, asked.serial)
    except HandfastError:  # there is none, or it is damaged
        return False
    return kept.word is Word.REVOKED


def _read(kept: bytes, ca: ForeignCa, serial: int) -> tuple[datetime, Standing]:
    head = _HEAD.match(kept)
    if head is None:
        raise BadInput("this is no answer that was kept")
    at = from_unix(int(head[1]))
    judged = judge_ocsp(kept[head.end() :], Question(serial, ca, bytes.fromhex(head[2].decode())), at)
    if not isinstance(judged, Standing):
        raise BadInput("this answer does not count", hint=str(judged.reason))
    return at, judged
