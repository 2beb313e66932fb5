"""An order's life (RFC 8555 section 7.1.6): names to prove, proofs, one certificate.

The file's law: **an order is ready only while each of its names is proved by a valid challenge, and only a ready order is
finalized.** Statuses are never stored. They follow from what happened (a challenge was met, the client gave up, a
certificate was made, time passed), so no two of them can disagree.

Decides what may follow what. Refuses to know how a challenge is tried, how a certificate is made, where an order is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from handfast.trust.acme.challenges import ChallengeKind, kinds_for
from handfast.trust.acme.problems import AcmeError, Problem

ORDER_LIFE = timedelta(hours=24)
STALLED = timedelta(seconds=90)
"""After so long, what is under way counts as lost: its server died. A challenge is tried anew, a finalization has failed."""


class Status(StrEnum):
    """The statuses of RFC 8555 section 7.1.6, of all three kinds of object."""

    PENDING = "pending"
    PROCESSING = "processing"
    READY = "ready"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove a name. ``began`` is when the trial that counts began; ``met`` when it succeeded."""

    kind: ChallengeKind
    token: str
    began: datetime | None = None
    met: datetime | None = None
    failure: Problem | None = None

    @property
    def status(self) -> Status:
        """Where it stands."""
        if self.failure:
            return Status.INVALID
        if self.met:
            return Status.VALID
        return Status.PROCESSING if self.began else Status.PENDING


@dataclass(frozen=True, slots=True)
class Authorization:
    """One name, and the challenges that prove it. One met is enough, and one failed is the end of it."""

    name: str
    challenges: tuple[Challenge, ...]
    deactivated: bool = False

    def status(self, now: datetime, expires: datetime) -> Status:
        """Where it stands; an authorization lives as long as its order."""
        statuses = {challenge.status for challenge in self.challenges}
        if self.deactivated:
            return Status.DEACTIVATED
        if Status.INVALID in statuses:
            return Status.INVALID
        if now >= expires:
            return Status.EXPIRED
        return Status.VALID if Status.VALID in statuses else Status.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order. ``account`` and ``id`` are ours; ``replaces`` is an RFC 9773 certificate id, or empty.

    ``finalizing`` is when the making of its certificate began; ``serial`` is the certificate's, once there is one.
    """

    id: str
    account: str
    profile: str
    replaces: str
    created: datetime
    authorizations: tuple[Authorization, ...]
    finalizing: datetime | None = None
    serial: str = ""
    failure: Problem | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names that it is about."""
        return tuple(authorization.name for authorization in self.authorizations)

    @property
    def expires(self) -> datetime:
        """When what is not done by then is over."""
        return self.created + ORDER_LIFE

    def status(self, now: datetime) -> Status:
        """Where it stands."""
        if self.serial:
            return Status.VALID
        if self.failure:
            return Status.INVALID
        if self.finalizing:
            return Status.PROCESSING if now < self.finalizing + STALLED else Status.INVALID
        proofs = {authorization.status(now, self.expires) for authorization in self.authorizations}
        if proofs == {Status.VALID}:
            return Status.READY
        return Status.PENDING if proofs <= {Status.VALID, Status.PENDING} else Status.INVALID

    @property
    def done(self) -> bool:
        """Tell whether nothing can change any more, however much time passes."""
        return bool(self.serial) or self.status(self.created) is Status.INVALID


def new_order(order: Order, names: Sequence[str], token: Callable[[], str]) -> Order:
    """Give ``order`` an authorization for each name, whose challenges share no token."""
    challenges = [tuple(Challenge(kind, token()) for kind in kinds_for(name)) for name in names]
    made = tuple(Authorization(name, offered) for name, offered in zip(names, challenges, strict=True))
    return replace(order, authorizations=made)


def begin(order: Order, place: int, kind: ChallengeKind, now: datetime) -> Order:
    """Begin to try a challenge. What is under way, met or failed stays as it is; what was lost begins anew."""
    challenge = find(order, place, kind)
    idle = challenge.began is None or now >= challenge.began + STALLED
    open_ = order.authorizations[place].status(now, order.expires) is Status.PENDING
    if not (open_ and idle and order.status(now) is Status.PENDING):
        return order
    return _with(order, place, replace(challenge, began=now))


def conclude(order: Order, place: int, tried: Challenge, failure: Problem | None, now: datetime) -> Order:
    """Keep how the trial that ``tried`` began came out. That of an earlier trial, or of another challenge, changes nothing."""
    challenge = find(order, place, tried.kind)
    if challenge != tried or challenge.status is not Status.PROCESSING:
        return order
    return _with(order, place, replace(challenge, failure=failure) if failure else replace(challenge, met=now))


def give_up(order: Order, place: int, now: datetime) -> Order:
    """Deactivate an authorization (RFC 8555 section 7.5.2). Without a certificate yet, its order has failed then."""
    chosen = order.authorizations[place]
    if chosen.status(now, order.expires) not in {Status.PENDING, Status.VALID}:
        return order
    return _replaced(order, place, replace(chosen, deactivated=True))


def begin_finalizing(order: Order, now: datetime) -> Order | Problem:
    """Begin to make the certificate. From here on nobody else does: whoever keeps the order first has it."""
    if (status := order.status(now)) is not Status.READY:
        return Problem(AcmeError.ORDER_NOT_READY, f"the order is {status}")
    return replace(order, finalizing=now)


def finalized(order: Order, outcome: str | Problem) -> Order:
    """Keep the serial of the certificate that was made, or why none was.

    An order that was not being finalized stays as it is.
    """
    if not order.finalizing or order.serial or order.failure:
        return order
    return replace(order, failure=outcome) if isinstance(outcome, Problem) else replace(order, serial=outcome)


def find(order: Order, place: int, kind: ChallengeKind) -> Challenge:
    """Find a challenge that is known to exist."""
    return next(one for one in order.authorizations[place].challenges if one.kind is kind)


def has(order: Order, place: int, kind: str = "") -> bool:
    """Tell whether there is such an authorization, and a challenge of this kind in it where one is named."""
    if not 0 <= place < len(order.authorizations):
        return False
    return not kind or any(one.kind == kind for one in order.authorizations[place].challenges)


def _with(order: Order, place: int, changed: Challenge) -> Order:
    chosen = order.authorizations[place]
    challenges = tuple(changed if one.kind is changed.kind else one for one in chosen.challenges)
    return _replaced(order, place, replace(chosen, challenges=challenges))


def _replaced(order: Order, place: int, changed: Authorization) -> Order:
    kept = order.authorizations
    return replace(order, authorizations=(*kept[:place], changed, *kept[place + 1 :]))
