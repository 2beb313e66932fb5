"""Measuring in rounds: in each round every server does the same work, one after the other, and the order moves on.

So what disturbs the machine for a while disturbs all of them alike, and a ratio within a round means more than one of medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.gateway.client import Client
from bench.support import cpu_ns

SETTLE_S = 0.06
"""How long a server may still work on a batch after its last answer: close connections, write its log."""
LOOKS, LOOK_S, QUIET_NS = 15, 0.1, 1_500_000
"""How often to look whether the work beside a server has ended, how far apart, and what counts as nothing."""
IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work: how often it is done in a round, with which version of TLS, how it begins and how it goes on."""

    name: str
    count: int
    version: str
    begin: Callable[[Client], None]
    work: Callable[[Client, int], int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One server's round: µs of processor time an operation, serving and beside it, and the share of resumed sessions."""

    us: float
    beside_us: float
    resumed: float

    @property
    def whole_us(self) -> float:
        """Both together."""
        return self.us + self.beside_us


Clients = Mapping[str, Mapping[str, Client]]
"""By the server's name, and by the version of TLS."""
Samples = dict[str, dict[str, list[Sample]]]
"""By kind and server: a sample a round."""


def measure(kinds: Sequence[Kind], clients: Clients, rounds: int) -> Samples:
    """Do the rounds."""
    names = list(clients)
    idle = _idle({pid for by_version in clients.values() for pid in by_version["1.3"].server.beside})
    samples: Samples = {kind.name: {name: [] for name in names} for kind in kinds}
    for turn in range(rounds):
        first = turn % len(names)
        for kind in kinds:
            for name in names[first:] + names[:first]:
                samples[kind.name][name].append(_sample(kind, clients[name][kind.version], idle))
    return samples


def _sample(kind: Kind, client: Client, idle: float) -> Sample:
    server = client.server
    kind.begin(client)
    time.sleep(SETTLE_S)
    began, before, before_beside = time.monotonic(), cpu_ns(server.serving), cpu_ns(server.beside)
    resumed = kind.work(client, kind.count)
    time.sleep(SETTLE_S)
    spent = cpu_ns(server.serving) - before
    _wait_quiet(server.beside)
    beside = max(cpu_ns(server.beside) - before_beside - idle * (time.monotonic() - began), 0.0)
    client.begin_anew()
    return Sample(spent / kind.count / 1000, beside / kind.count / 1000, resumed / kind.count)


def _wait_quiet(beside: Collection[int]) -> None:
    """Wait until what works beside a server is done with what it was given."""
    last, looks = cpu_ns(beside), LOOKS if beside else 0
    for _ in range(looks):
        time.sleep(LOOK_S)
        now = cpu_ns(beside)
        if now - last < QUIET_NS:
            return
        last = now


def _idle(beside: Collection[int]) -> float:
    """Give what the work beside a server costs while there is none, in ns a second."""
    before = cpu_ns(beside)
    time.sleep(IDLE_S)
    return (cpu_ns(beside) - before) / IDLE_S
