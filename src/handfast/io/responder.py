"""The OCSP responder of one issuer: its short-lived certificate, and answers signed with its key.

Decides what is said of a certificate, and when the responder's own key is replaced. Refuses to know HTTP, when an answer may be given
again (`handfast.io.answers`), and how a request and an answer are laid out (`handfast.trust.ocsp`).

The issuing key signs no answers: a responder's certificate delegates that (RFC 6960 section 4.2.2.2), so that what strangers can
make the server sign is never a certificate.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused
from handfast.io import sealed
from handfast.io.answers import MAX_KEPT, Answer, Answers, Delegate, signed_answer
from handfast.io.authorities import Authority
from handfast.io.files import read_secret, write_secret
from handfast.io.issuance import Issuance
from handfast.io.ledger.status import Standing, StatusTable
from handfast.io.ports import Clock
from handfast.io.records import CertificateState
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeySigner
from handfast.trust.csr import read_csr
from handfast.trust.facts import CertificateFacts, facts, load, pem, pem_certificates
from handfast.trust.ocsp import (
    CertificateStatus,
    Good,
    IssuerId,
    OcspRequest,
    RevokedAt,
    Unknown,
    issuer_ids,
)
from handfast.trust.plan import LeafRequest
from handfast.trust.profile import RESPONDER
from handfast.trust.revocation import RevocationReason

_log = structlog.get_logger("handfast")

RESPONDER_NAME = "handfast/ocsp"
RESPONDER_TTL = timedelta(days=7)

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(slots=True)
class Responder:
    """Answers for one issuer's certificates. ``generation`` gives a number that moves with every revocation.

    ``file`` keeps the key and its certificate together, sealed with ``passphrase`` if there is one. ``adopted`` is told of each
    certificate that it answers with: one that nobody else depends on, and no rotation has to wait for.
    """

    authority: Authority
    issuance: Issuance
    table: StatusTable
    clock: Clock
    file: Path
    generation: Callable[[], int]
    passphrase: Passphrase | None = None
    adopted: Callable[[CertificateFacts], Awaitable[None]] | None = None
    most: int = MAX_KEPT
    jitter: float = field(default_factory=lambda: random.uniform(-1, 1))  # noqa: S311 - spreads renewals, keeps no secret
    _held: Delegate | None = None
    _vetted_at: int = -1
    _names: frozenset[IssuerId] = frozenset()
    _answers: Answers = field(init=False)
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Know the names by which requests call the issuer."""
        self._names = frozenset(issuer_ids(self.authority.issuer_facts))
        self._answers = Answers(self.most)

    def answers_for(self, request: OcspRequest) -> bool:
        """Tell whether all that is asked for is of this issuer."""
        return all(asked.issuer in self._names for asked in request.certificates)

    # The certificate

    async def ensure(self) -> None:
        """Have a certificate to answer with: the one on file, or the first or the next one where that is due.

        Raises:
            BadInput: the file is not one of ours, or its passphrase is another.
            Refused: the issuer does not issue one.
            Unavailable: the ledger or the key cannot be used now.
        """
        generation = self.generation()
        if self._held and self._vetted_at == generation and not self._is_due(self._held):
            return
        async with self._alone:
            await self._ensure(generation)

    async def _ensure(self, generation: int) -> None:
        held = self._held or self._load()
        if held and not await self._is_issued(held):
            held = self._held = None  # revoked: clients cannot learn it, so we have to
        if held is None or self._is_due(held):
            held = await self._renewed(held)
        if held is not self._held:
            self._answers.clear()
            if self.adopted:
                await self.adopted(held.seen)
        self._held, self._vetted_at = held, generation

    def _is_due(self, held: Delegate) -> bool:
        return self.clock.now() >= held.seen.window.renew_at(self.jitter)

    async def _is_issued(self, held: Delegate) -> bool:
        found = (await self.table.standing([held.seen.serial])).get(held.seen.serial)
        return found is not None and found.state is CertificateState.ISSUED

    def next_look(self) -> datetime:
        """Give when the certificate is to be looked at again."""
        now = self.clock.now()
        if self._held is None:
            return now + timedelta(seconds=1)
        return max(self._held.seen.window.renew_at(self.jitter), now + timedelta(minutes=1))

    async def _renewed(self, held: Delegate | None) -> Delegate:
        """Get the next certificate. Where that fails, the old one goes on as long as it counts."""
        try:
            return await self._renew()
        except HandfastError as error:
            if held is None or not held.seen.window.contains(self.clock.now()):
                raise
            _log.warning(Reason.RENEWAL_FAILED.value, path=self.file.name, error=str(error))
            return held

    async def _renew(self) -> Delegate:
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        asked = read_csr(csr.public_bytes(Encoding.DER), RESPONDER)
        if isinstance(asked, Refusal):
            raise Refused(asked)
        request = LeafRequest(
            identity=self.authority.trust_domain.id(RESPONDER_NAME),
            csr=asked,
            ttl=RESPONDER_TTL,
            reserved=True,
            profile=RESPONDER,
        )
        issued = await self.issuance.issue(request, workload=None, requester="server: OCSP")
        if isinstance(issued, Refusal):
            raise Refused(issued)
        write_secret(self.file, sealed.seal(key, self.passphrase) + pem(issued.der).encode())
        return Delegate(KeySigner(key), issued.der, facts(issued.der))

    def _load(self) -> Delegate | None:
        """Read the file; None where there is none, or where it is of another issuer or has expired."""
        if not self.file.exists():
            return None
        secret, begin, certificate = read_secret(self.file).partition(_CERTIFICATE)
        key = sealed.unseal(secret, self.passphrase, file=str(self.file))
        try:
            (der,) = pem_certificates((begin + certificate).decode("ascii", "replace"))
            seen, public = facts(der), load(der).public_key()
        except (BadInput, ValueError) as error:
            raise self._spoilt() from error
        if public != key.public_key():
            raise self._spoilt()
        ours = seen.aki == self.authority.issuer_facts.key_id.hex() and seen.window.contains(self.clock.now())
        return Delegate(KeySigner(key), der, seen) if ours else None

    def _spoilt(self) -> BadInput:
        return BadInput(
            "this is not an OCSP responder's key with its certificate",
            file=str(self.file),
            hint="remove it, and a new one is made",
        )

    # Answers

    async def answer(self, request: OcspRequest) -> Answer:
        """Answer a request that `answers_for` agreed to.

        Without a nonce, an answer about one certificate may be given again until it is half an hour old or anything is revoked.

        Raises:
            Unavailable: the ledger or the key cannot be used now.
        """
        now, generation = self.clock.now(), self.generation()
        found = self._answers.again(request, now, generation)
        if found:
            return found
        standings = await self.table.standing(sorted({asked.serial for asked in request.certificates}))
        statuses = [self._status(standings.get(asked.serial)) for asked in request.certificates]
        await self.ensure()
        assert self._held is not None
        answer = await signed_answer(request, statuses, self._held, now)
        if generation == self.generation():
            self._answers.keep(request, answer, statuses, generation)
        return answer

    def _status(self, standing: Standing | None) -> CertificateStatus:
        """Say what the ledger says. What was never issued, or by another issuer, is unknown: that is no yes."""
        if standing is None or standing.issuer != self.authority.issuer_facts.key_id.hex():
            return Unknown()
        if standing.state is CertificateState.REVOKED and standing.revoked_at:
            return RevokedAt(standing.revoked_at, RevocationReason(standing.reason))
        return Good() if standing.state is CertificateState.ISSUED else Unknown()
