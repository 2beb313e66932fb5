"""Why a decision is what it is, and what comes nearest to another one.

Decides nothing: the decision is `decide`'s own, and rules are weighed with the very function that decided. Refuses to know where
it is shown: the text and the JSON face stand apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from handfast.access.decide import Decision, Match, Request, Visitor, as_seen, decide, weigh
from handfast.access.patterns import pattern_text
from handfast.access.policy import CertificateMode, Host, Open, Route, Rule
from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain

NEAREST = 5


@dataclass(frozen=True, slots=True)
class Weighed:
    """One rule, ``allow`` or ``deny``, and how far it speaks of this request."""

    kind: str
    rule: Rule
    match: Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with what led to it. ``nearest`` are the rules that come nearest, the nearest first."""

    host: Host
    visitor: Visitor
    request: Request
    decision: Decision
    nearest: tuple[Weighed, ...]


def explain(host: Host, visitor: Visitor, request: Request) -> Explanation:
    """Decide one request, and give the rules that come nearest to it, five at most."""
    decision = decide(host, visitor, request)
    seen = as_seen(host, visitor)
    identity = seen if isinstance(seen, SpiffeId) else None
    weighed = _weighed(decision.route, identity, request.method) if decision.route else ()
    nearest = sorted(weighed, key=lambda one: _distance(one, decision, identity))
    return Explanation(host=host, visitor=visitor, request=request, decision=decision, nearest=tuple(nearest[:NEAREST]))


def _weighed(route: Route, identity: SpiffeId | None, method: str) -> Iterator[Weighed]:
    for rule in route.deny:
        yield Weighed("deny", rule, weigh(rule, identity, method))
    for rule in () if isinstance(route.allow, Open) else route.allow:
        yield Weighed("allow", rule, weigh(rule, identity, method))


def _distance(one: Weighed, decision: Decision, identity: SpiffeId | None) -> tuple[object, ...]:
    """Order rules: what decided, then what matches whole, by identity, by method, by the likeness of names; then by the rule."""
    decided = one.rule == decision.rule and (one.kind == "deny") == (decision.reason is Reason.POLICY_DENIED)
    likeness = _likeness(one.rule.identity.name, identity.name) if identity else 0
    return (
        not decided,
        not one.match.whole,
        not one.match.identity,
        not one.match.method,
        -likeness,
        one.kind,
        one.rule,
    )


def _likeness(one: str, other: str) -> int:
    """Count the characters that two names begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# Words


def _missing(one: Weighed, told: Explanation, own: TrustDomain) -> str:
    """Say what of a rule matches a request, and what does not."""
    seen, method, name = as_seen(told.host, told.visitor), told.request.method, pattern_text(one.rule.identity, own=own)
    who = (
        f"identity {_who(seen, own)} is not {name}"
        if isinstance(seen, SpiffeId)
        else f"there is no identity, it wants {name}"
    )
    lacks = f"method {method} is not among {', '.join(one.rule.methods)}"
    match (one.match.identity, one.match.method):
        case (True, True):
            return "identity and method match"
        case (True, False):
            return f"identity matches; {lacks}"
        case (False, True):
            return f"method matches; {who}"
        case _:
            return f"{who}; {lacks}"


def _who(visitor: Visitor, own: TrustDomain) -> str:
    match visitor:
        case SpiffeId():
            return visitor.name if visitor.trust_domain == own else str(visitor)
        case Refusal():
            return "a certificate that is refused"
        case _:
            return "nobody, as no certificate was shown"


def _verdict(decision: Decision) -> str:
    if decision.allowed:
        return "allowed"
    return "reported" if decision.reported else "refused"


def _why(told: Explanation) -> str:
    """Say in a clause what the rules alone do not show."""
    decision, request, route = told.decision, told.request, told.decision.route
    if isinstance(told.visitor, Refusal):
        return "a certificate that is refused is refused everywhere, whatever the rules say"
    if decision.allowed:
        return _why_allowed(decision)
    if decision.reason is Reason.IDENTITY_FOREIGN_DOMAIN:
        clients = told.host.clients
        return f"the host trusts {', '.join((*(domain.name for domain in clients.trust), *clients.partners))}"
    if route is None:
        return _why_outside(told)
    if decision.reason is Reason.POLICY_NO_MATCH and not route.covers_method(request.method):
        return (
            f"the route has the methods {', '.join(route.methods)} for anybody, and {request.method} is not among them"
        )
    if route.allow == ():
        return "the route allows nobody"
    return ""


def _why_allowed(decision: Decision) -> str:
    if decision.route is None:
        return "the host shows its session keys to anyone"
    return f"the route allows {decision.rule.value}" if isinstance(decision.rule, Open) else ""


def _why_outside(told: Explanation) -> str:
    if told.decision.reason is Reason.CLIENT_NO_CERTIFICATE:
        return "the host requires a certificate: the handshake fails without one"
    return f"the host has routes for {', '.join(route.path for route in told.host.routes[:NEAREST])}"


def as_text(told: Explanation, *, own: TrustDomain) -> str:
    """Give the explanation as lines for people; names of the trust domain ``own`` are written bare."""
    decision, request = told.decision, told.request
    head = _verdict(decision)
    if decision.reason:
        passes = "; passes, as the route only reports" if decision.reported else ""
        head += f": {decision.reason.value} ({decision.status}{passes}): {decision.reason.summary}"
    lines = [head, f"  who      {_seen(told, own)}", f"  asks     {request.method} {request.path} on {told.host.name}"]
    if decision.route:
        lines.append(f"  route    {decision.route.path} ({decision.route.mode.value})")
    if why := _why(told):
        lines.append(f"  because  {why}")
    if isinstance(told.visitor, Refusal):
        lines += [f"  seen     {name}: {text}" for name, text in told.visitor.evidence.items()]
    for one in told.nearest:
        name = pattern_text(one.rule.identity, own=own)
        methods = f" {', '.join(one.rule.methods)}" if one.rule.methods else ""
        lines.append(f"  {one.kind:<9}{name}{methods}: {_missing(one, told, own)}")
    if decision.reason and decision.reason.further:
        lines.append(f"  hint     {decision.reason.further}")
    return "\n".join(lines)


def _seen(told: Explanation, own: TrustDomain) -> str:
    asks_nobody = told.host.clients.certificate is CertificateMode.OFF and isinstance(told.visitor, SpiffeId)
    return _who(told.visitor, own) + (", unseen: the host asks for no certificate" if asks_nobody else "")


def as_json(told: Explanation, *, own: TrustDomain) -> dict[str, object]:
    """Give the explanation as plain values; identities are whole ids, ``""`` for nobody."""
    decision, request, route = told.decision, told.request, told.decision.route
    return {
        "verdict": _verdict(decision),
        "allowed": decision.allowed,
        "passes": decision.passes,
        "reported": decision.reported,
        "status": decision.status,
        "reason": decision.reason.value if decision.reason else None,
        "summary": decision.reason.summary if decision.reason else "",
        "hint": decision.reason.hint if decision.reason else "",
        "because": _why(told),
        "host": told.host.name,
        "identity": str(told.visitor) if isinstance(told.visitor, SpiffeId) else "",
        "evidence": dict(told.visitor.evidence) if isinstance(told.visitor, Refusal) else {},
        "method": request.method,
        "path": request.path,
        "route": {"path": route.path, "mode": route.mode.value} if route else None,
        "rule": _rule_json(decision.rule),
        "nearest": [_weighed_json(one, told, own) for one in told.nearest],
    }


def _rule_json(rule: Rule | Open | None) -> object:
    match rule:
        case Rule():
            return {"identity": str(rule.identity), "methods": list(rule.methods)}
        case Open():
            return rule.value
        case _:
            return None


def _weighed_json(one: Weighed, told: Explanation, own: TrustDomain) -> dict[str, object]:
    return {
        "kind": one.kind,
        "rule": _rule_json(one.rule),
        "identity_matches": one.match.identity,
        "method_matches": one.match.method,
        "missing": _missing(one, told, own),
    }
