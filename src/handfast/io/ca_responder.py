"""OCSP for issuing CAs: who signed them let a key lie beside theirs that answers in its place.

Decides who can answer for which CA, and what is said of an issuing CA: what the ledger says of its generation, and what the list of
its signer says. Refuses to know HTTP, and how a request and an answer are laid out (`handfast.trust.ocsp`).

No root's key is needed for answers. A CA that let nobody answer, such as one elsewhere that was not asked to, has nobody here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cryptography import x509

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import authority_files, key_places
from handfast.io.answers import Answer, Answers, Delegate, signed_answer
from handfast.io.authority_files import RESPONDER
from handfast.io.generations import Generations
from handfast.io.ports import Clock
from handfast.io.sealed import Passphrase
from handfast.trust import rotation
from handfast.trust.delegation import issued, may_answer
from handfast.trust.facts import facts, hex_serial, issuer_facts
from handfast.trust.ocsp import (
    CertificateStatus,
    Good,
    IssuerId,
    OcspRequest,
    RevokedAt,
    Unknown,
    issuer_ids,
)
from handfast.trust.profile import UNREADABLE
from handfast.trust.revocation import RevocationReason
from handfast.trust.rotation import Generation, Stage

MAX_KEPT = 100


@dataclass(frozen=True, slots=True)
class _Signed:
    """One certificate that a CA signed: its serial, and the generation that it came with."""

    serial: str
    number: int


@dataclass(frozen=True, slots=True)
class _Ca:
    """One CA above those that count: what it signed that is here, and what its list revokes."""

    signed: tuple[_Signed, ...]
    listed: Mapping[str, RevokedAt]

    def standing(self, rows: rotation.Generations) -> dict[str, CertificateStatus]:
        """Say of each serial how it stands: revoked is what the ledger says of its generation, and what the list has."""
        known = {row.number: row for row in rows}
        said = {one.serial: _status(known[one.number]) for one in self.signed if one.number in known}
        return {**said, **self.listed}


@dataclass(slots=True)
class CaResponder:
    """Answers for issuing CAs. `refresh` it at each change.

    ``rows`` asks the ledger for the states of all generations, at each answer that is signed. ``generation`` gives a number that
    moves with every change in the ledger.
    """

    authorities: Generations
    rows: Callable[[], Awaitable[rotation.Generations]]
    clock: Clock
    generation: Callable[[], int]
    passphrase: Passphrase | None = None
    _cas: dict[bytes, _Ca] = field(default_factory=dict)
    _delegates: dict[bytes, Delegate] = field(default_factory=dict)
    _seen: rotation.Generations = ()
    _answers: Answers = field(default_factory=lambda: Answers(MAX_KEPT))

    def refresh(self) -> None:
        """Look at what was signed and revoked, and have the key of the newest generation that has one answer for each CA.

        Raises:
            BadInput: a key is not that of its certificate, or a file cannot be used; names it.
        """
        lists = [x509.load_pem_x509_crl(text.encode()) for text in self.authorities.root_crls()]
        above = dict.fromkeys(one.above for one in self.authorities.delivered)
        cas = {der: _Ca(tuple(self._signed_by(der)), dict(_listed(lists, der))) for der in above}
        if cas != self._cas:
            self._cas = cas
            self._answers.clear()
        if self._seen != self.authorities.rows or not all(map(self._counts, self._delegates.values())):
            self._open()

    def _signed_by(self, above: bytes) -> Iterator[_Signed]:
        for row in self.authorities.rows:
            place = self.authorities.directory_of(row.number)
            for path in (place / authority_files.ISSUING, place / RESPONDER):
                if path.exists() and issued(der := authority_files.read_certificate(path), above):
                    yield _Signed(facts(der).serial, row.number)

    def _open(self) -> None:
        found: dict[bytes, Delegate] = {}
        for place, above in self._places():
            if above not in found and (delegate := self._opened(place, above)):
                found[above] = delegate
        self._delegates, self._seen = found, self.authorities.rows
        self._answers.clear()

    def _places(self) -> Iterator[tuple[Path, bytes]]:
        """Give the directories of generations that count, the newest first, each with who signed its issuing CA."""
        numbers = sorted((row.number for row in self.authorities.rows if row.stage in rotation.DELIVERED), reverse=True)
        above = {one.issuer_facts.key_id.hex(): one.above for one in self.authorities.delivered}
        for row in (rotation.by_number(self.authorities.rows, number) for number in numbers):
            yield self.authorities.directory_of(row.number), above[row.issuer]

    def _opened(self, place: Path, above: bytes) -> Delegate | None:
        """Open one; None where there is none, or it has ended. A key that somebody took away is none."""
        path, key = place / RESPONDER, key_places.file_of(place, key_places.RESPONDER)
        if not path.exists() or not key.exists():
            return None
        der = authority_files.read_certificate(path)
        signer, _ = key_places.open_signer(place, self.passphrase, key_places.RESPONDER)
        delegate = Delegate(signer, der, facts(der))
        if not may_answer(der, above, signer.public_key_der):
            key_places.close(signer)
            raise BadInput("this is not a key that may answer OCSP for the issuing CA", file=str(path), hint=_REMOVE)
        if self._counts(delegate):
            return delegate
        key_places.close(signer)
        return None

    def _counts(self, delegate: Delegate) -> bool:
        return delegate.seen.window.contains(self.clock.now())

    # Answers

    def answers_for(self, request: OcspRequest) -> bool:
        """Tell whether all that is asked for is of one CA that somebody answers for here, at this moment."""
        return self._asked_of(request) is not None

    def _asked_of(self, request: OcspRequest) -> bytes | None:
        issuers = {asked.issuer for asked in request.certificates}
        domain = self.authorities.trust_domain
        above = next((der for der in self._delegates if issuers <= _names(der, domain)), None)
        return above if above and self._counts(self._delegates[above]) else None

    async def answer(self, request: OcspRequest) -> Answer:
        """Answer a request that `answers_for` agreed to.

        Raises:
            BadInput: a file cannot be used.
            Unavailable: the ledger cannot be used now, or nobody answers for this CA any more.
        """
        now, generation, above = self.clock.now(), self.generation(), self._asked_of(request)
        if above is None:
            raise Unavailable("nobody answers for this CA any more")
        found = self._answers.again(request, now, generation)
        if found:
            return found
        ca, delegate = self._cas.get(above, _NOTHING), self._delegates[above]
        standing = ca.standing(await self.rows())
        statuses = [standing.get(asked.serial, Unknown()) for asked in request.certificates]
        answer = await signed_answer(request, statuses, delegate, now)
        if generation == self.generation():
            self._answers.keep(request, answer, statuses, generation)
        return answer


_NOTHING = _Ca((), {})
_REMOVE = "restore it from its backup; or remove it, and clients that ask about this CA are told that nobody answers"


@lru_cache(maxsize=16)
def _names(ca_der: bytes, trust_domain: TrustDomain) -> frozenset[IssuerId]:
    return frozenset(issuer_ids(issuer_facts(ca_der, trust_domain)))


def _status(row: Generation) -> CertificateStatus:
    """Go by the ledger. Who answered for an authority that was compromised lay beside its key, and is revoked with it."""
    revoked = row.compromised and row.stage is Stage.RETIRED
    return RevokedAt(row.since, RevocationReason.CA_COMPROMISE) if revoked else Good()


def _listed(lists: Iterable[x509.CertificateRevocationList], above: bytes) -> Iterator[tuple[str, RevokedAt]]:
    """Give what the list of a CA revokes. For one that is elsewhere it is all that is known here."""
    for listed in lists:
        if authority_files.is_list_of(listed, above):
            for one in listed:
                yield hex_serial(one.serial_number), RevokedAt(one.revocation_date_utc, _reason(one))


def _reason(entry: x509.RevokedCertificate) -> RevocationReason:
    try:
        found = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        return RevocationReason(found)
    except (x509.ExtensionNotFound, *UNREADABLE):
        return RevocationReason.UNSPECIFIED
