"""The ACME server: which URL is served by whom, and what each answer carries.

Callers need no certificate: whoever wants one has none yet. Each request is signed instead, and an account is let in by a key
that an operator made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handfast.app.server.acme.accounts import Accounts
from handfast.app.server.acme.answers import Told, json, problem, told
from handfast.app.server.acme.finalizing import Finalizing
from handfast.app.server.acme.orders import Orders
from handfast.app.server.acme.requests import Desk
from handfast.app.server.acme.trials import Trials
from handfast.app.server.platform import Platform
from handfast.base.refusal import BadInput, HandfastError, Refused
from handfast.base.spiffe import TrustDomain
from handfast.trust.acme.problems import AcmeError, problem_of
from handfast.trust.acme.profiles import PROFILES

Serve = Callable[[Request], Awaitable[Response]]
_RETRY_S = 5
_PLACE = "/acme/{domain}"


def directory_path(domain: TrustDomain) -> str:
    """Give the path of a trust domain's directory (RFC 8555 section 7.1.1): what clients are told."""
    return f"{_PLACE.format(domain=domain.name)}/directory"


class AcmeServer:
    """ACME for one trust domain. ``names`` are the host names that this server is called by."""

    def __init__(self, platform: Platform, names: Sequence[str]) -> None:
        """Put the parts together."""
        self._desk, self._trials = Desk(platform, names), Trials(platform)
        self._accounts = Accounts(platform, self._desk)
        self._orders = Orders(platform, self._desk, self._trials)
        self._finalizing = Finalizing(platform, self._orders)

    def routes(self) -> list[Route]:
        """Give the routes, all below ``/acme/TRUST-DOMAIN``."""
        signed: list[tuple[str, Serve]] = [
            ("/new-account", self._accounts.create),
            ("/account/{account}", self._accounts.show),
            ("/account/{account}/orders", self._accounts.orders),
            ("/key-change", self._accounts.change_key),
            ("/new-order", self._orders.create),
            ("/order/{order}", self._orders.show),
            ("/order/{order}/finalize", self._finalizing.finalize),
            ("/authorization/{order}/{place}", self._orders.authorization),
            ("/challenge/{order}/{place}/{kind}", self._orders.challenge),
            ("/certificate/{order}", self._finalizing.certificate),
            ("/revoke-cert", self._finalizing.revoke),
        ]
        open_: list[tuple[str, Serve]] = [
            ("/directory", self._directory),
            ("/new-nonce", self._new_nonce),
            ("/renewal-info/{certificate}", self._finalizing.renewal),
        ]
        return [
            *(Route(f"{_PLACE}{path}", self._served(serve), methods=["POST"]) for path, serve in signed),
            *(Route(f"{_PLACE}{path}", self._served(serve), methods=["GET"]) for path, serve in open_),
        ]

    async def close(self) -> None:
        """Stop trying challenges."""
        await self._trials.close()

    async def _directory(self, request: Request) -> Response:
        """Say where things are (RFC 8555 section 7.1.1; RFC 9773 section 4; the profiles draft)."""
        base = self._desk.urls(request).base
        return json(
            {
                "newNonce": f"{base}/new-nonce",
                "newAccount": f"{base}/new-account",
                "newOrder": f"{base}/new-order",
                "revokeCert": f"{base}/revoke-cert",
                "keyChange": f"{base}/key-change",
                "renewalInfo": f"{base}/renewal-info",
                "meta": {
                    "externalAccountRequired": True,
                    "profiles": {name: profile.description for name, profile in PROFILES.items()},
                },
            }
        )

    async def _new_nonce(self, request: Request) -> Response:
        self._desk.urls(request)
        return Response(status_code=200 if request.method == "HEAD" else 204)

    def _served(self, serve: Serve) -> Serve:
        """Give each answer a fresh nonce and the way back to the directory, problems too (RFC 8555 section 6.5)."""

        async def served(request: Request) -> Response:
            try:
                response = await serve(request)
            except HandfastError as error:
                response = problem(_told(error))
            response.headers["cache-control"] = "no-store"
            with contextlib.suppress(HandfastError):  # a wrong name, or no database: the answer says so already
                response.headers["replay-nonce"] = await self._desk.nonce()
                response.headers.append("link", f'<{self._desk.urls(request).base}/directory>;rel="index"')
            return response

        return served


def _told(error: HandfastError) -> Told:
    match error:
        case Told():
            return error
        case BadInput():
            return told(AcmeError.MALFORMED, str(error))
        case Refused():
            return Told(problem_of(error.refusal))
        case _:
            refused = told(AcmeError.SERVER_INTERNAL, "the server cannot do this now; come back in a while", 503)
            return Told(refused.problem, retry_after=str(_RETRY_S))
