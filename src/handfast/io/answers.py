"""Signed OCSP answers, and which of them may be given again.

Decides how long an answer is given again, and what is not kept. Refuses to know what is revoked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from handfast.base.windows import Window
from handfast.io.ports import Signer
from handfast.trust.algorithms import algorithm_of
from handfast.trust.facts import CertificateFacts
from handfast.trust.ocsp import (
    RESPONSE_LIFE,
    CertificateStatus,
    Good,
    OcspRequest,
    RevokedAt,
    Unknown,
    assemble_response,
    plan_response,
    tbs_response,
)

MAX_KEPT = 10_000
ANEW = RESPONSE_LIFE / 2
"""How old an answer may be to be given again: a client always gets one that counts for half an hour or longer."""


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
class Delegate:
    """A key that answers for a CA, and the certificate that says so (DER)."""

    signer: Signer
    der: bytes
    seen: CertificateFacts

    @property
    def key_id(self) -> bytes:
        """Its subject key identifier."""
        return bytes.fromhex(self.seen.ski)


@dataclass(slots=True)
class Answers:
    """Answers about one certificate each, without a nonce: given again until half an hour old, or until anything changed.

    ``generation`` is a number that moves with every change.
    """

    most: int = MAX_KEPT
    _kept: OrderedDict[bytes, Answer] = field(default_factory=OrderedDict)
    _of: int = -1

    def clear(self) -> None:
        """Give nothing again."""
        self._kept.clear()

    def again(self, request: OcspRequest, now: datetime, generation: int) -> Answer | None:
        """Give the answer that was given before, where it still may be."""
        if self._of != generation:
            self._kept.clear()
            self._of = generation
        key = _key(request)
        found = self._kept.get(key)
        if found is None or now >= found.produced_at + ANEW or now >= found.window.not_after:
            return None
        self._kept.move_to_end(key)
        return found

    def keep(
        self, request: OcspRequest, answer: Answer, statuses: Sequence[CertificateStatus], generation: int
    ) -> None:
        """Keep an answer that was made in this generation."""
        key = _key(request)
        # A stranger can ask for any serial: what nobody issued must not push out what clients ask for.
        if not key or generation != self._of or isinstance(statuses[0], Unknown):
            return
        self._kept[key] = answer
        self._kept.move_to_end(key)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)


def _key(request: OcspRequest) -> bytes:
    return b"" if request.nonce or len(request.certificates) > 1 else request.certificates[0].der


async def signed_answer(
    request: OcspRequest, statuses: Sequence[CertificateStatus], delegate: Delegate, now: datetime
) -> Answer:
    """Sign an answer with one status for each certificate that is asked for.

    Raises:
        BadInput: the delegate's certificate has ended.
        Unavailable: its key cannot be used now.
    """
    plan = plan_response(request, statuses, responder=delegate.key_id, now=now, until=delegate.seen.window.not_after)
    tbs = tbs_response(plan)
    signature = await delegate.signer.sign(tbs)
    body = assemble_response(tbs, algorithm_of(delegate.signer.public_key_der).identifier, signature, delegate.der)
    said = tuple(_NAMES[type(status)] for status in statuses)
    etag = f'"{sha256(signature).hexdigest()[:32]}"'
    return Answer(body, plan.window, plan.produced_at, etag, said, kept=not request.nonce)


_NAMES = {Good: "good", RevokedAt: "revoked", Unknown: "unknown"}
