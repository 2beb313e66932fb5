"""What the measurements share: a platform of their own, processor time as the kernel counts it, and where results are kept.

Everything listens on loopback alone, in a directory that goes with the run.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from platform import python_version
from typing import TypeVar

from handfast.app.client import Api
from handfast.app.server.messages import CertificateAnswer, CertificateRequest
from handfast.io.credentials import Credential, new_key

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
COMMAND = Path(sys.executable).with_name("handfast")
RESULTS = Path(__file__).with_name("results")
START_S, STOP_S = 40.0, 20.0


# Waiting and ports


def free_port() -> int:
    """Give a port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, look: Callable[[], T | None], limit: float = START_S) -> T:
    """Look again and again until there is something to see; give it."""
    until = time.monotonic() + limit
    while not (found := look()):
        if time.monotonic() > until:
            raise SystemExit(f"there is no {what} after {limit:.0f} s")
        time.sleep(0.02)
    return found


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


# Processes


def cores() -> tuple[int, int]:
    """Give the core for servers and the one for clients: the first two that we may use, or the same twice."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[0], mine[min(1, len(mine) - 1)]


@contextmanager
def process(
    command: Iterable[str | Path], words: Path, *, core: int | None = None, **environment: str
) -> Iterator[int]:
    """Run a program, on one core if it is named; give its id, and end it after the caller. What it says is in ``words``."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    with words.open("wb") as said:
        run = subprocess.Popen(
            [*pinned, *(str(word) for word in command)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **environment},
        )
    try:
        yield run.pid
    finally:
        run.terminate()
        try:
            run.wait(STOP_S)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()


def children(pid: int) -> list[int]:
    """Give the processes that a process started, those of its threads too."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def family(pid: int) -> list[int]:
    """Give a process and all below it."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def cpu_ns(pids: Iterable[int]) -> int:
    """Give the time for which processes ran on a core, in ns: the sum over their threads (``/proc/PID/task/*/schedstat``)."""
    tasks = (task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


# The platform


@dataclass(frozen=True, slots=True)
class Platform:
    """``handfast up``, running: its data directory and process ids."""

    data: Path
    python: int
    envoy: int

    def ask(self, work: Callable[[Api], Awaitable[T]]) -> T:
        """Run ``work`` with a client over the local socket."""

        async def asked() -> T:
            async with Api.local(self.data / "server.sock") as api:
                return await work(api)

        return asyncio.run(asked())

    def issue(self, name: str) -> Credential:
        """Have a certificate issued; the key is made here."""
        return self.ask(partial(issued, name=name))

    @property
    def roots(self) -> Path:
        """The root certificates."""
        return self.data / "authority" / "root.pem"


async def issued(api: Api, name: str) -> Credential:
    """Have a certificate issued over ``api``."""
    key = new_key(name)
    request = CertificateRequest(name=name, csr=key.csr_pem, ttl_seconds=3600)
    answer = await api.call("POST", "/v1/certificates", CertificateAnswer, request)
    return Credential(key.key_pem, answer.chain, answer.bundle)


@contextmanager
def platform(directory: Path, world: str, *, core: int | None = None) -> Iterator[Platform]:
    """Run ``handfast up`` with a world file and one Envoy worker, on one core if it is named."""
    file, data, words = directory / "handfast.yaml", directory / "handfast", directory / "handfast.out"
    file.write_text(world)
    listen = ("--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0", "--workers", "1")
    with process([COMMAND, "up", "--config", file, "--data", data, *listen], words, core=core) as pid:
        wait_for("platform", lambda: _is_up(pid, words))
        yield Platform(data, pid, next(child for child in children(pid) if _program(child).startswith("envoy")))


def _is_up(pid: int, words: Path) -> bool:
    return "/metrics" in said_by(pid, words)


def said_by(pid: int, words: Path) -> str:
    """Give what a process has said; what it said is the error where it has ended."""
    text = words.read_text()
    if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
        raise SystemExit(text)
    return text


def _program(pid: int) -> str:
    return Path(f"/proc/{pid}/exe").resolve().name


# Numbers


def percentile(values: Iterable[float], share: float) -> float:
    """Give the smallest value that ``share`` (0 to 1) of all are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def machine() -> str:
    """Say what the numbers were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    processors = f"{os.cpu_count()} x {', '.join(models) or os.uname().machine}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {processors}, Python {python_version()}"


def keep(name: str, results: object) -> Path:
    """Write results as JSON beside those of other measurements; give the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path
