"""How ACME's objects and problems look on the wire (RFC 8555 sections 6.7 and 7.1; RFC 9457).

Decides spelling alone: which URLs there are, and which fields an object has in which state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from handfast.app.server.messages import ENCODER
from handfast.base.refusal import HandfastError
from handfast.trust.acme.accounts import Account
from handfast.trust.acme.orders import Authorization, Challenge, Order, Status
from handfast.trust.acme.problems import AcmeError, Problem

POLL_S = 1


class Told(HandfastError):
    """A problem on its way to the client, with the header fields that go with it."""

    def __init__(self, problem: Problem, **headers: str) -> None:
        """Keep the problem."""
        super().__init__(problem.detail)
        self.problem, self.headers = problem, headers


def told(error: AcmeError, detail: str, status: int = 0) -> Told:
    """Make a problem that is about no name."""
    return Told(Problem(error, detail, status=status))


def nothing_there(what: str) -> Told:
    """Make the answer for what does not exist, and for what is another account's: nobody learns which."""
    return told(AcmeError.MALFORMED, f"there is no such {what}", 404)


@dataclass(frozen=True, slots=True)
class Urls:
    """Where things are. ``base`` is ``https://HOST/acme/TRUST-DOMAIN``, with the host that the client called us by."""

    base: str

    def account(self, account: Account) -> str:
        """Name an account."""
        return f"{self.base}/account/{account.id}"

    def order(self, order: Order) -> str:
        """Name an order."""
        return f"{self.base}/order/{order.id}"

    def authorization(self, order: Order, place: int) -> str:
        """Name an authorization, by its order and place in it."""
        return f"{self.base}/authorization/{order.id}/{place}"

    def challenge(self, order: Order, place: int, challenge: Challenge) -> str:
        """Name a challenge."""
        return f"{self.base}/challenge/{order.id}/{place}/{challenge.kind}"


def json(content: object, **headers: str) -> Response:
    """Give a JSON answer."""
    return Response(ENCODER.encode(content), 200, {_field(k): v for k, v in headers.items()}, "application/json")


def created(content: object, location: str) -> Response:
    """Give the JSON of what was made, and where it is from now on."""
    return Response(ENCODER.encode(content), 201, {"location": location}, "application/json")


def problem(answer: Told) -> Response:
    """Give a problem document."""
    said, headers = answer.problem, {_field(name): value for name, value in answer.headers.items()}
    document = {**problem_fields(said), "status": said.http_status}
    return Response(ENCODER.encode(document), said.http_status, headers, "application/problem+json")


def problem_fields(said: Problem) -> dict[str, Any]:
    """Describe a problem, with the name that it is about."""
    about = {"identifier": identifier(said.identifier)} if said.identifier else {}
    return {"type": said.error.urn, "detail": said.detail, **about}


def identifier(name: str) -> dict[str, str]:
    """Describe an identifier; a wildcard is said elsewhere in authorizations, and here in orders."""
    return {"type": "dns", "value": name}


def moment(at: datetime) -> str:
    """Write a time as RFC 3339 does, in UTC and whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def account_fields(urls: Urls, account: Account) -> dict[str, Any]:
    """Describe an account."""
    return {
        "status": "deactivated" if account.deactivated else "valid",
        "contact": account.contact,
        "orders": f"{urls.account(account)}/orders",
    }


def order_fields(urls: Urls, order: Order, now: datetime) -> dict[str, Any]:
    """Describe an order."""
    failure = {"error": problem_fields(order.failure)} if order.failure else {}
    certificate = {"certificate": f"{urls.base}/certificate/{order.id}"} if order.serial else {}
    replaces = {"replaces": order.replaces} if order.replaces else {}
    return {
        "status": order.status(now),
        "expires": moment(order.expires),
        "identifiers": [identifier(name) for name in order.names],
        "profile": order.profile,
        "authorizations": [urls.authorization(order, place) for place in range(len(order.authorizations))],
        "finalize": f"{urls.order(order)}/finalize",
        **replaces,
        **failure,
        **certificate,
    }


def authorization_fields(urls: Urls, order: Order, place: int, now: datetime) -> dict[str, Any]:
    """Describe an authorization. Once it is decided, only the challenge that decided it is shown (RFC 8555 section 7.1.4)."""
    shown = order.authorizations[place]
    status = shown.status(now, order.expires)
    decisive = {Status.VALID, Status.INVALID} & {status}
    wildcard = {"wildcard": True} if shown.name.startswith("*.") else {}
    return {
        "status": status,
        "expires": moment(order.expires),
        "identifier": identifier(shown.name.removeprefix("*.")),
        "challenges": [
            challenge_fields(urls, order, place, one)
            for one in shown.challenges
            if not decisive or one.status in decisive
        ],
        **wildcard,
    }


def challenge_fields(urls: Urls, order: Order, place: int, challenge: Challenge) -> dict[str, Any]:
    """Describe a challenge."""
    failure = {"error": problem_fields(challenge.failure)} if challenge.failure else {}
    met = {"validated": moment(challenge.met)} if challenge.met else {}
    return {
        "type": challenge.kind,
        "url": urls.challenge(order, place, challenge),
        "status": challenge.status,
        "token": challenge.token,
        **met,
        **failure,
    }


def waiting(authorization: Authorization) -> dict[str, str]:
    """Give the header field that says when to ask again, while a challenge is being tried."""
    tried = any(one.status is Status.PROCESSING for one in authorization.challenges)
    return {"retry_after": str(POLL_S)} if tried else {}


def _field(name: str) -> str:
    return name.replace("_", "-")
