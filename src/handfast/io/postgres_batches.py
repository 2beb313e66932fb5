"""How the steps of a group of units become few round trips to PostgreSQL.

Decides which steps go together. Steps with the same statement are one batch, which is one round trip however many they are;
a step joins an earlier batch only where everything between the two concerns other tables, so the outcome is that of one
step after another. Refuses to know what the statements mean: it reads the names of tables in them, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from handfast.io.database import Step

_WORD = re.compile(r"[a-z_][a-z0-9_]*")
_PARAMETER = re.compile(r"\$(\d+)")
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
_CHANGES = re.compile(r"\s*(?:insert|update|delete)\b", re.IGNORECASE)
_READS = re.compile(r"\s*select\b", re.IGNORECASE)

Concerns = Callable[[str], frozenset[str]]
"""Give the tables that a statement may touch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Steps with one statement, each with its place among all steps."""

    sql: str
    tables: frozenset[str]
    steps: list[tuple[int, Step]]


class Tables:
    """Which tables a statement concerns. Tables that refer to each other count as one."""

    def __init__(self, names: Iterable[str], references: Iterable[tuple[str, str]] = ()) -> None:
        """Take the tables' names, and the pairs of which one refers to the other by a foreign key."""
        self._group = {name: name for name in names}
        for one, other in references:
            joined = self._group.get(one, one), self._group.get(other, other)
            self._group |= {name: joined[0] for name, group in self._group.items() if group in joined}
        self._all = frozenset(self._group.values())
        self.of = lru_cache(maxsize=512)(self._of)

    def _of(self, sql: str) -> frozenset[str]:
        """Give the tables that ``sql`` names; all of them where it names none that is known."""
        return frozenset(self._group[word] for word in _WORD.findall(sql.lower()) if word in self._group) or self._all


def batches(steps: Iterable[Step], concerns: Concerns) -> list[Batch]:
    """Put steps together where that changes no outcome; what comes first stays first."""
    planned: list[Batch] = []
    for place, step in enumerate(steps):
        tables = concerns(step.sql)
        batch = _joined(planned, step.sql, tables)
        if batch is None:
            planned.append(batch := Batch(step.sql, tables, []))
        batch.steps.append((place, step))
    return planned


def _joined(planned: list[Batch], sql: str, tables: frozenset[str]) -> Batch | None:
    for batch in reversed(planned):
        if batch.sql == sql and joinable(sql):
            return batch
        if batch.tables & tables:
            return None
    return None


@lru_cache(maxsize=512)
def joinable(sql: str) -> bool:
    """Tell whether `numbered` knows how to number the rows of a statement. Others go alone."""
    return bool(_CHANGES.match(sql) or _READS.match(sql))


@lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """Let each row that a statement touched or read say which step it was.

    The step's number is one more argument at the end, and comes back as one more column at the end.
    """
    number = max(map(int, _PARAMETER.findall(sql)), default=0) + 1
    if _READS.match(sql):
        return f"select read.*, ${number}::bigint from ({sql}) read"  # noqa: S608 - a statement of ours
    return f"{sql}{',' if _RETURNING.search(sql) else ' returning'} ${number}::bigint"


def by_step(rows: Iterable[tuple[object, ...]], places: Iterable[int]) -> Mapping[int, list[tuple[object, ...]]]:
    """Give each step its rows back, without the number."""
    parted: dict[int, list[tuple[object, ...]]] = {place: [] for place in places}
    for *row, place in rows:
        parted[place].append(tuple(row))  # type: ignore[index]  # the column that `numbered` added
    return parted
