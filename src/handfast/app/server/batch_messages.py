"""The bodies of a batch of certificates, in and out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from handfast.app.server.messages import Message, Problem

MOST_IN_BATCH = 100

_Asked = Annotated[msgspec.Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/CertificateRequest"})]


class CertificateBatch(Message):
    """Ask for up to 100 certificates at once. Each is read by itself, as `POST /v1/certificates` reads it."""

    requests: Annotated[list[_Asked], Meta(min_length=1, max_length=MOST_IN_BATCH)]


class BatchedCertificate(Message, omit_defaults=True):
    """A certificate of a batch: ``certificate`` is the leaf, PEM. Its chain goes on with the text ``issuer`` of ``issuers``."""

    serial: str
    identity: str
    dns: list[str]
    not_before: datetime
    not_after: datetime
    certificate: str
    issuer: int
    cut_short: bool = False


class BatchResult(Message, omit_defaults=True):
    """What became of one request: its certificate, or the problem with it."""

    certificate: BatchedCertificate | None = None
    problem: Problem | None = None


class CertificateBatchAnswer(Message):
    """A result for each request, in their order. ``issuers`` has the rest of each chain once, ``bundle`` the roots; all PEM."""

    results: list[BatchResult]
    issuers: list[str]
    bundle: str
