"""The law of rotation, by examples."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.reasons import Reason
from handfast.base.refusal import Refusal
from handfast.base.windows import Window
from handfast.trust import rotation
from handfast.trust.rotation import (
    GONE_AFTER,
    GONE_AFTER_ROOT,
    SETTLE,
    STAYS_BACK,
    AgentSeen,
    Facts,
    Generations,
    Holder,
    Leaves,
    Pace,
    Stage,
    Step,
    Verb,
    Waiting,
)
from tests.trust.rotation_parts import HOUR, NOW, ROOT_LIFE, YEAR, first, made

SOME = Leaves(2, (Holder("ledger", 1, NOW + HOUR), Holder("payments", 1, NOW)), NOW + HOUR)


def begun(*, root: bool = False, compromised: bool = False, of: Generations | None = None) -> Generations:
    rows = rotation.begin(of or first(), NOW, root=root, compromised=compromised)
    assert not isinstance(rows, Refusal)
    return rows


def stages(rows: Generations) -> list[str]:
    return [row.stage.value for row in rows]


def next_step(rows: Generations, **facts: object) -> Step | None:
    return rotation.outlook(rows, Facts(now=facts.pop("now", NOW + HOUR), **facts)).step  # type: ignore[arg-type]


def at(*taken: Verb, root: bool = False) -> Generations:
    """Give the generations of a rotation that went these steps."""
    rows = made(begun(root=root))
    for verb in taken:
        rows = rotation.taken(rows, Step(verb, 1 if verb is Verb.RETIRE else 2), NOW)
    return rows


def test_a_rotation_goes_its_way_where_nobody_holds_it_up():
    """Make, publish, switch, retire; after that there is nothing to do."""
    rows, verbs = begun(), []
    while step := next_step(rows):
        verbs.append(step.verb)
        rows = made(rows) if step.verb is Verb.MAKE else rotation.taken(rows, step, NOW)
    assert verbs == [Verb.MAKE, Verb.PUBLISH, Verb.SWITCH, Verb.RETIRE]
    assert stages(rows) == ["retired", "issuing"]


@pytest.mark.parametrize(("root", "gone"), [(False, GONE_AFTER), (True, GONE_AFTER_ROOT)])
def test_the_switch_waits_for_each_agent_that_lives(root: bool, gone: timedelta):
    """One that was silent for too long to have anything left does not count; for a root that is longer."""
    rows, now = at(Verb.PUBLISH, root=root), NOW + HOUR
    knows, slow = AgentSeen("knows", now, aware=True), AgentSeen("slow", now - gone + SETTLE, aware=False)
    lost = AgentSeen("lost", now - gone, aware=False)
    (held,) = rotation.outlook(rows, Facts(now=now, agents=(knows, slow, lost))).waiting
    assert (held.step, [one.name for one in held.agents], held.strands) == (Step(Verb.SWITCH, 2), ["slow"], 1)
    assert next_step(rows, now=now, agents=(knows, lost)) == Step(Verb.SWITCH, 2)


def test_the_switch_to_a_new_root_waits_for_those_whose_bundle_lacks_it():
    """Under the old root the same leaves hold up nothing."""
    assert next_step(at(Verb.PUBLISH, root=True), unaware=SOME) is None
    assert next_step(at(Verb.PUBLISH), unaware=SOME) == Step(Verb.SWITCH, 2)


@pytest.mark.parametrize("taken", [(Verb.PUBLISH,), (Verb.PUBLISH, Verb.SWITCH)])
def test_no_step_follows_before_every_server_has_the_one_before(taken: tuple[Verb, ...]):
    """Servers over one ledger look at it every few seconds; the time is told."""
    (held,) = rotation.outlook(at(*taken), Facts(now=NOW + SETTLE / 2)).waiting
    assert held.until
    assert held.strands == 0
    assert next_step(at(*taken), now=held.until)


@pytest.mark.parametrize(("taken", "settles"), [((Verb.PUBLISH,), 1), ((Verb.PUBLISH, Verb.SWITCH), 2)])
def test_where_all_is_on_one_host_a_step_settles_sooner(taken: tuple[Verb, ...], settles: int):
    """What follows from that, too: the looks of the server, and the early renewals."""
    pace = Pace(timedelta(seconds=1))
    (held,) = rotation.outlook(at(*taken), Facts(now=NOW, pace=pace)).waiting
    assert held.until == NOW + settles * pace.settle
    assert next_step(at(*taken), now=held.until, pace=pace)
    assert (pace.spread, pace.every_s) == (timedelta(seconds=6), 0.5)


def test_the_old_one_retires_after_its_last_leaf():
    """Named, with the time at which the last one ends by itself."""
    rows = at(Verb.PUBLISH, Verb.SWITCH)
    (held,) = rotation.outlook(rows, Facts(now=NOW + HOUR, dependent={1: SOME})).waiting
    assert held == Waiting(Step(Verb.RETIRE, 1), (), SOME)
    assert next_step(rows, dependent={}) == Step(Verb.RETIRE, 1)


@pytest.mark.parametrize("root", [True, False])
def test_what_has_ended_holds_nobody(root: bool):
    """Nobody is cut off by the end of what has ended, and agents that are cut off cannot say that they know."""
    later = NOW + (ROOT_LIFE if root else YEAR)
    rows = begun(root=True) if root else begun()
    rows = made(rows, later)
    facts = {"agents": (AgentSeen("cut off", later, aware=False),), "unaware": SOME, "dependent": {1: SOME}}
    for step in (Step(Verb.PUBLISH, 2), Step(Verb.SWITCH, 2)):
        assert next_step(rows, now=later, **facts) == step
        rows = rotation.taken(rows, step, later)
    assert next_step(rows, now=later + HOUR, **facts) == Step(Verb.RETIRE, 1)


def test_under_a_root_that_has_ended_no_issuing_authority_begins():
    """It would count for nothing; a new root does."""
    refused = rotation.begin(first(), NOW + ROOT_LIFE, root=False)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.ROTATION_ROOT_ENDS
    assert isinstance(rotation.begin(first(), NOW + ROOT_LIFE, root=True), tuple)


def test_one_comes_at_a_time():
    """While one is retiring another may come: a leaf that lives for a year must not keep a compromised key in use."""
    for rows in (begun(), at(Verb.PUBLISH)):
        refused = rotation.begin(rows, NOW, root=False)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.ROTATION_UNDER_WAY
    third = begun(of=at(Verb.PUBLISH, Verb.SWITCH))
    assert stages(third) == ["retiring", "issuing", "prepared"]
    assert (third[-1].before, third[-1].root) == (2, 1)


def test_a_compromise_is_marked_also_while_a_rotation_is_coming():
    """It goes on, to another end; a second word of it is refused as any other."""
    rows = begun(compromised=True, of=at(Verb.PUBLISH))
    assert ([row.compromised for row in rows], stages(rows)) == ([True, False], ["issuing", "published"])
    assert isinstance(rotation.begin(rows, NOW, root=False, compromised=True), Refusal)


def test_a_compromise_that_was_withdrawn_is_not_forgotten():
    """The next rotation cannot go back to that key either, whoever began it and for whatever reason."""
    rows = begun(compromised=True)
    again = begun(of=rotation.taken(rows, Step(Verb.BACK, 2), NOW))
    assert ([row.compromised for row in again], stages(again)) == (
        [True, False, False],
        ["issuing", "retired", "prepared"],
    )


@pytest.mark.parametrize(
    ("rows", "after"),
    [
        (begun(), ["issuing", "retired"]),
        (at(), ["issuing", "retired"]),
        (at(Verb.PUBLISH), ["issuing", "retiring"]),
        (at(Verb.PUBLISH, Verb.SWITCH), ["issuing", "retiring"]),
    ],
)
def test_there_is_a_way_back_until_the_old_one_is_retired(rows: Generations, after: list[str]):
    """What was delivered leaves as any other: when nobody depends on it."""
    step = rotation.back(rows, NOW)
    assert isinstance(step, Step)
    assert stages(rotation.taken(rows, step, NOW)) == after


@pytest.mark.parametrize(
    ("rows", "now", "reason"),
    [
        (first(), NOW, Reason.ROTATION_NONE),
        (at(Verb.PUBLISH, Verb.SWITCH, Verb.RETIRE), NOW, Reason.ROTATION_NONE),
        (at(Verb.PUBLISH, Verb.SWITCH), NOW + YEAR, Reason.ROTATION_NO_WAY_BACK),
        (
            rotation.taken(begun(compromised=True, of=at(Verb.PUBLISH)), Step(Verb.SWITCH, 2), NOW),
            NOW,
            Reason.ROTATION_NO_WAY_BACK,
        ),
    ],
    ids=["nothing began", "it is over", "the old one has ended", "the old one is compromised"],
)
def test_where_there_is_no_way_back_that_is_said(rows: Generations, now: datetime, reason: Reason):
    """A compromised authority never issues again."""
    refused = rotation.back(rows, now)
    assert isinstance(refused, Refusal)
    assert refused.reason is reason


def test_force_wants_the_number_of_those_who_are_cut_off():
    """A number that was right a minute ago is refused, with the one that is right now and with names."""
    rows, now = at(Verb.PUBLISH, root=True), NOW + HOUR
    seen = rotation.outlook(rows, Facts(now=now, agents=(AgentSeen("lost", now, aware=False),), unaware=SOME))
    assert rotation.forced(seen, 3) == Step(Verb.SWITCH, 2)
    refused = rotation.forced(seen, 2)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.ROTATION_STRANDS
    assert (refused.evidence["strands"], refused.evidence["names"]) == ("3", "lost, ledger, payments")


def test_where_nobody_holds_anything_up_nothing_can_be_forced():
    """Time that has to pass is not skipped either."""
    seen = rotation.outlook(at(Verb.PUBLISH), Facts(now=NOW))
    refused = rotation.forced(seen, 0)
    assert seen.waiting
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.ROTATION_NONE


def test_the_next_begins_by_itself_at_a_third_of_the_life():
    """Once: not while one is coming, and not again at once after somebody went back."""
    when = NOW + YEAR * (2 / 3)
    assert not rotation.due(first(), when - HOUR)
    assert rotation.due(first(), when + HOUR)
    rows = rotation.begin(first(), when, root=False)
    assert isinstance(rows, tuple)
    assert not rotation.due(rows, when + HOUR)
    withdrawn = rotation.taken(rows, Step(Verb.BACK, 2), when)
    assert not rotation.due(withdrawn, when + STAYS_BACK - HOUR)
    assert rotation.due(withdrawn, when + STAYS_BACK)


def test_nothing_begins_by_itself_that_would_gain_nothing():
    """An issuing authority that ends with its root needs a new root, and that is somebody's decision."""
    (one,) = first()
    assert one.window
    alone = (replace(one, root_window=one.window),)
    assert not rotation.due(alone, NOW + YEAR - HOUR)
    assert rotation.due_at(alone) is None


def test_the_moment_that_is_told_is_the_one_that_counts():
    """After somebody went back, too; while one is coming there is none."""
    when = NOW + YEAR * (2 / 3)
    (one,) = first()
    assert one.window
    assert rotation.due_at(first()) == rotation.third_left(one.window)
    rows = rotation.begin(first(), when, root=False)
    assert isinstance(rows, tuple)
    assert rotation.due_at(rows) is None
    assert rotation.due_at(rotation.taken(rows, Step(Verb.BACK, 2), when)) == when + STAYS_BACK


def test_only_what_followed_this_one_and_was_withdrawn_keeps_the_next_waiting():
    """Not its own beginning: an authority that lives for less than a day is replaced in time, too."""
    rows = begun()
    new = rotation.made(rows, 2, issuer="02", window=Window(NOW, NOW + 3 * HOUR), root_window=Window(NOW, NOW + YEAR))
    for verb in (Verb.PUBLISH, Verb.SWITCH):
        new = rotation.taken(new, Step(verb, 2), NOW)
    assert rotation.due_at(new) == NOW + 2 * HOUR


def test_of_what_is_not_known_nothing_is_due():
    """Nothing is replaced by itself at a time that nobody can tell."""
    (one,) = first()
    for lacking in (replace(one, window=None), replace(one, root_window=None)):
        assert rotation.due_at((lacking,)) is None


def test_what_has_no_key_is_not_published_and_what_is_compromised_does_not_come_back():
    """The law itself refuses it, whoever asks for the step."""
    with pytest.raises(ValueError, match="no step"):
        rotation.taken(begun(), Step(Verb.PUBLISH, 2), NOW)
    rows = rotation.taken(begun(compromised=True, of=at(Verb.PUBLISH)), Step(Verb.SWITCH, 2), NOW)
    with pytest.raises(ValueError, match="no way back"):
        rotation.taken(rows, Step(Verb.BACK, 2), NOW)


ALL = [begun(), at(), at(Verb.PUBLISH), at(Verb.PUBLISH, Verb.SWITCH), at(Verb.PUBLISH, Verb.SWITCH, Verb.RETIRE)]


@given(st.sampled_from(ALL), st.sampled_from(Verb), st.integers(1, 2))
def test_the_law_knows_no_other_step(rows: Generations, verb: Verb, number: int):
    """Whatever is asked: one issues afterwards, stages go forward, and nothing comes back from retirement."""
    order = list(Stage)
    try:
        after = rotation.taken(rows, Step(verb, number), NOW)
    except ValueError:
        return
    assert rotation.issuing(after)
    for was, now in zip(rows, after, strict=True):
        assert was.stage is not Stage.RETIRED or now.stage is Stage.RETIRED
        back_again = verb is Verb.BACK and (was.stage, now.stage) == (Stage.RETIRING, Stage.ISSUING)
        assert back_again or order.index(now.stage) >= order.index(was.stage)
