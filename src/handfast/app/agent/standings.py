"""How a partner's client stands: the gateway asks over a Unix socket, the server is asked in turn.

Decides for which authorities that is asked at all: those of the world that have a responder. Refuses to ask anybody outside: only
the server reaches a partner's responder. All workers of Envoy are given the same answer, which is kept while it counts, so that the
gateway knows who is known with the server away, also after a restart (`handfast.io.standing_files`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response

from handfast.access.authority import ForeignAuthority
from handfast.app.agent.questions import asked_at
from handfast.app.client import Api
from handfast.app.server.standing_messages import StandingAnswer, StandingRequest
from handfast.base.refusal import HandfastError
from handfast.base.windows import to_unix
from handfast.io.ports import Clock
from handfast.io.standing_files import StandingFiles
from handfast.io.standings import Standings
from handfast.trust.facts import fingerprint, pem
from handfast.trust.standing import LATEST_S, Standing

MOST_BODY = 256 * 1024
ASK_S = 5.0
"""Longer than the server lets a question wait and waits for a responder; the gateway waits two seconds longer for us."""


class GatewayStandings:
    """What this agent knows of the certificates of other authorities."""

    def __init__(self, api: Api, clock: Clock, files: StandingFiles) -> None:
        """Ask the server behind ``api``, and keep in ``files`` what it says."""
        self._api, self._clock, self._standings, self._files = api, clock, Standings(clock), files
        self._authorities: Mapping[str, ForeignAuthority] = {}

    def told(self, authorities: Mapping[str, ForeignAuthority]) -> None:
        """Learn which authorities there are now."""
        self._authorities = authorities
        self._standings.follow(authorities)
        self._files.follow(authorities)

    async def of(self, authority: str, leaf: bytes) -> Standing | None:
        """Give the standing of a leaf (DER) that TLS verified, or None where no responder is asked for that authority."""
        named = self._authorities.get(authority)
        if named is None or not named.responder:
            return None
        certificate = fingerprint(leaf)
        record = self._files.record(named, certificate)
        return await self._standings.of(authority, certificate, lambda: self._ask(authority, leaf), record)

    async def close(self) -> None:
        """Write down what is known, for the next start."""
        await self._files.close()

    async def _ask(self, authority: str, leaf: bytes) -> Standing | None:
        asked = StandingRequest(authority=authority, certificate=pem(leaf))
        try:
            async with asyncio.timeout(ASK_S):
                said = await self._api.call("POST", "/v1/agents/self/standings", StandingAnswer, asked)
        except (HandfastError, TimeoutError):
            return None  # the server tells operators of responders, and whoever watches it that it is away
        # How soon is a length of time, and the server's clock is another one.
        return Standing(said.word, said.since, said.until, min(said.renew, to_unix(self._clock.now()) + LATEST_S))

    def app(self) -> Starlette:
        """Give the application that Envoy asks, on a socket that is open to our own user alone."""

        async def say(authority: str, leaf: bytes) -> Response:
            known = await self.of(authority, leaf)
            if known is None:
                return PlainTextResponse("nobody is asked for this authority", 404)
            return PlainTextResponse(f"{known.word} {known.until} {known.renew}")

        return asked_at("/standing", MOST_BODY, say)
