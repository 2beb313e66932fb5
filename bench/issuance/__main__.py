"""``python -m bench.issuance``: certificates per second, and what one costs, beside cfssl and the bare cryptography."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from bench.issuance.client import Clients, request
from bench.support import LOOPBACK, cores, cpu_ns, family, free_port, keep, listens, machine, process, said_by, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.postgres import binaries, postgres_server

from handfast.app.client import Api
from handfast.app.server.messages import CertificateAnswer, CertificateRequest, WorldAnswer
from handfast.io.credentials import Credential, new_key
from handfast.io.databases import VARIABLE
from handfast.sdk.contexts import client_context

HANDFAST, POSTGRESQL, CFSSL, FLOOR = "Handfast", "Handfast, PostgreSQL", "cfssl", "bare cryptography"
BATCH, BATCH_CONNECTIONS = 50, 4
BATCHES = f", batches of {BATCH}"
CPU_LIMIT, RATE_LIMIT = 3.5, 1.0
NAME, DNS = "bench", "bench.internal"
CSRS, CONNECTIONS, WARM_UP = 64, 32, 512
TBS_BYTES = 450
WORLD = f"trust_domain: example.org\nworkloads:\n  {NAME}: {{dns: [{DNS}], ttl: 24h}}\n"
CFSSL_CONFIG = {
    "signing": {"default": {"expiry": "24h", "usages": ["digital signature", "client auth", "server auth"]}}
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one server: certificates per second, and its processor time a certificate."""

    rate: float
    us: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit, and whether it is kept."""

    text: str
    kept: bool

    def __str__(self) -> str:
        """Give the line that is printed."""
        return f"{'PASS' if self.kept else 'FAIL'}  {self.text}"


Work = Callable[[int], Sample]
"""Have so many certificates made."""


def main() -> int:
    """Run; 1 where a limit is not kept."""
    options = _options()
    rounds, count = (3, 800) if options.quick else (options.rounds, options.count)
    if shutil.which("cfssl") is None and os.environ.get("CI", "").lower() in {"1", "true"}:
        raise SystemExit("not installed: cfssl")
    csrs = [new_key(NAME).csr_pem for _ in range(CSRS)]
    with tempfile.TemporaryDirectory(prefix="handfast-bench-") as name, ExitStack() as stack:
        samples = _measure(_servers(Path(name), csrs, options, stack), rounds, count)
    verdicts = list(_verdicts(samples))
    print(
        f"{machine()}; {rounds} rounds of {count} certificates over {CONNECTIONS} connections, batches over {BATCH_CONNECTIONS}\n"
    )
    print(*_table(samples), "", sep="\n")
    for program in (POSTGRESQL, CFSSL):
        if program not in samples:
            print(f"left out: {program}, which is not installed")
    print(*verdicts, sep="\n")
    plain = {name: [asdict(one) for one in taken] for name, taken in samples.items()}
    path = keep("issuance", {"machine": machine(), "samples": plain, "verdicts": [asdict(one) for one in verdicts]})
    print(f"\nsamples in {path}")
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.issuance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less work: a look, no measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument(
        "--database",
        default="",
        help="an empty PostgreSQL database, in place of one of a PostgreSQL that is started here",
    )
    parser.add_argument(
        "--profile", default="", help="where to write what cProfile sees of our server; it slows it down"
    )
    return parser.parse_args()


def _servers(directory: Path, csrs: Sequence[str], options: argparse.Namespace, stack: ExitStack) -> dict[str, Work]:
    """Start all, warm them up, and give how to have certificates made by each."""
    database = options.database or _database(stack)  # before we are bound to a core, as it has all of them
    server_core, client_core = cores()
    os.sched_setaffinity(0, {client_core})
    environment = {"PROFILE": options.profile} if options.profile else {}
    works = _ours(HANDFAST, _handfast(directory / "handfast", csrs, server_core, environment), stack)
    if database:
        environment = {VARIABLE: database}
        works |= _ours(POSTGRESQL, _handfast(directory / "postgresql", csrs, server_core, environment), stack)
    if shutil.which("cfssl"):
        works[CFSSL] = stack.enter_context(_cfssl(directory / "cfssl", csrs, server_core))
    works[FLOOR] = partial(_floor, csrs, server_core)
    return works


def _database(stack: ExitStack) -> str:
    """Start the PostgreSQL of the tests, on all cores, and give an empty database in it; its own work is not counted."""
    programs = binaries()
    if programs is None:
        return ""
    server = stack.enter_context(postgres_server(programs))
    return server.url(asyncio.run(server.create_database()))


def _ours(name: str, server: AbstractContextManager[tuple[Work, Work]], stack: ExitStack) -> dict[str, Work]:
    single, batches = stack.enter_context(server)
    return {name: single, name + BATCHES: batches}


def _measure(works: dict[str, Work], rounds: int, count: int) -> dict[str, list[Sample]]:
    """Let each do the same work in each round; the order moves on by one."""
    samples: dict[str, list[Sample]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            samples[name].append(works[name](count))
    return samples


# Handfast


@contextmanager
def _handfast(
    directory: Path, csrs: Sequence[str], core: int, environment: dict[str, str]
) -> Iterator[tuple[Work, Work]]:
    """Run the server; clients come with an operator's certificate, over mutual TLS, for one certificate at a time or for many."""
    directory.mkdir(0o700)
    words = directory / "server.out"
    command = [sys.executable, "-m", "bench.issuance.server", directory]
    with process(command, words, core=core, **environment) as pid:
        port = wait_for("server", lambda: _port(pid, words))
        held = asyncio.run(_prepare(directory))
        context = client_context(held.chain_pem.encode(), held.key_pem.encode(), held.bundle_pem.encode())
        wanted = [{"name": NAME, "csr": csr} for csr in csrs]
        asked = [request("/v1/certificates", one) for one in wanted]
        batch = request("/v1/certificates/batches", {"requests": list(islice(cycle(wanted), BATCH))})
        with (
            _served(Clients(port, context, CONNECTIONS), asked, pid) as single,
            _served(Clients(port, context, BATCH_CONNECTIONS, certificates=BATCH), [batch], pid) as batches,
        ):
            yield single, batches


def _port(pid: int, words: Path) -> int:
    said = said_by(pid, words).partition("listening on ")[2]
    return int(said) if said.endswith("\n") else 0


async def _prepare(directory: Path) -> Credential:
    """Apply the world, and have an operator's certificate issued."""
    async with Api.local(directory / "server.sock") as api:
        await api.call("PUT", "/v1/world", WorldAnswer, WORLD)
        key = new_key("operator")
        wanted = CertificateRequest(name="operator", csr=key.csr_pem, operator=True, ttl_seconds=7200)
        answer = await api.call("POST", "/v1/certificates", CertificateAnswer, wanted)
    return Credential(key.key_pem, answer.chain, answer.bundle)


@contextmanager
def _served(clients: Clients, asked: Sequence[bytes], pid: int) -> Iterator[Work]:
    """Give the work of these clients, whose requests a process answers."""

    def work(count: int) -> Sample:
        cpu, began = cpu_ns(family(pid)), time.monotonic()
        made = clients.ask(asked, count)
        return Sample(made / (time.monotonic() - began), (cpu_ns(family(pid)) - cpu) / made / 1000)

    try:
        clients.ask(asked, WARM_UP)  # at once: a connection without a request is soon cut
        yield work
    finally:
        clients.close()


# Its peers


@contextmanager
def _cfssl(directory: Path, csrs: Sequence[str], core: int) -> Iterator[Work]:
    """Run ``cfssl serve`` with one thread for Go, over TLS; it asks for no certificate, and keeps none."""
    directory.mkdir(0o700)
    port, ca, server = free_port(), directory / "ca", directory / "server"
    _cfssl_made(ca, ["-initca"], "bench")
    signed = ["-ca", f"{ca}.pem", "-ca-key", f"{ca}.key", "-hostname", "localhost"]
    _cfssl_made(server, signed, "localhost")
    (directory / "config.json").write_text(json.dumps(CFSSL_CONFIG))
    command = ["cfssl", "serve", "-address", LOOPBACK, "-port", str(port), "-loglevel", "3",
               "-ca", f"{ca}.pem", "-ca-key", f"{ca}.key", "-config", str(directory / "config.json"),
               "-tls-cert", f"{server}.pem", "-tls-key", f"{server}.key"]  # fmt: skip
    with process(command, directory / "cfssl.out", core=core, GOMAXPROCS="1") as pid:
        wait_for("cfssl", lambda: listens(port))
        context = ssl.create_default_context(cafile=f"{ca}.pem")
        asked = [request("/api/v1/cfssl/sign", {"certificate_request": csr, "hostname": DNS}) for csr in csrs]
        with _served(Clients(port, context, CONNECTIONS), asked, pid) as work:
            yield work


def _cfssl_made(stem: Path, options: Sequence[str], name: str) -> None:
    wanted = json.dumps({"CN": name, "key": {"algo": "ecdsa", "size": 256}})
    command = ["cfssl", "gencert", "-loglevel", "3", *options, "-"]
    made = json.loads(subprocess.run(command, input=wanted, text=True, capture_output=True, check=True).stdout)
    stem.with_suffix(".key").touch(0o600)
    stem.with_suffix(".pem").write_text(made["cert"])
    stem.with_suffix(".key").write_text(made["key"])


def _floor(csrs: Sequence[str], core: int, count: int) -> Sample:
    """Check a CSR and sign once, on the servers' core: what no authority can do without."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    key, tbs = ec.generate_private_key(ec.SECP256R1()), bytes(TBS_BYTES)
    pem = [csr.encode() for csr in csrs]
    cpu, began = time.process_time_ns(), time.monotonic()
    for number in range(count):
        if not x509.load_pem_x509_csr(pem[number % len(pem)]).is_signature_valid:
            raise SystemExit("a good CSR is refused")
        key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    sample = Sample(count / (time.monotonic() - began), (time.process_time_ns() - cpu) / count / 1000)
    os.sched_setaffinity(0, mine)
    return sample


# Numbers


def _ratios(samples: dict[str, list[Sample]], above: str, below: str, what: str) -> list[float]:
    pairs = zip(samples[above], samples[below], strict=True)
    return [getattr(one, what) / getattr(other, what) for one, other in pairs]


def _table(samples: dict[str, list[Sample]]) -> Iterator[str]:
    yield "| who | certificates/s, median | best | CPU µs a certificate, median | least | x bare cryptography | spread |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, taken in samples.items():
        rates, us, floor = [s.rate for s in taken], [s.us for s in taken], _ratios(samples, name, FLOOR, "us")
        yield (
            f"| {name} | {median(rates):.0f} | {max(rates):.0f} | {median(us):.0f} | {min(us):.0f} "
            f"| {median(floor):.2f} | {min(floor):.2f}-{max(floor):.2f} |"
        )


def _verdicts(samples: dict[str, list[Sample]]) -> Iterator[Verdict]:
    """Hold the samples against the limits: medians of the ratios within each round. A batch is held against single requests of others."""
    for name in (HANDFAST, HANDFAST + BATCHES):
        cpu = median(_ratios(samples, name, FLOOR, "us"))
        yield Verdict(
            f"{name}: CPU, beside the bare cryptography: {cpu:.2f} x, limit {CPU_LIMIT:.1f} x", cpu <= CPU_LIMIT
        )
        if CFSSL in samples:
            rate = median(_ratios(samples, name, CFSSL, "rate"))
            said = f"{name}: certificates per second, beside cfssl one by one: {rate:.2f} x"
            yield Verdict(f"{said}, limit {RATE_LIMIT:.2f} x or more", rate >= RATE_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
