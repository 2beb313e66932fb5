"""Rows for people and for spreadsheets.

Decides that columns are as wide as they need to be, as what is cut cannot be copied, and that no cell can do anything: a
terminal shows control characters as text, a spreadsheet shows a formula as text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from handfast.doctor.report import escaped

_FORMULA = ("=", "+", "-", "@")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give lines with aligned columns, the head first."""
    lines = [list(head), *([escaped(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def csv_line(row: Sequence[str]) -> str:
    """Give one line of CSV (RFC 4180). A cell that a spreadsheet would compute begins with an apostrophe."""
    text = io.StringIO()
    cells = map(escaped, row)
    csv.writer(text, lineterminator="").writerow([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells])
    return text.getvalue()
