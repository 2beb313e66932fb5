"""The endpoint for many certificates at once, as a fleet asks for them when it starts or is rotated.

Decides nothing about certificates: each request goes the way that it would go alone, with the same rights, limits and events.
What a batch saves is the way here and back, and the ledger's commits, which all of it shares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from starlette.requests import Request

from handfast.app.server.batch_messages import (
    BatchedCertificate,
    BatchResult,
    CertificateBatch,
    CertificateBatchAnswer,
)
from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.certificates import Certificates
from handfast.app.server.endpoints import Endpoint, document, reader
from handfast.app.server.messages import CertificateAnswer, CertificateRequest
from handfast.app.server.platform import Platform
from handfast.base.refusal import HandfastError

_END = "-----END CERTIFICATE-----\n"
_read = reader(CertificateRequest)


@dataclass(frozen=True, slots=True)
class Batches:
    """The endpoint that issues in batches."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operation."""
        return (
            Endpoint(
                method="POST", path="/v1/certificates/batches", handler=self.issue_batch, roles=OPERATORS,
                body=CertificateBatch, answer=CertificateBatchAnswer,
            ),
        )  # fmt: skip

    async def issue_batch(self, caller: Caller, request: Request, body: CertificateBatch) -> CertificateBatchAnswer:
        """Issue up to 100 certificates at once, each granted or refused by itself."""

        async def one(raw: msgspec.Raw) -> CertificateAnswer:
            return await Certificates(self.platform).issue(caller, request, _read(bytes(raw)))

        outcomes = await asyncio.gather(*map(one, body.requests), return_exceptions=True)
        issuers: dict[str, int] = {}
        results = [_result(outcome, issuers) for outcome in outcomes]
        return CertificateBatchAnswer(results=results, issuers=list(issuers), bundle=self.platform.authority.bundle_pem)


def _result(outcome: CertificateAnswer | BaseException, issuers: dict[str, int]) -> BatchResult:
    """Give one result; ``issuers`` numbers the chains that were met so far, for an authority may take over amid a batch."""
    if isinstance(outcome, HandfastError):
        return BatchResult(problem=document(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    leaf, end, above = outcome.chain.partition(_END)
    return BatchResult(
        certificate=BatchedCertificate(
            serial=outcome.serial,
            identity=outcome.identity,
            dns=outcome.dns,
            not_before=outcome.not_before,
            not_after=outcome.not_after,
            certificate=leaf + end,
            issuer=issuers.setdefault(above, len(issuers)),
            cut_short=outcome.cut_short,
        )
    )
