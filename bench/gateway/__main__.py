"""``python -m bench.gateway``: what a connection and a request cost, beside plain Envoy, nginx, HAProxy and Caddy."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from bench.gateway import report
from bench.gateway.client import Client, context
from bench.gateway.measure import Kind, Samples, idling, measure, pairs
from bench.gateway.servers import (
    BY_NAME,
    CLIENT,
    HANDFAST,
    PEERS,
    PLAIN,
    Server,
    handfast,
    missing,
    plain_envoy,
    site,
    world,
)
from bench.support import cores, free_port, keep, listens, machine, platform, process, wait_for

WARM_UP = 250
"""Connections before anything is measured: by then Envoy's Lua has compiled what it compiles."""
PAIRS = 900
"""How often Handfast and the Envoy of the first limit do the same work right after one another."""


def kinds(connections: int, requests: int) -> tuple[Kind, ...]:
    """Give the work of a round."""
    return (
        Kind(report.FULL, connections, "1.3", Client.begin_anew, Client.connect),
        Kind(report.RESUMED, connections, "1.3", Client.begin_resumed, Client.connect),
        Kind(report.RESUMED_12, connections // 2, "1.2", Client.begin_resumed, Client.connect),
        Kind(report.KEPT_ALIVE, requests, "1.3", Client.begin_kept_alive, Client.ask),
    )


def main() -> int:
    """Run; 1 where a limit is not kept."""
    options = _options()
    rounds, times, work = (3, 40, kinds(40, 500)) if options.quick else (options.rounds, PAIRS, kinds(150, 3000))
    absent = missing()
    if absent and os.environ.get("CI", "").lower() in {"1", "true"}:
        raise SystemExit(f"not installed: {', '.join(absent)}")
    with tempfile.TemporaryDirectory(prefix="handfast-bench-") as name, ExitStack() as stack:
        clients = _clients(Path(name), stack)
        idle = idling(clients)
        paired = pairs(work[0], clients[HANDFAST]["1.3"], clients[BY_NAME]["1.3"], times, idle)
        samples = measure(work, clients, rounds, idle)
    verdicts = list(report.verdicts(samples, paired))
    _show(samples, verdicts, absent, rounds, work)
    _keep(samples, paired, verdicts)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less work: a look, no measurement")
    parser.add_argument("--rounds", type=int, default=9, help="two at least")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds: one round has no spread")
    return options


def _clients(directory: Path, stack: ExitStack) -> dict[str, dict[str, Client]]:
    """Start everything; give the clients of each server by kind."""
    server_core, client_core = cores()
    os.sched_setaffinity(0, {client_core})
    upstream, gateway = free_port(), free_port()
    command: list[str | Path] = [sys.executable, Path(__file__).parents[1] / "upstream.py", str(upstream)]
    stack.enter_context(process(command, directory / "upstream.out", core=client_core))
    wait_for("service", lambda: listens(upstream))
    up = stack.enter_context(platform(directory, world(gateway, upstream), core=server_core))
    chain, key = directory / "client.pem", directory / "client.key"
    held = up.issue(CLIENT)
    key.touch(0o600)
    chain.write_text(held.chain_pem)
    key.write_text(held.key_pem)
    place = site(up, directory, upstream, server_core)
    servers = [*handfast(up, gateway), *(stack.enter_context(plain_envoy(place, name)) for name in (PLAIN, BY_NAME))]
    servers += [stack.enter_context(run(place)) for program, run in PEERS.items() if program not in missing()]
    contexts = {
        "1.3": context(ssl.TLSVersion.TLSv1_3, up.roots, chain, key),
        "1.2": context(ssl.TLSVersion.TLSv1_2, up.roots, chain, key),
    }
    nobody = context(ssl.TLSVersion.TLSv1_3, up.roots, None, None)
    return {server.name: _clients_of(server, contexts, nobody) for server in servers}


def _clients_of(server: Server, contexts: dict[str, ssl.SSLContext], nobody: ssl.SSLContext) -> dict[str, Client]:
    """Make the clients of a server, which must refuse one without a certificate, and warm it up."""
    if Client(server, nobody).is_served():
        raise SystemExit(f"{server.name} serves a client that has no certificate")
    made = {version: Client(server, one) for version, one in contexts.items()}
    for client in made.values():
        if server.session:
            client.keep_cookie()
        client.connect(WARM_UP)
    return made


def _show(
    samples: Samples, verdicts: list[report.Verdict], absent: list[str], rounds: int, work: tuple[Kind, ...]
) -> None:
    print(f"{machine()}; {rounds} rounds of {', '.join(f'{kind.count} x {kind.name}' for kind in work)}\n")
    print(*report.table(samples), "", sep="\n")
    for program in absent:
        print(f"left out: {program} is not installed")
    print(*verdicts, sep="\n")


def _keep(samples: Samples, paired: list[tuple[float, float]], verdicts: list[report.Verdict]) -> None:
    plain = {kind: {name: [asdict(one) for one in taken] for name, taken in by.items()} for kind, by in samples.items()}
    found = {"samples": plain, "pairs": paired, "verdicts": [asdict(one) for one in verdicts]}
    path = keep("gateway", {"machine": machine(), **found})
    print(f"\nsamples in {path}")


if __name__ == "__main__":
    sys.exit(main())
