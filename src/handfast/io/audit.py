"""Keeps the audit chain: seals what is new, prunes what is old behind a signed anchor, signs checkpoints, walks the rows.

Decides when a chain holds: from its anchor to its end, by `handfast.trust.audit`, over rows that are read a page at a time.
Refuses to know where the rows come from: a ledger, or a server's answers.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from handfast.base.refusal import BadInput
from handfast.base.windows import whole_second
from handfast.io.authorities import Authority
from handfast.io.database import Conflict
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.chain import ChainPage
from handfast.trust.audit import (
    GENESIS,
    Damage,
    Fault,
    Link,
    Purpose,
    Statement,
    Walk,
    check_statement,
    compared,
    statement_bytes,
)

PAGE = 500
MOST_FAULTS = 100
_TRIES = 5
_MOST_BATCHES = 1000


class Rows(Protocol):
    """Where the rows of a chain come from."""

    async def chain_anchor(self) -> Statement | None:
        """Give the signed statement of what was pruned."""

    async def chain_page(self, after: int, after_seq: int, limit: int) -> ChainPage:
        """Give the next links with the events among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose statements count: those of this trust domain's authorities below these roots (DER)."""

    trust_domain: str
    roots: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a walk over a chain found. ``first`` and ``last`` are link numbers; ``faults`` are the first hundred."""

    first: int
    last: int
    hash: str
    checked: int
    faults: tuple[Fault, ...]


async def seal_all(ledger: SqlLedger, now: datetime) -> int:
    """Link all events that are not linked yet, and give how many this call linked."""
    sealed = 0
    while count := await ledger.seal(now):
        sealed += count
    return sealed


async def checkpoint(ledger: SqlLedger, authority: Authority, now: datetime) -> Statement:
    """Say, signed, where the chain ends now. Whoever keeps it elsewhere can tell later whether anything before it is gone.

    Raises:
        Unavailable: the key cannot be used now.
    """
    await seal_all(ledger, now)
    return await _signed(Purpose.CHECKPOINT, await ledger.chain_head(), authority, now)


async def prune(ledger: SqlLedger, authority: Authority, before: datetime, now: datetime) -> int:
    """Forget events that were sealed before ``before``; a signed anchor takes their place. Give how many went.

    Raises:
        Unavailable: the key cannot be used now. Nothing is forgotten without an anchor.
    """
    gone = 0
    for _ in range(_MOST_BATCHES):
        last = await ledger.last_to_prune(before)
        if last is None:
            break
        try:
            gone += await ledger.prune_chain(await _signed(Purpose.ANCHOR, last, authority, now))
        except Conflict:  # another server prunes, too
            break
    return gone


async def _signed(purpose: Purpose, at: Link, authority: Authority, now: datetime) -> Statement:
    said = Statement(
        purpose=purpose,
        trust_domain=str(authority.trust_domain),
        number=at.number,
        seq=at.seq,
        hash=at.hash,
        at=whole_second(now),
        certificate=authority.chain_pem,
    )
    signature = await authority.signer.sign(statement_bytes(said))
    return replace(said, signature=base64.b64encode(signature).decode())


async def verify(rows: Rows, trust: Trust, checkpoint: Statement | None = None) -> Verdict:
    """Walk a chain from its anchor to its end, and hold a checkpoint against it where one is given.

    Where the chain is pruned while it is walked, it is walked again.

    Raises:
        BadInput: the checkpoint is not one of this trust domain's authorities.
    """
    if checkpoint:
        check_statement(checkpoint, Purpose.CHECKPOINT, trust.trust_domain, trust.roots)
    for _ in range(_TRIES):
        anchor = await rows.chain_anchor()
        verdict = await _walked(rows, anchor, trust, checkpoint)
        if not verdict.faults or await rows.chain_anchor() == anchor:
            break
    return verdict


async def _walked(rows: Rows, anchor: Statement | None, trust: Trust, checkpoint: Statement | None) -> Verdict:
    faults = _of_anchor(anchor, trust)
    walk = Walk(anchor.number, anchor.hash) if anchor else Walk()
    begin, seq, known = walk.number, 0, {walk.number: walk.hash}
    while (page := await rows.chain_page(walk.number, seq, PAGE)).links:
        found = list(walk.page(page.links, page.entries))
        if begin == 0 == seq and page.links[0].number != 1:
            found[0] = Fault(Damage.BEGINNING, page.links[0].number, page.links[0].seq)
        faults += found
        seq = max(one.seq for one in page.links)
        if checkpoint:
            known |= {one.number: one.hash for one in page.links if one.number == checkpoint.number}
    if checkpoint and (fault := _of_checkpoint(checkpoint, walk.number, known, begin)):
        faults.append(fault)
    return Verdict(
        first=begin + 1,
        last=walk.number,
        hash=walk.hash,
        checked=walk.number - begin,
        faults=tuple(faults[:MOST_FAULTS]),
    )


def _of_anchor(anchor: Statement | None, trust: Trust) -> list[Fault]:
    if anchor is None:
        return []
    try:
        check_statement(anchor, Purpose.ANCHOR, trust.trust_domain, trust.roots)
    except BadInput:
        return [Fault(Damage.BEGINNING, anchor.number, anchor.seq)]
    return []


def _of_checkpoint(checkpoint: Statement, number: int, known: dict[int, str], begin: int) -> Fault | None:
    pruned = checkpoint.number < begin
    return compared(checkpoint, number, None if pruned else known.get(checkpoint.number, GENESIS))
