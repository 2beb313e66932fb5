"""The OCSP responder of one issuer: its short-lived certificate, and answers signed with its key.

Decides what is said of a certificate, when an answer may be given again, and when the responder's own key is replaced. Refuses to
know HTTP, and how a request and an answer are laid out (`handfast.trust.ocsp`).

The issuing key signs no answers: a responder's certificate delegates that (RFC 6960 section 4.2.2.2), so that what strangers can
make the server sign is never a certificate.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, HandfastError, Refusal, Refused
from handfast.base.windows import Window
from handfast.io import sealed
from handfast.io.authorities import Authority
from handfast.io.files import read_secret, write_secret
from handfast.io.issuance import Issuance
from handfast.io.ledger.status import Standing, StatusTable
from handfast.io.ports import Clock, Signer
from handfast.io.records import CertificateState
from handfast.io.sealed import Passphrase
from handfast.io.signers import KeySigner
from handfast.trust.algorithms import algorithm_of
from handfast.trust.facts import CertificateFacts, facts, load, pem, pem_certificates
from handfast.trust.ocsp import (
    RESPONSE_LIFE,
    CertificateStatus,
    Good,
    IssuerId,
    OcspRequest,
    RevokedAt,
    Unknown,
    assemble_response,
    issuer_ids,
    plan_response,
    tbs_response,
)
from handfast.trust.plan import LeafRequest, read_csr
from handfast.trust.profile import RESPONDER
from handfast.trust.revocation import RevocationReason

_log = structlog.get_logger("handfast")

RESPONDER_NAME = "handfast/ocsp"
RESPONDER_TTL = timedelta(days=7)
MAX_CACHED = 10_000
ANEW = RESPONSE_LIFE / 2
"""How old an answer may be to be given again: a client always gets one that counts for half an hour or longer."""

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed answer. ``etag`` names its octets; ``said`` are the statuses in it, for the counters.

    ``kept`` tells whether caches may keep it: not where a nonce makes it one client's own.
    """

    body: bytes
    window: Window
    produced_at: datetime
    etag: str
    said: tuple[str, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """The responder's key and certificate."""

    signer: Signer
    der: bytes
    seen: CertificateFacts

    @property
    def key_id(self) -> bytes:
        return bytes.fromhex(self.seen.ski)


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
    most: int = MAX_CACHED
    jitter: float = field(default_factory=lambda: random.uniform(-1, 1))  # noqa: S311 - spreads renewals, keeps no secret
    _held: _Held | None = None
    _cache: OrderedDict[bytes, Answer] = field(default_factory=OrderedDict)
    _cached_at: int = -1
    _vetted_at: int = -1
    _names: frozenset[IssuerId] = frozenset()
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Know the names by which requests call the issuer."""
        self._names = frozenset(issuer_ids(self.authority.issuer_facts))

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
            self._cache.clear()
            if self.adopted:
                await self.adopted(held.seen)
        self._held, self._vetted_at = held, generation

    def _is_due(self, held: _Held) -> bool:
        return self.clock.now() >= held.seen.window.renew_at(self.jitter)

    async def _is_issued(self, held: _Held) -> bool:
        found = (await self.table.standing([held.seen.serial])).get(held.seen.serial)
        return found is not None and found.state is CertificateState.ISSUED

    def next_look(self) -> datetime:
        """Give when the certificate is to be looked at again."""
        now = self.clock.now()
        if self._held is None:
            return now + timedelta(seconds=1)
        return max(self._held.seen.window.renew_at(self.jitter), now + timedelta(minutes=1))

    async def _renewed(self, held: _Held | None) -> _Held:
        """Get the next certificate. Where that fails, the old one goes on as long as it counts."""
        try:
            return await self._renew()
        except HandfastError as error:
            if held is None or not held.seen.window.contains(self.clock.now()):
                raise
            _log.warning(Reason.RENEWAL_FAILED.value, path=self.file.name, error=str(error))
            return held

    async def _renew(self) -> _Held:
        key = ec.generate_private_key(ec.SECP256R1())
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        asked = read_csr(csr.public_bytes(Encoding.DER), RESPONDER)
        if isinstance(asked, Refusal):
            raise Refused(asked)
        request = LeafRequest(
            identity=self.authority.trust_domain.id(RESPONDER_NAME),
            csr=asked,
            ttl=self._ttl(),
            reserved=True,
            profile=RESPONDER,
        )
        issued = await self.issuance.issue(request, workload=None, requester="server: OCSP")
        if isinstance(issued, Refusal):
            raise Refused(issued)
        write_secret(self.file, sealed.seal(key, self.passphrase) + pem(issued.der).encode())
        return _Held(KeySigner(key), issued.der, facts(issued.der))

    def _ttl(self) -> timedelta:
        """Seven days, or what the issuer has left."""
        left = self.authority.issuer_facts.window.not_after - self.clock.now()
        return min(RESPONDER_TTL, left - timedelta(seconds=1))

    def _load(self) -> _Held | None:
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
        return _Held(KeySigner(key), der, seen) if ours else None

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
        if self._cached_at != generation:
            self._cache.clear()
            self._cached_at = generation
        key = b"" if request.nonce or len(request.certificates) > 1 else request.certificates[0].der
        found = self._cache.get(key) if key else None
        if found and now < found.produced_at + ANEW and now < found.window.not_after:
            self._cache.move_to_end(key)
            return found
        answer, statuses = await self._sign(request, now)
        # A stranger can ask for any serial: what nobody issued must not push out what clients ask for.
        if key and generation == self._cached_at == self.generation() and not isinstance(statuses[0], Unknown):
            self._keep(key, answer)
        return answer

    def _keep(self, key: bytes, answer: Answer) -> None:
        self._cache[key] = answer
        self._cache.move_to_end(key)
        while len(self._cache) > self.most:
            self._cache.popitem(last=False)

    async def _sign(self, request: OcspRequest, now: datetime) -> tuple[Answer, Sequence[CertificateStatus]]:
        standings = await self.table.standing(sorted({asked.serial for asked in request.certificates}))
        statuses = [self._status(standings.get(asked.serial)) for asked in request.certificates]
        await self.ensure()
        held = self._held
        assert held is not None
        plan = plan_response(request, statuses, responder=held.key_id, now=now, until=held.seen.window.not_after)
        tbs = tbs_response(plan)
        signature = await held.signer.sign(tbs)
        body = assemble_response(tbs, algorithm_of(held.signer.public_key_der).identifier, signature, held.der)
        said = tuple(_NAMES[type(status)] for status in statuses)
        etag = f'"{sha256(signature).hexdigest()[:32]}"'
        return Answer(body, plan.window, plan.produced_at, etag, said, kept=not request.nonce), statuses

    def _status(self, standing: Standing | None) -> CertificateStatus:
        """Say what the ledger says. What was never issued, or by another issuer, is unknown: that is no yes."""
        if standing is None or standing.issuer != self.authority.issuer_facts.key_id.hex():
            return Unknown()
        if standing.state is CertificateState.REVOKED and standing.revoked_at:
            return RevokedAt(standing.revoked_at, RevocationReason(standing.reason))
        return Good() if standing.state is CertificateState.ISSUED else Unknown()


_NAMES = {Good: "good", RevokedAt: "revoked", Unknown: "unknown"}
