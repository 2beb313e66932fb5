"""Generations to begin with, for the tests of the law of rotation."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from handfast.base.windows import Window
from handfast.trust import rotation
from handfast.trust.rotation import Generation, Generations, Stage

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
YEAR, ROOT_LIFE = 365 * DAY, 3652 * DAY


def first(begins: datetime = NOW) -> Generations:
    one = Generation(number=1, root=1, before=0, stage=Stage.ISSUING, since=begins, issuer="01")
    return (replace(one, window=Window(begins, begins + YEAR), root_window=Window(begins, begins + ROOT_LIFE)),)


def made(rows: Generations, now: datetime = NOW) -> Generations:
    new = rotation.coming(rows)
    assert new
    above = rotation.by_number(rows, new.root).root_window or Window(now, now + ROOT_LIFE)
    return rotation.made(rows, new.number, issuer=f"{new.number:02}", window=Window(now, now + YEAR), root_window=above)
