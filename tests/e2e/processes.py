"""Processes of this machine, as /proc tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process of this machine, by id and time of its start: an id alone may come to be another's."""

    pid: int
    parent: int
    started: int
    name: str

    @property
    def alive(self) -> bool:
        """Tell whether it still runs."""
        now = _process(self.pid)
        return now is not None and now.started == self.started


def below(pid: int) -> list[Process]:
    """Give all processes that descend from one."""
    everyone = [one for entry in Path("/proc").iterdir() if entry.name.isdigit() and (one := _process(int(entry.name)))]
    return list(_descend(pid, everyone))


def _descend(pid: int, everyone: Sequence[Process]) -> Iterator[Process]:
    for one in everyone:
        if one.parent == pid:
            yield one
            yield from _descend(one.pid, everyone)


def _process(pid: int) -> Process | None:
    """Read /proc/PID/stat (proc(5)); a process that has ended and waits for its parent does not count."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), int(fields[19]), name)
