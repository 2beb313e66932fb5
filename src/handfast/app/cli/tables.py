"""Rows for people and for spreadsheets.

Decides that columns are as wide as they need to be, as what is cut cannot be copied, and that no cell can do anything: a
terminal shows control characters as text, a spreadsheet shows a formula as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from handfast.doctor.report import escaped

_FORMULA = ("=", "+", "-", "@")


def moment(at: datetime) -> str:
    """Give a moment as people are told it: in UTC, to the minute."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


class Columns:
    """The columns of a table that comes in pages: as wide as the widest cell so far, so that no page waits for the next one."""

    def __init__(self, head: Sequence[str]) -> None:
        """Begin with the head, which stands above the first page."""
        self._widths, self._above = [0] * len(head), [list(head)]

    def lines(self, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """Give a page's lines with aligned columns."""
        lines = [*self._above, *([escaped(cell) for cell in row] for row in rows)]
        self._above = []
        for at, width in enumerate(self._widths):
            self._widths[at] = max((width, *(len(line[at]) for line in lines)))
        for line in lines:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, self._widths, strict=True)).rstrip()


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Give lines with aligned columns, the head first."""
    return Columns(head).lines(rows)


def csv_line(row: Sequence[str]) -> str:
    """Give one line of CSV (RFC 4180). A cell that a spreadsheet would compute begins with an apostrophe."""
    text = io.StringIO()
    cells = map(escaped, row)
    csv.writer(text, lineterminator="").writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return text.getvalue()
