"""Measuring in rounds: in each round every server does the same work, one after the other, and the order moves on.

So what disturbs the machine for a while disturbs all of them alike, and a ratio within a round means more than one of medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bench.gateway.client import Client

SETTLE_S = 0.06
"""How long a server may still work on a batch after its last answer: close connections, write its log."""
LOOKS, LOOK_S, QUIET_NS = 15, 0.1, 1_500_000
"""How often to look whether the work beside a server has ended, how far apart, and what counts as nothing."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work: how often it is done in a round, and by what method of which client."""

    name: str
    count: int
    client: str
    work: Callable[[Client, int], int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One server's round: µs of processor time an operation, serving and beside it, and the share of resumed sessions."""

    us: float
    beside_us: float
    resumed: float


Clients = Mapping[str, Mapping[str, Client]]
"""By the server's name, and by the kind of client."""
Samples = dict[str, dict[str, list[Sample]]]
"""By kind and server: a sample a round."""


def measure(kinds: Iterable[Kind], clients: Clients, rounds: int) -> Samples:
    """Do the rounds."""
    names = list(clients)
    idle = {name: _idle(clients[name]["1.3"]) for name in names}
    samples: Samples = {kind.name: {name: [] for name in names} for kind in kinds}
    for turn in range(rounds):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for kind in kinds:
            for name in order:
                samples[kind.name][name].append(_sample(kind, clients[name][kind.client], idle[name]))
    return samples


def _sample(kind: Kind, client: Client, idle: float) -> Sample:
    server = client.server
    if kind.client == "open":
        client.open()
    time.sleep(SETTLE_S)
    began, before, before_beside = time.monotonic(), server.cpu_ns(), server.beside_ns()
    resumed = kind.work(client, kind.count)
    time.sleep(SETTLE_S)
    spent = server.cpu_ns() - before
    _wait_quiet(client)
    beside = server.beside_ns() - before_beside - idle * (time.monotonic() - began)
    if kind.client == "open":
        client.close()
    return Sample(spent / kind.count / 1000, max(beside, 0.0) / kind.count / 1000, resumed / kind.count)


def _wait_quiet(client: Client) -> None:
    """Wait until what works beside the server is done with what it was given."""
    if not client.server.beside:
        return
    last = client.server.beside_ns()
    for _ in range(LOOKS):
        time.sleep(LOOK_S)
        now = client.server.beside_ns()
        if now - last < QUIET_NS:
            return
        last = now


def _idle(client: Client, seconds: float = 4.0) -> float:
    """Give what the work beside a server costs while there is none, in ns a second."""
    if not client.server.beside:
        return 0.0
    before = client.server.beside_ns()
    time.sleep(seconds)
    return (client.server.beside_ns() - before) / seconds
