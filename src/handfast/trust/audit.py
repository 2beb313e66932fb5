"""The audit chain: each event is bound to all that were before it, by a hash that anyone can compute again.

Decides the bytes that are hashed, what a signed statement of the chain says, and what is wrong with rows that do not fit.
Refuses to know where rows are kept and who links them.

What it can find, and what not: a hash needs no secret, so whoever writes to the database and knows these lines can make a
chain of his own. He cannot make one that holds the link of a `Statement` that somebody has kept elsewhere. The chain
finds the careless and the partial change at once, and says where; the statement finds all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handfast.base.refusal import BadInput
from handfast.trust.algorithms import verify
from handfast.trust.facts import facts, load, pem_certificates
from handfast.trust.profile import UNREADABLE

GENESIS = "0" * 64
"""What stands before the first link."""

_LINK = b"handfast audit link 1\n"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it lies in the ledger, column by column. ``at`` is microseconds since 1970; ``body`` the JSON as written."""

    seq: int
    id: str
    kind: str
    at: int
    body: str


@dataclass(frozen=True, slots=True)
class Link:
    """One link: its place in the chain from 1, the event that it binds, and the hash (lower case hex)."""

    number: int
    seq: int
    id: str
    hash: str


class Damage(StrEnum):
    """What can be wrong with a chain."""

    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"
    MOVED = "moved"
    UNLINKED = "unlinked"
    BEGINNING = "beginning"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"

    @property
    def text(self) -> str:
        """What it means, in a clause."""
        return _TEXTS[self]


_TEXTS = {
    Damage.CHANGED: "the event, or its link, is not what was sealed",
    Damage.REMOVED: "the event is gone",
    Damage.ADDED: "an event stands here that was never sealed",
    Damage.MOVED: "another event stands in this one's place",
    Damage.UNLINKED: "links are gone from the chain",
    Damage.BEGINNING: "the chain begins too late, and nothing signed says that what was before it was pruned",
    Damage.TRUNCATED: "the chain ends before the checkpoint: its newest part is gone",
    Damage.REWRITTEN: "the chain has another hash here than the checkpoint: it was made anew",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where in the chain, and at which event (0 where there is none)."""

    damage: Damage
    number: int
    seq: int

    def __str__(self) -> str:
        """Say it for people."""
        place = f"link {self.number}" + (f", event {self.seq}" if self.seq else "")
        return f"{place}: {self.damage.value}: {self.damage.text}"


def link(previous: str, number: int, entry: Entry) -> Link:
    """Bind an event to the link before it, whose hash is ``previous``.

    SHA-256 over a fixed prefix, the previous hash, three numbers of eight octets, and each text after its length: no two
    different events, and no two places of one event, give the same bytes.

    Raises:
        BadInput: a text is not Unicode, a number has more than 64 bits, or ``previous`` is not a hash.
    """
    try:
        parts = [bytes.fromhex(previous), *(n.to_bytes(8, "big", signed=True) for n in (number, entry.seq, entry.at))]
        for text in (entry.id, entry.kind, entry.body):
            raw = text.encode()
            parts += [len(raw).to_bytes(8, "big"), raw]
    except (ValueError, OverflowError) as error:
        raise BadInput(f"event {entry.seq} cannot be bound into the audit chain") from error
    return Link(number, entry.seq, entry.id, sha256(_LINK + b"".join(parts)).hexdigest())


@dataclass(slots=True)
class Walk:
    """Follows a chain, page by page, and tells what does not fit. Begins behind ``number``, whose hash is ``hash``.

    After a fault it goes on from what the rows say, so one change is one fault and not all that follow it.
    """

    number: int = 0
    hash: str = GENESIS

    def page(self, links: Sequence[Link], entries: Sequence[Entry]) -> Iterator[Fault]:
        """Look at the next links, in the order of their numbers, and at all events that stand among what they bind."""
        standing = {entry.seq: entry for entry in entries}
        for found in links:
            yield from self._step(found, standing.pop(found.seq, None))
        yield from (Fault(Damage.ADDED, self.number, seq) for seq in sorted(standing))

    def _step(self, found: Link, entry: Entry | None) -> Iterator[Fault]:
        expected, previous = self.number + 1, self.hash
        self.number, self.hash = found.number, found.hash
        if found.number != expected:
            yield Fault(Damage.UNLINKED, expected, 0)
        elif entry is None:
            yield Fault(Damage.REMOVED, found.number, found.seq)
        elif entry.id != found.id:
            yield Fault(Damage.MOVED, found.number, found.seq)
        elif not _is_hash(previous) or link(previous, found.number, entry) != found:
            yield Fault(Damage.CHANGED, found.number, found.seq)


class Purpose(StrEnum):
    """What a statement is for. It is signed with it, so one kind never passes for the other."""

    CHECKPOINT = "checkpoint"
    ANCHOR = "anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What an authority says of a chain: at this time, its link ``number`` had this hash and bound the event ``seq``.

    A checkpoint is kept elsewhere; an anchor is kept in the ledger, for what was pruned up to there.
    ``certificate`` (PEM) is the authority's that signed; ``signature`` is base64.
    """

    purpose: Purpose
    trust_domain: str
    number: int
    seq: int
    hash: str
    at: datetime
    certificate: str = ""
    signature: str = ""


def statement_bytes(said: Statement) -> bytes:
    """Give what is signed of a statement.

    It begins with a word, and never with the 0x30 of a DER SEQUENCE: a signature over it can be passed off neither as a
    certificate's nor as a revocation list's.

    Raises:
        BadInput: it is not one that could have been made here.
    """
    if said.number < 0 or said.seq < 0 or not _is_hash(said.hash) or "\n" in said.trust_domain:
        raise BadInput("this is not a statement of an audit chain")
    lines = [
        f"handfast audit {said.purpose.value} 1",
        said.trust_domain,
        str(said.number),
        str(said.seq),
        said.hash,
        said.at.isoformat(),
    ]
    return "\n".join(lines).encode()


def check_statement(said: Statement, purpose: Purpose, trust_domain: str, roots: Sequence[bytes]) -> None:
    """Check who made a statement: an authority of ``trust_domain`` below one of ``roots`` (DER), when it was valid.

    Raises:
        BadInput: it is for another purpose or domain, or is not signed by such an authority.
    """
    if (said.purpose, said.trust_domain) != (purpose, trust_domain):
        raise BadInput(f"this is no {purpose.value} of {trust_domain}'s audit chain")
    signer = _signer(said, [load(der) for der in roots])
    key = signer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        verify(base64.b64decode(said.signature, validate=True), statement_bytes(said), key)
    except (InvalidSignature, ValueError) as error:
        raise BadInput(f"the {purpose.value}'s signature is not its authority's") from error


def _signer(said: Statement, roots: Sequence[x509.Certificate]) -> x509.Certificate:
    """Give the certificate whose key signed, after following the chain up to a root."""
    chain = [load(der) for der in pem_certificates(said.certificate)]
    for lower, upper in pairwise(chain):
        if not _issued(lower, upper):
            raise BadInput("the certificates of a statement do not form a chain")
    if chain[-1] not in roots and not any(_issued(chain[-1], root) for root in roots):
        raise BadInput(
            "the statement comes from an authority that is not trusted here", hint="name its root with --roots"
        )
    if any(not facts(one.public_bytes(Encoding.DER)).is_ca for one in chain):
        raise BadInput("a statement is signed by an authority, and this certificate is none")
    if not all(one.not_valid_before_utc <= said.at < one.not_valid_after_utc for one in chain):
        raise BadInput("the authority that signed was not valid at the time that the statement names")
    return chain[0]


def _issued(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def compared(said: Statement, number: int, hash_at: str | None) -> Fault | None:
    """Hold a checkpoint against a chain that ends at ``number`` and has ``hash_at`` at the checkpoint's place.

    None for ``hash_at`` where the place was pruned, properly: the signed anchor is newer than the checkpoint.
    """
    if number < said.number:
        return Fault(Damage.TRUNCATED, number, 0)
    if hash_at is not None and hash_at != said.hash:
        return Fault(Damage.REWRITTEN, said.number, said.seq)
    return None


def _is_hash(text: str) -> bool:
    return len(text) == len(GENESIS) and not set(text) - _HEX
