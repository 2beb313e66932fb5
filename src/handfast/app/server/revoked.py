"""What is revoked at one moment and has not expired, as slices and callers need it: a million of it, and nobody has to wait.

Decides how it is kept: in many small sets and lists, as nothing interrupts the growth, the walk or the end of a large one. Refuses to
know what is revoked: the ledger says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from handfast.io import off_loop
from handfast.io.ledger import RevokedCertificate
from handfast.trust.revocation import Entry

_BEGINNING = 3


class Fingerprints(AbstractSet[str]):
    """A set of fingerprints (lower case hex), in as many sets as they have beginnings."""

    def __init__(self) -> None:
        """Begin empty."""
        self._parts: dict[str, set[str]] = {}
        self._size = 0

    def add(self, fingerprint: str) -> None:
        """Take one more; each is given once."""
        self._parts.setdefault(fingerprint[:_BEGINNING], set()).add(fingerprint)
        self._size += 1

    def __contains__(self, fingerprint: object) -> bool:
        """Tell whether it is one of these."""
        return isinstance(fingerprint, str) and fingerprint in self._parts.get(fingerprint[:_BEGINNING], ())

    def __iter__(self) -> Iterator[str]:
        """Give all, in the order of their beginnings."""
        return (one for part in sorted(self._parts) for one in self._parts[part])

    def __len__(self) -> int:
        """Count them."""
        return self._size

    async def forget(self) -> None:
        """Let all go, a few at a time."""
        while self._parts:
            self._parts.popitem()
            await asyncio.sleep(0)
        self._size = 0


@dataclass(slots=True)
class Entries(Collection[Entry]):
    """What stands in one list, kept without an object for each entry: the garbage collector would look at every one."""

    serials: list[str] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, serial: str, at: int, reason: str) -> None:
        """Take one more."""
        self.serials.append(serial)
        self.moments.append(at)
        self.reasons.append(reason)

    def __contains__(self, entry: object) -> bool:
        """Tell whether it is one of these, after a walk through all."""
        return any(one == entry for one in self)

    def __iter__(self) -> Iterator[Entry]:
        """Give all, in the order in which they came."""
        return zip(self.serials, self.moments, self.reasons, strict=True)

    def __len__(self) -> int:
        """Count them."""
        return len(self.serials)


@dataclass(slots=True)
class Revoked:
    """All of it: the fingerprints that gateways and the API deny, and by issuer (key identifier, hex) what stands in its list."""

    denied: Fingerprints = field(default_factory=Fingerprints)
    listed: dict[str, Entries] = field(default_factory=dict)

    def take(self, part: Iterable[RevokedCertificate]) -> None:
        """Take a part of it."""
        for issuer, serial, fingerprint, at, reason in part:
            if issuer not in self.listed:
                self.listed[issuer] = Entries()
            self.listed[issuer].add(serial, at, reason)
            if fingerprint:
                self.denied.add(fingerprint)

    def by(self, issuer: str) -> Entries:
        """Give what stands in an issuer's list."""
        return self.listed.get(issuer, Entries())

    async def forget_lists(self) -> None:
        """Let go of what stands in lists, a little at a time."""
        for entries in self.listed.values():
            await off_loop.let_go(entries.serials)
            await off_loop.let_go(entries.moments)
            await off_loop.let_go(entries.reasons)
