from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from handfast.trust.acme.challenges import ChallengeKind
from handfast.trust.acme.orders import (
    ORDER_LIFE,
    STALLED,
    Challenge,
    Order,
    Status,
    begin,
    begin_finalizing,
    conclude,
    finalized,
    find,
    give_up,
    has,
    new_order,
)
from handfast.trust.acme.problems import AcmeError, Problem

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NO = Problem(AcmeError.CONNECTION, "nobody is there")
SECOND = timedelta(seconds=1)
HTTP = ChallengeKind.HTTP


def tokens() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"token-{number}"


def made(*names: str) -> Order:
    each = tokens()
    bare = Order(id="o", account="a", profile="workload", replaces="", created=NOW, authorizations=())
    return new_order(bare, names or ("a.internal", "b.internal"), lambda: next(each))


def proved(order: Order, now: datetime = NOW) -> Order:
    for place in range(len(order.authorizations)):
        order = begin(order, place, ChallengeKind.DNS, now)
        order = conclude(order, place, find(order, place, ChallengeKind.DNS), None, now)
    return order


def test_an_order_goes_its_way():
    """Pending, ready once all names are proved, processing while the certificate is made, valid with it."""
    order = made()
    assert order.status(NOW) is Status.PENDING
    order = proved(order)
    assert order.status(NOW) is Status.READY
    order = begin_finalizing(order, NOW)
    assert isinstance(order, Order)
    assert order.status(NOW) is Status.PROCESSING
    order = finalized(order, "0a")
    assert (order.status(NOW), order.serial, order.done) == (Status.VALID, "0a", True)
    assert order.status(NOW + ORDER_LIFE * 2) is Status.VALID


def test_one_name_is_not_all():
    """An order with a name that is not proved stays pending, and is not finalized."""
    order = begin(made(), 0, HTTP, NOW)
    order = conclude(order, 0, find(order, 0, HTTP), None, NOW)
    assert order.authorizations[0].status(NOW, order.expires) is Status.VALID
    assert order.status(NOW) is Status.PENDING
    assert begin_finalizing(order, NOW) == Problem(AcmeError.ORDER_NOT_READY, "the order is pending")


def test_a_failed_challenge_ends_the_order():
    """Challenge, authorization and order are invalid, for good: no other challenge of it is tried any more."""
    order = begin(made(), 1, HTTP, NOW)
    order = conclude(order, 1, find(order, 1, HTTP), NO, NOW)
    assert (order.status(NOW), order.done) == (Status.INVALID, True)
    assert begin(order, 1, ChallengeKind.DNS, NOW) == order
    assert begin(order, 0, HTTP, NOW) == order


def test_a_wildcard_is_for_dns_alone():
    """Its authorization has one challenge."""
    assert [one.kind for one in made("*.a.internal").authorizations[0].challenges] == [ChallengeKind.DNS]


def test_tokens_are_not_shared():
    """Each challenge has a token of its own."""
    order = made()
    all_ = [one.token for authorization in order.authorizations for one in authorization.challenges]
    assert len(set(all_)) == len(all_) == 6


def test_a_trial_begins_once():
    """While one is under way another does not begin; when it must have been lost, one does."""
    order = begin(made(), 0, HTTP, NOW)
    assert begin(order, 0, HTTP, NOW + STALLED - SECOND) == order
    again = begin(order, 0, HTTP, NOW + STALLED)
    assert find(again, 0, HTTP).began == NOW + STALLED


def test_an_earlier_trial_decides_nothing():
    """What a lost trial finds after all, good or bad, does not count for the one that took its place."""
    order = begin(made(), 0, HTTP, NOW)
    lost = find(order, 0, HTTP)
    order = begin(order, 0, HTTP, NOW + STALLED)
    assert conclude(order, 0, lost, NO, NOW + STALLED) == order
    assert conclude(order, 0, lost, None, NOW + STALLED) == order


def test_a_challenge_that_was_never_tried_is_not_met():
    """Only a trial under way comes out."""
    order = made()
    assert conclude(order, 0, find(order, 0, HTTP), None, NOW) == order


def test_who_gives_up_has_no_order():
    """A deactivated authorization ends an order, a proved one too, and stays what it is."""
    order = give_up(proved(made()), 0, NOW)
    assert order.status(NOW) is Status.INVALID
    assert order.authorizations[0].status(NOW, order.expires) is Status.DEACTIVATED
    assert isinstance(begin_finalizing(order, NOW), Problem)
    assert give_up(order, 0, NOW) == order


def test_an_order_expires():
    """With its life its proofs end; what is under way is not begun or finalized any more."""
    order, end = proved(made()), NOW + ORDER_LIFE
    assert order.status(end - SECOND) is Status.READY
    assert order.status(end) is Status.INVALID
    assert order.authorizations[0].status(end, order.expires) is Status.EXPIRED
    assert isinstance(begin_finalizing(order, end), Problem)
    assert begin(made(), 0, HTTP, end) == made()
    assert give_up(order, 0, end) == order


def test_a_finalization_that_was_lost_has_failed():
    """Nobody can tell whether a certificate was signed, so the order does not go back to ready."""
    order = begin_finalizing(proved(made()), NOW)
    assert isinstance(order, Order)
    assert order.status(NOW + STALLED) is Status.INVALID
    assert isinstance(begin_finalizing(order, NOW + STALLED), Problem)


def test_an_outcome_is_kept_once():
    """A serial or a failure stays; an order that nobody finalizes gets neither."""
    begun = begin_finalizing(proved(made()), NOW)
    assert isinstance(begun, Order)
    failed = finalized(begun, NO)
    assert (failed.status(NOW), finalized(failed, "0a")) == (Status.INVALID, failed)
    assert finalized(made(), "0a") == made()


@pytest.mark.parametrize(
    ("place", "kind", "there"),
    [(0, "", True), (1, "dns-01", True), (2, "", False), (-1, "", False), (0, "http-02", False)],
)
def test_what_there_is(place: int, kind: str, there: bool):
    """Places count from 0, and kinds are those that are offered."""
    assert has(made(), place, kind) is there


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done to an order, in whatever order: without proofs there is no certificate."""

    def __init__(self) -> None:
        super().__init__()
        self.order = made("a.internal", "*.b.internal", "c.internal")
        self.now = NOW
        self.trials: list[tuple[int, Challenge]] = []
        self.met: set[int] = set()
        self.over = False

    @rule(seconds=st.integers(0, 40_000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(place=st.integers(0, 2), kind=st.sampled_from(ChallengeKind))
    def begins(self, place: int, kind: ChallengeKind) -> None:
        if has(self.order, place, kind):
            self.order = begin(self.order, place, kind, self.now)
            self.trials.append((place, find(self.order, place, kind)))

    @rule(data=st.data(), good=st.booleans())
    def comes_out(self, data: st.DataObject, good: bool) -> None:
        if self.trials:
            place, tried = data.draw(st.sampled_from(self.trials))
            before = self.order
            self.order = conclude(self.order, place, tried, None if good else NO, self.now)
            if good and self.order != before:
                self.met.add(place)

    @rule(place=st.integers(0, 2))
    def gives_up(self, place: int) -> None:
        before = self.order
        self.order = give_up(self.order, place, self.now)
        if self.order != before and not self.order.serial:
            self.over = not self.order.finalizing or self.over

    @rule()
    def finalizes(self) -> None:
        outcome = begin_finalizing(self.order, self.now)
        if isinstance(outcome, Order):
            assert self.met == {0, 1, 2}
            assert not self.over
            assert self.now < NOW + ORDER_LIFE
            self.order = outcome

    @rule(good=st.booleans())
    def made(self, good: bool) -> None:
        self.order = finalized(self.order, "0a" if good else NO)

    @invariant()
    def proofs_come_first(self) -> None:
        if self.order.status(self.now) in {Status.READY, Status.PROCESSING, Status.VALID}:
            assert self.met == {0, 1, 2}
        if self.order.serial:
            assert self.order.finalizing

    @invariant()
    def what_is_done_stays_done(self) -> None:
        if self.order.done:
            assert self.order.status(self.now) in {Status.VALID, Status.INVALID}
            assert isinstance(begin_finalizing(self.order, self.now), Problem)


TestAnyOrder = AnyOrder.TestCase


@given(st.integers(0, 2), st.sampled_from(ChallengeKind))
def test_beginning_tells_nothing_of_the_others(place: int, kind: ChallengeKind):
    """A trial of one challenge leaves all others as they were."""
    before = made("a.internal", "b.internal", "c.internal")
    after = begin(before, place, kind, NOW)
    same = [
        one == other
        for mine, theirs in zip(after.authorizations, before.authorizations, strict=True)
        for one, other in zip(mine.challenges, theirs.challenges, strict=True)
    ]
    assert same.count(False) == 1
