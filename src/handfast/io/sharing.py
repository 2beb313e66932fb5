"""Generations of authorities on their way between servers: sealed into the ledger by who made one, put in place by the others.

Decides what is believed of the ledger: nothing that the passphrase does not open for this ledger, this generation and this issuing
authority. Whoever can write the database can keep a generation from a server, and give it no other one. Refuses to know when a
generation counts.

What is retired is sealed anew without its keys. A root's key is never there (`generation_files`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import structlog

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io import generation_files
from handfast.io.authority_files import ISSUING
from handfast.io.database import Database, Step
from handfast.io.generations import FIRST, place_of
from handfast.io.ledger.rotation import Rotations
from handfast.io.ledger.sharing import GenerationFiles, dropped, kept
from handfast.io.sealed import Passphrase
from handfast.io.sealed_files import FilesKey, derive
from handfast.trust.facts import issuer_facts, pem_certificates
from handfast.trust.rotation import Generation, Generations, Stage

_SAME = "is this the passphrase that the other servers have? Else copy the directory 'authority' from one of them"
_log = structlog.get_logger("handfast")


class Sharing:
    """The generations in ``directory``, and what the ledger holds of them. `open_sharing` makes one."""

    def __init__(
        self, directory: Path, passphrase: Passphrase, table: GenerationFiles, key: FilesKey, ledger: str
    ) -> None:
        """Take the key that `open_sharing` derived, for the ledger of this id."""
        self._directory, self._passphrase, self._table = directory, passphrase, table
        self._key, self._ledger = key, ledger
        self._known: dict[int, str] = {}

    async def bring(self, rows: Generations) -> None:
        """Put in place what the ledger holds and this server lacks, of generations that are made.

        Raises:
            BadInput: something there does not open, or is not of the generation that it says, or cannot be written.
            Unavailable: the ledger or the disk fails.
        """
        digests = await self._table.digests()
        for one in rows:
            digest = digests.get(one.number)
            if one.issuer and digest and self._known.get(one.number) != digest:
                await self._bring(one)
                self._known[one.number] = digest

    async def has_news(self, rows: Generations) -> bool:
        """Tell whether the ledger holds what `bring` has not looked at yet.

        Raises:
            Unavailable: the ledger fails.
        """
        digests = await self._table.digests()
        return any(
            one.issuer and digests.get(one.number, self._known.get(one.number)) != self._known.get(one.number)
            for one in rows
        )

    async def _bring(self, one: Generation) -> None:
        place, sealed = place_of(self._directory, one.number), await self._table.sealed(one.number)
        if sealed is None:
            return
        try:
            given = self._opened(one, sealed)
        except BadInput as error:
            if self._is_here(one):
                # What is here is whole: nobody's word in the database stops a server that has it.
                _log.warning("sharing.refused", generation=one.number, error=str(error))
                return
            raise
        if one.number == FIRST and not self._is_here(one):
            return  # a first generation is joined or copied, never replaced; `settle` says what is wrong
        if generation_files.put(place, given, keys=one.stage is not Stage.RETIRED):
            _log.info("sharing.brought", generation=one.number)

    def _opened(self, one: Generation, sealed: bytes) -> dict[str, bytes]:
        try:
            given = self._key.open(sealed, _purpose(self._ledger, one))
        except BadInput as error:
            raise BadInput(error.message, key=f"generation {one.number} in the database", hint=_SAME) from error
        text = given.get(ISSUING, b"").decode("ascii", "replace")
        if issuer_facts(pem_certificates(text)[0]).key_id.hex() != one.issuer:
            raise BadInput("this is not the generation that the ledger knows", key=f"generation {one.number}")
        return given

    async def offer(self, rows: Generations) -> None:
        """Give the ledger what this server has and the ledger lacks: after an upgrade, or where a root has a newer list.

        Raises:
            Unavailable: the ledger fails.
        """
        lacking = [one for one in rows if self._is_here(one) and await self._lacks(one)]
        await self._table.write(*await asyncio.to_thread(lambda: [self._step(one) for one in lacking]))

    async def _lacks(self, one: Generation) -> bool:
        """Tell whether the ledger has another thing of a generation than what this server would give it."""
        place, sealed = place_of(self._directory, one.number), await self._table.sealed(one.number)
        try:
            if one.stage is not Stage.RETIRED and not generation_files.may_leave(place):
                return sealed is not None
            if sealed is None:
                return True
            theirs = self._opened(one, sealed)
            kept_on = one.stage is Stage.RETIRED and generation_files.has_keys(theirs)
            return kept_on or generation_files.differs(self._public(one), theirs)
        except BadInput:
            return True

    async def steps(self, before: Generations, after: Generations) -> Sequence[Step]:
        """Give what belongs to a change of states in the ledger: what is made is sealed, what is retired loses its keys there."""
        known = {one.number: one for one in before}
        changed = [one for one in after if one.issuer and _counts(known.get(one.number), one)]
        above = {one.root for one in changed} - {one.number for one in changed}
        roots = [one for one in after if one.number in above and self._is_here(one)]  # one may have got a newer list
        return await asyncio.to_thread(lambda: [self._step(one) for one in (*changed, *roots)])

    def _step(self, one: Generation) -> Step:
        try:
            ours = self._gathered(one, keys=one.stage is not Stage.RETIRED) if self._is_here(one) else None
            return dropped(one.number) if ours is None else self._kept(one, ours)
        except BadInput as error:
            # Neither a start nor a rotation fails for this: the others are told what to copy, as where keys lie open.
            _log.warning("sharing.refused", generation=one.number, error=str(error))
            return dropped(one.number)

    def _is_here(self, one: Generation) -> bool:
        return bool(one.issuer) and generation_files.issuer_of(place_of(self._directory, one.number)) == one.issuer

    def _gathered(self, one: Generation, *, keys: bool) -> dict[str, bytes] | None:
        place, root = (place_of(self._directory, number) for number in (one.number, one.root))
        return generation_files.gather(place, root, self._passphrase, keys=keys)

    def _public(self, one: Generation) -> dict[str, bytes]:
        return self._gathered(one, keys=False) or {}

    def _kept(self, one: Generation, ours: dict[str, bytes]) -> Step:
        sealed = self._key.seal(ours, _purpose(self._ledger, one))
        self._known[one.number] = sha256(sealed).hexdigest()
        return kept(one.number, sealed)


async def open_sharing(directory: Path, passphrase: Passphrase | None, database: Database) -> Sharing | None:
    """Give the sharing of the authority in ``directory``; None where there is nobody to share with, or nothing that seals.

    Raises:
        Unavailable: the database does not answer.
    """
    if passphrase is None or not database.has_others:
        return None
    table = GenerationFiles(database)
    ledger = await table.ledger_id()
    key = await asyncio.to_thread(derive, passphrase, ledger)
    return Sharing(directory, passphrase, table, key, ledger)


async def join(directory: Path, trust_domain: TrustDomain, passphrase: Passphrase | None, database: Database) -> None:
    """Put the first generation of the ledger into ``directory``, where there is none and the ledger has one that we can open.

    The passphrase vouches for it: a ledger that somebody else wrote holds nothing that opens. No root's key is in it.

    Raises:
        BadInput: it was sealed with another passphrase, or is of another trust domain.
        Unavailable: the database or the disk fails.
    """
    if generation_files.exists(directory) or not (sharing := await open_sharing(directory, passphrase, database)):
        return
    first = next((one for one in await Rotations(database).generations() if one.number == FIRST), None)
    sealed = await GenerationFiles(database).sealed(FIRST)
    if first is None or sealed is None:
        return
    given = sharing._opened(first, sealed)  # noqa: SLF001 - of this module
    found = issuer_facts(pem_certificates(given[ISSUING].decode("ascii", "replace"))[0]).trust_domain
    if found != trust_domain:
        raise BadInput(f"the database is of the trust domain {found}, not of {trust_domain}", key="--trust-domain")
    generation_files.put(directory, given, keys=first.stage is not Stage.RETIRED)
    _log.info("sharing.joined", trust_domain=str(trust_domain))


def _counts(before: Generation | None, after: Generation) -> bool:
    """Tell whether what may be given away has changed: it was made, or it is over."""
    return (
        before is None
        or before.issuer != after.issuer
        or (after.stage is Stage.RETIRED) != (before.stage is Stage.RETIRED)
    )


def _purpose(ledger: str, one: Generation) -> str:
    return f"ledger {ledger} generation {one.number} issuer {one.issuer}"
