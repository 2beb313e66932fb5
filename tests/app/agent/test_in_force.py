"""When a push counts as in force, on Envoy's own counters."""

import pytest

from handfast.app.agent.in_force import ADDED, CHANGED, CREATED, NOT_CREATED, STARTED, WARMING, WORKERS, Listeners

TWO_WORKERS = {STARTED: 1, WARMING: 0, WORKERS: 2}


def seen(**counts: int) -> Listeners:
    names = {"added": ADDED, "changed": CHANGED, "created": CREATED, "failed": NOT_CREATED, "warming": WARMING}
    return Listeners.of({**TWO_WORKERS, **{names[name]: count for name, count in counts.items()}})


@pytest.mark.parametrize(
    ("before", "now", "in_force"),
    [
        (Listeners(), seen(added=1, created=2), True),
        (Listeners(), seen(added=1, created=1), False),
        (Listeners(), seen(added=1, created=2, warming=1), False),
        (seen(added=1, created=2), seen(added=1, created=2), True),
        (seen(added=1, created=2), seen(added=1, changed=1, created=3), False),
        (seen(added=1, created=2), seen(added=1, changed=1, created=3, failed=1), True),
        # One that was replaced before it was ready is never seen again, and does not count against the next.
        (seen(added=1, changed=2, created=4), seen(added=1, changed=3, created=6), True),
        # Envoy was started again.
        (seen(added=1, changed=5, created=12), seen(added=1, created=1), False),
        (seen(added=1, changed=5, created=12), seen(added=1, created=2), True),
    ],
)
def test_what_was_handed_out_has_to_arrive_at_each_worker(before: Listeners, now: Listeners, in_force: bool):
    """Each listener counts once a worker."""
    assert now.has_all_since(before) is in_force


def test_an_envoy_whose_workers_have_not_started_serves_nothing():
    """Before that all counts are zero, and nothing is in force."""
    assert not Listeners.of({}).has_all_since(Listeners())
