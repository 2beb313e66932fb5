"""Whether a visitor may do what it asks of a host.

Decides from the policy alone. Refuses to know how the visitor was identified, whether its certificate still stands, and
what Envoy is: the compiled access check says the same, and a differential test holds the two together.

The law of this file: neither the order of rules nor that of routes counts. A bad certificate is never waved through, not where
anyone may come and not in report mode. A deny wins, and what no rule allows is denied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from handfast.access.identify import foreign
from handfast.access.policy import JWKS_PATH, CertificateMode, Host, Open, Route, RouteMode, Rule
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId

Visitor = SpiffeId | Refusal | None
"""Who comes: an identity, a certificate that was refused, or nobody that showed one."""

OK, FORBIDDEN, NO_ROUTE = 200, 403, 404


@dataclass(frozen=True, slots=True)
class Request:
    """A method as it came (methods are case-sensitive, RFC 9110 section 9.1), and a path as `normalise` gives it."""

    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one request.

    ``reason`` is None where it is allowed. ``status`` is what a client is answered if the decision binds: 403 or 404, and 200
    stands for "passed on". ``rule`` is what decided: a deny, an allow, or one of the two open rules; None where nothing
    matched. ``reported``: it would be refused, and the route only reports.
    """

    allowed: bool
    reason: Reason | None
    status: int
    route: Route | None = None
    rule: Rule | Open | None = None
    reported: bool = False

    @property
    def passes(self) -> bool:
        """Tell whether the request goes on to the service."""
        return self.allowed or self.reported

    def __bool__(self) -> bool:
        """Refuse to be a truth value: allowed and passes are two questions.

        Raises:
            TypeError: always.
        """
        raise TypeError("a Decision is not a truth value; ask for .passes or .allowed")


@dataclass(frozen=True, slots=True)
class Match:
    """How far a rule speaks of a visitor and a method."""

    identity: bool
    method: bool

    @property
    def whole(self) -> bool:
        """Tell whether the rule applies."""
        return self.identity and self.method


def weigh(rule: Rule, identity: SpiffeId | None, method: str) -> Match:
    """Compare one rule with who asks and what for. Nobody is no identity, whatever the rule's pattern is."""
    return Match(identity is not None and rule.identity.matches(identity), rule.covers_method(method))


def decide(host: Host, visitor: Visitor, request: Request) -> Decision:
    """Decide one request.

    A host that asks for no certificate knows no identity: an identity counts as nobody there. One that requires a certificate
    lets nobody in without one, and as its handshake fails no route's mode softens that.
    """
    seen = as_seen(host, visitor)
    if isinstance(seen, Refusal):
        return _refuse(seen.reason)
    if seen is None and host.clients.certificate is CertificateMode.REQUIRED:
        return _refuse(Reason.CLIENT_NO_CERTIFICATE)
    if host.session and request.path == JWKS_PATH:
        return Decision(allowed=True, reason=None, status=OK, rule=Open.ANYONE)
    route = host.route_for(request.path)
    if route is None:
        return _refuse(Reason.REQUEST_NO_ROUTE, status=NO_ROUTE)
    return _judge(route, seen, request.method)


def as_seen(host: Host, visitor: Visitor) -> Visitor:
    """Give the visitor as a host sees it: nobody where it asks for no certificate, refused where who vouches does not count."""
    if not isinstance(visitor, SpiffeId):
        return visitor
    if host.clients.certificate is CertificateMode.OFF:
        return None
    return visitor if host.clients.admits(visitor) else foreign(visitor)


def _refuse(reason: Reason, *, status: int = FORBIDDEN) -> Decision:
    return Decision(allowed=False, reason=reason, status=status)


def _judge(route: Route, identity: SpiffeId | None, method: str) -> Decision:
    denying = _first(route.deny, identity, method)
    if denying is not None:
        return _policy_says_no(route, Reason.POLICY_DENIED, denying)
    if identity is None and route.allow is not Open.ANYONE:
        return _policy_says_no(route, Reason.CLIENT_NO_CERTIFICATE)
    if not route.covers_method(method):
        return _policy_says_no(route, Reason.POLICY_NO_MATCH)
    rule = route.allow if isinstance(route.allow, Open) else _first(route.allow, identity, method)
    if rule is None:
        return _policy_says_no(route, Reason.POLICY_NO_MATCH)
    return Decision(allowed=True, reason=None, status=OK, route=route, rule=rule)


def _first(rules: Iterable[Rule], identity: SpiffeId | None, method: str) -> Rule | None:
    """Give the rule that applies: of several the least, as the order in which they are written must not show."""
    return min((rule for rule in rules if weigh(rule, identity, method).whole), default=None)


def _policy_says_no(route: Route, reason: Reason, rule: Rule | None = None) -> Decision:
    reported = route.mode is RouteMode.REPORT
    return Decision(allowed=False, reason=reason, status=FORBIDDEN, route=route, rule=rule, reported=reported)
