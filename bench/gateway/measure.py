"""Measuring in rounds and in pairs: in each round every server does the same work, one after the other, and the order moves on.

So what disturbs the machine for a while disturbs all of them alike, and a ratio within a round means more than one of medians.
Two servers that are nearly alike do a little right after one another, often: those are pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from bench.gateway.client import Client
from bench.support import cpu_ns

SETTLE_S = 0.06
"""How long a server may still work on a batch after its last answer: close connections, write its log."""
REST_S = 1.1
"""How long the reader of the log rests at most between two batches."""
LOOKS, LOOK_S, QUIET_NS = 15, 0.1, 1_500_000
"""How often to look after that whether the work beside a server has ended, how far apart, and what counts as nothing."""
IDLE_S = 5.0
PAIR, PAIR_BEFORE, PAIR_SETTLE_S = 15, 3, 0.005
"""How much a server does in a pair, how much before that to have its caches back, and how long it may still work after."""


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
Idle = Mapping[int, float]
"""What each process costs while there is no work, in ns a second."""
Samples = dict[str, dict[str, list[Sample]]]
"""By kind and server: a sample a round."""


def measure(kinds: Sequence[Kind], clients: Clients, rounds: int, idle: Idle) -> Samples:
    """Do the rounds."""
    names = list(clients)
    samples: Samples = {kind.name: {name: [] for name in names} for kind in kinds}
    for turn in range(rounds):
        first = turn % len(names)
        for kind in kinds:
            for name in names[first:] + names[:first]:
                samples[kind.name][name].append(_sample(kind, clients[name][kind.version], idle))
    return samples


def pairs(kind: Kind, above: Client, below: Client, times: int, idle: Idle) -> list[tuple[float, float]]:
    """Have two servers do a little of a kind of work right after one another; give µs of processor time an operation, of both.

    What disturbs a machine lasts longer than such a pair, so that each ratio says more than one of a round. Nothing is waited for
    between the two: a process that works beside one of them disturbs both alike.
    """
    taken = []
    for turn in range(times):
        first, second = (above, below) if turn % 2 else (below, above)
        spent = {client.server.name: _brief(kind, client, idle) for client in (first, second)}
        taken.append((spent[above.server.name], spent[below.server.name]))
    return taken


def _brief(kind: Kind, client: Client, idle: Idle) -> float:
    kind.begin(client)
    kind.work(client, PAIR_BEFORE)
    time.sleep(PAIR_SETTLE_S)
    began, before = time.monotonic(), cpu_ns(client.server.serving)
    kind.work(client, PAIR)
    time.sleep(PAIR_SETTLE_S)
    return _since(before, client.server.serving, idle, began) / PAIR / 1000


def _sample(kind: Kind, client: Client, idle: Idle) -> Sample:
    server = client.server
    kind.begin(client)
    time.sleep(SETTLE_S)
    began, before, before_beside = time.monotonic(), cpu_ns(server.serving), cpu_ns(server.beside)
    resumed = kind.work(client, kind.count)
    time.sleep(SETTLE_S)
    spent = _since(before, server.serving, idle, began)
    _wait_quiet(server.beside)
    beside = _since(before_beside, server.beside, idle, began)
    client.begin_anew()
    return Sample(spent / kind.count / 1000, beside / kind.count / 1000, resumed / kind.count)


def _wait_quiet(beside: Collection[int]) -> None:
    """Wait until what works beside a server is done with what it was given."""
    if not beside:
        return
    time.sleep(REST_S)
    last = cpu_ns(beside)
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        now = cpu_ns(beside)
        if now - last < QUIET_NS:
            return
        last = now


def idling(clients: Clients) -> Idle:
    """Give what each process costs while there is no work, in ns a second."""
    servers = [by_version["1.3"].server for by_version in clients.values()]
    pids = {pid for server in servers for pid in (*server.serving, *server.beside)}
    before = {pid: cpu_ns([pid]) for pid in pids}
    time.sleep(IDLE_S)
    return {pid: (cpu_ns([pid]) - before[pid]) / IDLE_S for pid in pids}


def _since(before: int, pids: Collection[int], idle: Idle, began: float) -> float:
    """Give what processes spent since then on more than being there, in ns."""
    lasted = time.monotonic() - began
    return max(cpu_ns(pids) - before - lasted * sum(idle[pid] for pid in pids), 0.0)
