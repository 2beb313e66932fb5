"""How one issuing authority takes over from another, and a new root from an old one.

Decides the order of the steps, when each is safe, and who holds it up. Refuses to know keys, files and the ledger: what it needs
of them are facts.

The law of this file. A *generation* is an issuing CA under a root, its own or that of an earlier generation::

    prepared -> published -> issuing -> retiring -> retired

Published means delivered: its root is in every bundle, and its issuer and revocation list in every slice. Nobody issues from a
generation before all who will meet its leaves know it, and none is retired while a leaf depends on it. So at each moment every
live leaf is of a generation that everybody has. The way back is the same law with the roles exchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.windows import Window

SETTLE = timedelta(seconds=10)
"""How long a step may take to reach every server over one ledger. What came within it does not count as after it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take to get around. One number, and what follows from it; another one is for tests and for one host alone."""

    settle: timedelta = SETTLE

    @property
    def spread(self) -> timedelta:
        """Over how long the early renewals of a fleet are spread."""
        return 6 * self.settle

    @property
    def every_s(self) -> float:
        """How often a server looks whether a step is safe, in seconds."""
        return self.settle.total_seconds() / 2


PACE = Pace()

GONE_AFTER = timedelta(days=1)
"""An agent that was silent for longer has no certificate left. It gets lists of revocation anew before it serves again."""

GONE_AFTER_ROOT = timedelta(days=30)
"""For a new root: an agent that comes back later has to be told the roots by hand."""

STAYS_BACK = timedelta(days=1)
"""After somebody went back, nothing begins by itself for so long."""


class Stage(StrEnum):
    """Where a generation stands."""

    PREPARED = "prepared"
    PUBLISHED = "published"
    ISSUING = "issuing"
    RETIRING = "retiring"
    RETIRED = "retired"


DELIVERED = frozenset({Stage.PUBLISHED, Stage.ISSUING, Stage.RETIRING})
_COMING = frozenset({Stage.PREPARED, Stage.PUBLISHED})


class Verb(StrEnum):
    """What can be done next with a generation."""

    MAKE = "make"
    PUBLISH = "publish"
    SWITCH = "switch"
    RETIRE = "retire"
    BACK = "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One issuing CA and the root that it is under: ``root`` is the number of the generation which that came with.

    ``before`` is the generation that issued when this one began, 0 for the first. ``since`` is when it entered its stage.
    ``issuer`` is the key identifier (hex) of the issuing CA, empty until it is made, and so are the windows. A ``compromised``
    one does not come back, and ends as revoked.
    """

    number: int
    root: int
    before: int
    stage: Stage
    since: datetime
    issuer: str = ""
    window: Window | None = None
    root_window: Window | None = None
    compromised: bool = False

    def ended(self, now: datetime) -> bool:
        """Tell whether nothing that it issued can count any more: the CA or its root has expired."""
        return any(window is not None and now >= window.not_after for window in (self.window, self.root_window))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do with one generation."""

    verb: Verb
    number: int


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """An agent, and whether the slice that it acknowledged last contains the generation that is coming."""

    name: str
    last_seen: datetime
    aware: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds live leaves: its name, how many, the end of the last.

    ``renewed`` counts those whose successor was not seen in use yet, ``copies`` those that were, after it, in use again.
    """

    name: str
    count: int
    until: datetime
    renewed: int = 0
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Leaves:
    """Live leaves with something in common: how many, some of their holders, and the end of the last."""

    count: int = 0
    holders: tuple[Holder, ...] = ()
    until: datetime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of those holders."""
        return tuple(one.name for one in self.holders)


NO_LEAVES = Leaves()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the world looks like now.

    ``unaware`` are live leaves of before the coming generation was published and settled: they came with a bundle that lacks
    its root. ``dependent`` are the live leaves of each retiring generation.
    """

    now: datetime
    pace: Pace = PACE
    agents: Sequence[AgentSeen] = ()
    unaware: Leaves = NO_LEAVES
    dependent: Mapping[int, Leaves] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A step that is not safe yet, and who holds it up. ``until`` is a time before which it is not taken, in any case."""

    step: Step
    agents: tuple[AgentSeen, ...] = ()
    leaves: Leaves = NO_LEAVES
    until: datetime | None = None

    @property
    def strands(self) -> int:
        """How many agents and leaves would be cut off by taking the step now."""
        return len(self.agents) + self.leaves.count


@dataclass(frozen=True, slots=True)
class Outlook:
    """The step that can be taken now, if there is one, and those that have to wait."""

    step: Step | None
    waiting: tuple[Waiting, ...] = ()


Generations = tuple[Generation, ...]


def issuing(generations: Generations) -> Generation:
    """Give the one that issues. There is always exactly one."""
    (one,) = (g for g in generations if g.stage is Stage.ISSUING)
    return one


def coming(generations: Generations) -> Generation | None:
    """Give the one that is prepared or published, if there is one."""
    return next((g for g in generations if g.stage in _COMING), None)


def by_number(generations: Generations, number: int) -> Generation:
    """Give the generation with this number.

    Raises:
        KeyError: there is none.
    """
    return {g.number: g for g in generations}[number]


def outlook(generations: Generations, facts: Facts) -> Outlook:
    """Tell what to do next, or who holds it up. One step at a time: the facts are other ones after it."""
    waiting: list[Waiting] = []
    for generation in generations:
        match _next(generations, generation, facts):
            case Step() as step:
                return Outlook(step, tuple(waiting))
            case Waiting() as one:
                waiting.append(one)
            case None:
                pass
    return Outlook(None, tuple(waiting))


def _next(generations: Generations, one: Generation, facts: Facts) -> Step | Waiting | None:
    match one.stage:
        case Stage.PREPARED:
            return Step(Verb.PUBLISH if one.issuer else Verb.MAKE, one.number)
        case Stage.PUBLISHED:
            return _switch(generations, one, facts)
        case Stage.RETIRING:
            return _retire(one, facts)
        case Stage.ISSUING | Stage.RETIRED:
            return None


def _switch(generations: Generations, new: Generation, facts: Facts) -> Step | Waiting:
    """Wait for agents, and for a new root also until each live leaf came with it in its bundle."""
    step, old = Step(Verb.SWITCH, new.number), issuing(generations)
    if old.ended(facts.now):
        # Nobody can be stranded by the end of what has ended, and agents cannot say that they know: they do not get through.
        return step
    new_root = new.root != old.root
    gone = facts.now - (GONE_AFTER_ROOT if new_root else GONE_AFTER)
    agents = tuple(one for one in facts.agents if not one.aware and one.last_seen > gone)
    leaves = facts.unaware if new_root else NO_LEAVES
    settled = new.since + facts.pace.settle
    if agents or leaves.count or facts.now < settled:
        return Waiting(step, agents, leaves, settled if facts.now < settled else None)
    return step


def _retire(old: Generation, facts: Facts) -> Step | Waiting:
    step, settled = Step(Verb.RETIRE, old.number), old.since + 2 * facts.pace.settle
    leaves = NO_LEAVES if old.ended(facts.now) else facts.dependent.get(old.number, NO_LEAVES)
    if leaves.count or facts.now < settled:
        return Waiting(step, (), leaves, settled if facts.now < settled else None)
    return step


def forced(seen: Outlook, confirmed: int) -> Step | Refusal:
    """Give the step that is held up, for somebody who says how many it will strand.

    Returns:
        The step; ROTATION_STRANDS where the number is another one; ROTATION_NONE where nobody holds anything up.
    """
    held = next((one for one in seen.waiting if one.strands), None)
    if held is None:
        return Refusal(Reason.ROTATION_NONE)
    if held.strands == confirmed:
        return held.step
    names = [one.name for one in held.agents] + list(held.leaves.names)
    evidence = {"step": held.step.verb.value, "strands": str(held.strands), "confirmed": str(confirmed)}
    return Refusal(Reason.ROTATION_STRANDS, {**evidence, "names": ", ".join(names)[:1000]})


def begin(generations: Generations, now: datetime, *, root: bool, compromised: bool = False) -> Generations | Refusal:
    """Begin a rotation: of the issuing CA, or with ``root`` of the root and the CA below it.

    ``compromised`` says that the issuing CA's key may be in other hands. Where a rotation is coming already, it goes on.

    Returns:
        The generations with one more, or with the old one marked; ROTATION_UNDER_WAY; ROTATION_ROOT_ENDS where a new CA under
        the old root would have ended before it began.
    """
    old, already = issuing(generations), coming(generations)
    marked = _with(generations, [replace(old, compromised=old.compromised or compromised)])
    if already and compromised and not old.compromised:
        return marked
    if already:
        return Refusal(Reason.ROTATION_UNDER_WAY, {"generation": str(already.number), "stage": already.stage.value})
    if not root and old.root_window and now >= old.root_window.not_after:
        return Refusal(Reason.ROTATION_ROOT_ENDS, {"root_ends": old.root_window.not_after.isoformat()})
    number = max(g.number for g in generations) + 1
    above = number if root else old.root
    new = Generation(number=number, root=above, before=old.number, stage=Stage.PREPARED, since=now)
    return (*marked, new)


def due(generations: Generations, now: datetime) -> bool:
    """Tell whether the issuing CA should be replaced without anybody's word."""
    at = due_at(generations)
    return at is not None and now >= at


def due_at(generations: Generations) -> datetime | None:
    """Give when the issuing CA is replaced without anybody's word: when a third of its life is left. None where it never is.

    Not where a new one would end when this one does, with their root: a new root is somebody's decision. Not while one is coming.
    """
    old = issuing(generations)
    if coming(generations) or old.window is None or old.root_window is None:
        return None
    if old.root_window.not_after <= old.window.not_after:
        return None
    stays_back = [g.since + STAYS_BACK for g in generations if g.before == old.number]
    return max([third_left(old.window), *stays_back])


def third_left(window: Window) -> datetime:
    """Give when a third of an issuing CA's life is left."""
    return window.not_after - window.length / 3


def back(generations: Generations, now: datetime) -> Step | Refusal:
    """Give the step that undoes the rotation which is under way.

    Returns:
        The step; ROTATION_NONE where there is nothing to undo; ROTATION_NO_WAY_BACK where the one before has ended, was
        retired, or is compromised.
    """
    new = coming(generations)
    if new:
        return Step(Verb.BACK, new.number)
    new = issuing(generations)
    if not new.before:
        return Refusal(Reason.ROTATION_NONE)
    old = by_number(generations, new.before)
    if old.stage is Stage.RETIRED:
        return Refusal(Reason.ROTATION_NONE)
    if old.compromised or old.ended(now):
        why = "compromised" if old.compromised else "ended"
        return Refusal(Reason.ROTATION_NO_WAY_BACK, {"generation": str(old.number), "because": why})
    return Step(Verb.BACK, new.number)


def taken(generations: Generations, step: Step, now: datetime) -> Generations:
    """Give the generations after a step. `Verb.MAKE` changes no stage: see `made`.

    Raises:
        ValueError: the law does not know this step of this stage.
    """
    one = by_number(generations, step.number)
    match (step.verb, one.stage):
        case (Verb.PUBLISH, Stage.PREPARED) if one.issuer:
            changed = [_to(one, Stage.PUBLISHED, now)]
        case (Verb.SWITCH, Stage.PUBLISHED):
            changed = [_to(issuing(generations), Stage.RETIRING, now), _to(one, Stage.ISSUING, now)]
        case (Verb.RETIRE, Stage.RETIRING) | (Verb.BACK, Stage.PREPARED):
            changed = [_to(one, Stage.RETIRED, now)]
        case (Verb.BACK, Stage.PUBLISHED):
            # Its root is in bundles by now, and its key was never used: it leaves as one that nobody depends on.
            changed = [_to(one, Stage.RETIRING, now)]
        case (Verb.BACK, Stage.ISSUING) if one.before:
            old = by_number(generations, one.before)
            if old.stage is not Stage.RETIRING or old.compromised:
                raise ValueError(f"there is no way back to generation {old.number}")
            changed = [_to(one, Stage.RETIRING, now), replace(_to(old, Stage.ISSUING, now))]
        case _:
            raise ValueError(f"{step.verb} is no step of a generation that is {one.stage}")
    return _with(generations, changed)


def made(generations: Generations, number: int, *, issuer: str, window: Window, root_window: Window) -> Generations:
    """Give the generations after the keys and certificates of one were made."""
    one = by_number(generations, number)
    return _with(generations, [replace(one, issuer=issuer, window=window, root_window=root_window)])


def _to(one: Generation, stage: Stage, now: datetime) -> Generation:
    return replace(one, stage=stage, since=now)


def _with(generations: Generations, changed: Iterable[Generation]) -> Generations:
    new = {one.number: one for one in changed}
    return tuple(new.get(one.number, one) for one in generations)
