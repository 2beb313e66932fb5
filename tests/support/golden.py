"""Golden files: what a test gave when somebody last looked at it.

They lie under tests/vectors/out, in a folder for each test module. ``pytest --rewrite-golden`` writes them anew, and deletes
those that no test asked for; the diff is then read as code is.
"""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Goldens:
    """The golden files of one test run. ``partial``: tests were left out, so that nothing can be called stale."""

    root: Path
    rewrite: bool = False
    partial: bool = False
    asked: set[Path] = field(default_factory=set)

    def check(self, group: str, name: str, text: str) -> None:
        """Compare, or write. ``text`` ends with a newline."""
        path = self.root / group / name
        self.asked.add(path)
        if self.rewrite:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"there is no {path.relative_to(self.root)}: run pytest --rewrite-golden", pytrace=False)
        if (kept := path.read_text()) != text:
            lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), "golden", "now", lineterm="", n=1)
            pytest.fail("\n".join([f"differs from {path.relative_to(self.root)}:", *lines]), pytrace=False)

    def delete_stale(self, ran: Collection[str], tests: Path) -> list[Path]:
        """Delete the files of modules that ran whole or are gone, where no test asked for them; give what was deleted."""
        stale = [path for path in self._files() if path not in self.asked and self._counts(path, ran, tests)]
        for path in stale:
            path.unlink()
        return stale

    def _files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file()) if self.root.exists() else []

    def _counts(self, path: Path, ran: Collection[str], tests: Path) -> bool:
        group = path.relative_to(self.root).parent
        return str(group) in ran or not (tests / group.with_name(f"test_{group.name}.py")).exists()
