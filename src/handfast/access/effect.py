"""What an apply changes: not the text alone, but who gains and who loses what, counted in requests that really came.

Decides by deciding each recorded request twice, under the old world and under the new. Refuses to know where the records come
from, and what nobody has asked for yet: that shows as a change of the text and nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from handfast.access.changes import Change, Kind, changes
from handfast.access.decide import Decision, Request, Visitor, decide
from handfast.access.world import World
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal
from handfast.base.spiffe import SpiffeId, TrustDomain

MOST_LINES = 200
_MISDIRECTED = 421
_SIGNS = {Kind.ADDED: "+", Kind.REMOVED: "-", Kind.CHANGED: "~"}


class Verdict(StrEnum):
    """What becomes of some traffic. ``would lose``: its new route is in report mode, and would refuse it otherwise."""

    GAINS = "gains"
    LOSES = "loses"
    WOULD_LOSE = "would lose"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests that came, counted.

    ``route`` is its path, with or without the host in front. ``identity`` is a name, a whole SPIFFE id, or empty for nobody.
    ``path`` is the normalised path where it is known; else the route's own stands for it.
    """

    host: str
    route: str
    identity: str
    method: str
    count: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class Shift:
    """Traffic whose decision changes. ``reason`` is why it is refused from now on, or was until now."""

    verdict: Verdict
    identity: str
    method: str
    host: str
    path: str
    count: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Effect:
    """What an apply changes. ``shifts``: losses first, then by count. ``days`` is how far back the traffic reaches."""

    changes: tuple[Change, ...]
    shifts: tuple[Shift, ...]
    days: int


def effect(old: World | None, new: World, traffic: Iterable[Traffic], *, days: int = 7) -> Effect:
    """Tell what changes when ``new`` takes the place of ``old`` (None: there was no world), given the traffic of ``days`` days."""
    found: dict[Shift, int] = {}
    for seen in traffic:
        if shift := _shift(old, new, seen):
            found[shift] = found.get(shift, 0) + seen.count
    order = list(Verdict)[1:] + list(Verdict)[:1]
    shifts = sorted(
        (replace(shift, count=count) for shift, count in found.items()),
        key=lambda s: (order.index(s.verdict), -s.count, s.host, s.path, s.identity, s.method),
    )
    return Effect(changes(old, new), tuple(shifts), days)


def _shift(old: World | None, new: World, seen: Traffic) -> Shift | None:
    before, after = _decision(old, seen), _decision(new, seen)
    verdict = _verdict(before, after)
    if verdict is None:
        return None
    reason = before.reason if verdict is Verdict.GAINS else after.reason
    assert reason is not None
    route = seen.route.removeprefix(seen.host) or seen.path
    return Shift(verdict, _who(seen.identity, new.trust_domain), seen.method, seen.host, route, 0, reason)


def _verdict(before: Decision, after: Decision) -> Verdict | None:
    if before.passes != after.passes:
        return Verdict.GAINS if after.passes else Verdict.LOSES
    return Verdict.WOULD_LOSE if after.reported and not before.reported else None


def _decision(world: World | None, seen: Traffic) -> Decision:
    host = world.hosts.get(seen.host) if world else None
    if world is None or host is None:
        return Decision(allowed=False, reason=Reason.TLS_UNKNOWN_NAME, status=_MISDIRECTED)
    path = seen.path or seen.route.removeprefix(seen.host)
    return decide(host, _visitor(seen.identity, world.trust_domain), Request(seen.method, path))


def _visitor(identity: str, own: TrustDomain) -> Visitor:
    if not identity:
        return None
    try:
        return SpiffeId.parse(identity) if "://" in identity else own.id(identity)
    except BadInput:
        return Refusal(Reason.IDENTITY_NOT_SPIFFE, {"identity": identity[:200]})


def _who(identity: str, own: TrustDomain) -> str:
    return identity.removeprefix(f"spiffe://{own}/")


def as_text(told: Effect) -> str:
    """Give the effect as lines for people, losses first: they are what an apply must not bring unseen."""
    lines = [
        *(_shift_line(shift, told.days) for shift in told.shifts),
        *(_change_line(change) for change in told.changes),
    ]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES} more"]
    return "\n".join(lines) or "nothing changes"


def as_json(told: Effect) -> dict[str, object]:
    """Give the effect as plain values."""
    return {
        "changes": [{"kind": one.kind.value, "what": one.what, "details": list(one.details)} for one in told.changes],
        "shifts": [_shift_json(one) for one in told.shifts],
        "days": told.days,
    }


def _shift_line(one: Shift, days: int) -> str:
    who = one.identity or "a client without a certificate"
    requests = "1 such request" if one.count == 1 else f"{one.count} such requests"
    since = "the last day" if days == 1 else f"the last {days} days"
    return f"{who} {one.verdict} {one.method} {one.path} on {one.host}; {requests} in {since} ({one.reason})"


def _change_line(one: Change) -> str:
    details = f": {'; '.join(one.details)}" if one.details else ""
    return f"{_SIGNS[one.kind]} {one.what}{details}"


def _shift_json(one: Shift) -> dict[str, object]:
    return {
        "verdict": one.verdict.value,
        "identity": one.identity,
        "method": one.method,
        "host": one.host,
        "path": one.path,
        "count": one.count,
        "reason": one.reason.value,
    }
