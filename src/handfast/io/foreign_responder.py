"""Asks the OCSP responders of authorities that are not ours.

Decides how long and how much. Refuses to judge an answer: that is `handfast.trust.foreign_ocsp`. The law of this file: an address
comes from the world file, never from a certificate, and no redirect is followed.
"""

from __future__ import annotations

import secrets
from datetime import datetime

import httpx2

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal, Unavailable
from handfast.io.foreign_answers import Answer
from handfast.io.foreign_status import answered
from handfast.trust.foreign import ForeignCa
from handfast.trust.foreign_ocsp import MAX_ANSWER_BYTES, NONCE_OCTETS, Question, judge_ocsp, request

ASK_S = 3.0
_HEADERS = {"content-type": "application/ocsp-request", "accept-encoding": "identity"}


class ForeignResponders:
    """All responders. Connections to them are kept; close it when done."""

    def __init__(self, *, seconds: float = ASK_S) -> None:
        """Wait ``seconds`` for an answer at most. Nothing is opened until somebody asks."""
        self._seconds = seconds
        self._client: httpx2.AsyncClient | None = None

    async def ask(self, url: str, ca: ForeignCa, serial: int, now: datetime) -> Answer | Refusal:
        """Ask for a certificate that ``ca`` issued, by its serial number.

        Returns:
            What the responder says, as it was judged, or why that cannot be gone by: REVOCATION_OCSP_UNAVAILABLE, REVOCATION_OCSP_UNUSABLE.
        """
        asked = Question(serial, ca, secrets.token_bytes(NONCE_OCTETS))
        client = self._opened()
        try:
            post = client.build_request("POST", url, content=request(asked), headers=_HEADERS)
            raw = await answered(client, post, limit=MAX_ANSWER_BYTES, seconds=self._seconds)
        except (Unavailable, httpx2.InvalidURL) as error:
            return Refusal(Reason.REVOCATION_OCSP_UNAVAILABLE, {"error": str(error)[:200]})
        finally:
            client.cookies.clear()  # they are kept for ever otherwise, and how many is for the responder to choose
        judged = judge_ocsp(raw, asked, now)
        return judged if isinstance(judged, Refusal) else Answer(asked, now, raw, judged)

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            # How many are asked at once is bounded for each authority: one that hangs must not hold up the others here.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
            self._client = httpx2.AsyncClient(trust_env=False, timeout=self._seconds, limits=limits)
        return self._client
