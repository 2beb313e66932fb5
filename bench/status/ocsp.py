"""What one OCSP answer costs: Handfast, ``openssl ocsp`` as a responder, and one signature alone, in one run.

Servers run on one core, the client on another; each round does the same work at every server, and the order moves on by one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.support import (
    COMMAND,
    LOOPBACK,
    cores,
    cpu_ns,
    free_port,
    issued,
    keep,
    machine,
    process,
    said_by,
    wait_for,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from handfast.app.client import Api

SETTLE_S = 0.05
LIMIT_CACHED, LIMIT_NONCE = 3.0, 4.0
"""How many times as much as OpenSSL's own responder, which is C and keeps no ledger, an answer may cost over a new connection."""


@dataclass(frozen=True, slots=True)
class Responder:
    """One that answers at a port, in one process. ``path`` is where it is asked."""

    name: str
    pid: int
    port: int
    path: str
    keeps_alive: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: µs of processor time an answer, and answers a second as one client saw them."""

    us: float
    rate: float


def run(rounds: int, count: int) -> int:
    """Measure and print; 1 where a limit is not kept."""
    if shutil.which("openssl") is None:
        raise SystemExit("not installed: openssl")
    server_core, client_core = cores()
    os.sched_setaffinity(0, {client_core})
    with tempfile.TemporaryDirectory(prefix="handfast-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        ours, leaf = _handfast(directory, server_core, stack)
        issuing = x509.load_pem_x509_certificate((directory / "data" / "authority" / "issuing.pem").read_bytes())
        theirs = _openssl(directory, leaf, server_core, stack)
        work = list(_work(ours, theirs, _question(leaf, issuing)))
        samples: dict[str, list[Sample]] = {label: [] for label, _ in work}
        for turn in range(rounds + 1):  # the first one warms up, and does not count
            first = turn % len(work)
            for label, ask in work[first:] + work[:first]:
                sample = ask(count)
                if turn:
                    samples[label].append(sample)
    floor = _signature()
    return _judge(samples, floor, rounds, count)


def _handfast(directory: Path, core: int, stack: ExitStack) -> tuple[Responder, x509.Certificate]:
    port, data, words = free_port(), directory / "data", directory / "server.out"
    listen = ("--api", f"{LOOPBACK}:0", "--admin", f"{LOOPBACK}:0", "--status", f"{LOOPBACK}:{port}")
    command = [COMMAND, "server", "--data", data, "--trust-domain", "example.org", *listen]
    pid = stack.enter_context(process(command, words, core=core))
    wait_for("server", lambda: "/metrics" in said_by(pid, words))

    async def leaf() -> bytes:
        async with Api.local(data / "server.sock") as api:
            return (await issued(api, "bench")).leaf_der

    return Responder("Handfast", pid, port, "/ocsp", keeps_alive=True), x509.load_der_x509_certificate(
        asyncio.run(leaf())
    )


def _openssl(directory: Path, leaf: x509.Certificate, core: int, stack: ExitStack) -> Responder:
    """Run OpenSSL's responder over an index of that one certificate, with the issuing key itself."""
    port, authority = free_port(), directory / "data" / "authority"
    ends = f"{leaf.not_valid_after_utc:%y%m%d%H%M%SZ}"
    (directory / "index.txt").write_text(f"V\t{ends}\t\t{leaf.serial_number:040X}\tunknown\t/CN=bench\n")
    signer = (
        "-CA",
        authority / "issuing.pem",
        "-rsigner",
        authority / "issuing.pem",
        "-rkey",
        authority / "issuing-key.pem",
    )
    command = ["openssl", "ocsp", "-index", directory / "index.txt", "-port", str(port), *signer, "-ndays", "1"]
    pid = stack.enter_context(process(command, directory / "openssl.out", core=core))
    words = directory / "openssl.out"
    wait_for("openssl ocsp", lambda: "waiting" in said_by(pid, words))  # a probe of its port would hold it up
    return Responder("openssl ocsp", pid, port, "/", keeps_alive=False)


def _question(leaf: x509.Certificate, issuing: x509.Certificate) -> Callable[[bytes], bytes]:
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuing, hashes.SHA1())

    def question(nonce: bytes) -> bytes:
        asked = builder.add_extension(x509.OCSPNonce(nonce), critical=False) if nonce else builder
        return asked.build().public_bytes(Encoding.DER)

    return question


def _work(
    ours: Responder, theirs: Responder, question: Callable[[bytes], bytes]
) -> Iterator[tuple[str, Callable[[int], Sample]]]:
    for responder in (ours, theirs):
        for what, nonce in (("no nonce", b""), ("nonce", bytes(range(16)))):
            yield (
                f"{responder.name}, {what}, new connection",
                lambda count, responder=responder, nonce=nonce: _ask(responder, question(nonce), count, anew=True),
            )
            if responder.keeps_alive:
                yield (
                    f"{responder.name}, {what}, kept alive",
                    lambda count, responder=responder, nonce=nonce: _ask(responder, question(nonce), count, anew=False),
                )


def _ask(responder: Responder, question: bytes, count: int, *, anew: bool) -> Sample:
    head = f"POST {responder.path} HTTP/1.1\r\nhost: {LOOPBACK}\r\ncontent-type: application/ocsp-request\r\n"
    request = f"{head}content-length: {len(question)}\r\n\r\n".encode() + question
    time.sleep(SETTLE_S)
    before, began = cpu_ns([responder.pid]), time.perf_counter()
    connection = None
    for _ in range(count):
        connection = connection or socket.create_connection((LOOPBACK, responder.port), 10)
        _answer(connection, request, responder.name)
        if anew:
            connection.close()
            connection = None
    took = time.perf_counter() - began
    if connection:
        connection.close()
    time.sleep(SETTLE_S)
    return Sample((cpu_ns([responder.pid]) - before) / count / 1000, count / took)


def _answer(connection: socket.socket, request: bytes, name: str) -> None:
    """Ask once, and look whether the answer is a good one."""
    connection.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got:
        got += _more(connection, name)
    head, _, body = got.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while len(body) < int(fields["content-length"]):
        body += _more(connection, name)
    # The head of a signed answer: a SEQUENCE whose first field says "successful".
    if not head.split(b" ", 2)[1] == b"200" or b"\x0a\x01\x00" not in body[:8]:
        raise SystemExit(f"{name} answers {head!r} {body[:40]!r}")


def _more(connection: socket.socket, name: str) -> bytes:
    if not (part := connection.recv(65536)):
        raise SystemExit(f"{name} closed the connection")
    return part


def _signature() -> float:
    """Give the µs of one P-256 signature in this process: what a fresh answer cannot do without."""
    key, message = ec.generate_private_key(ec.SECP256R1()), bytes(300)
    times = []
    for _ in range(20):
        began = time.process_time()
        for _ in range(200):
            key.sign(message, ec.ECDSA(hashes.SHA256()))
        times.append((time.process_time() - began) / 200 * 1e6)
    return median(times)


def _judge(samples: dict[str, list[Sample]], floor: float, rounds: int, count: int) -> int:
    print(f"{machine()}; {rounds} rounds of {count} answers each\n")
    print(*_table(samples, floor), "", sep="\n")
    kept = True
    for what, limit in (("no nonce", LIMIT_CACHED), ("nonce", LIMIT_NONCE)):
        ours, theirs = (samples[f"{name}, {what}, new connection"] for name in ("Handfast", "openssl ocsp"))
        found = median(one.us / other.us for one, other in zip(ours, theirs, strict=True))
        print(
            f"{'PASS' if found <= limit else 'FAIL'}  {what}, beside openssl ocsp: {found:.2f} x, limit {limit:.2f} x"
        )
        kept = kept and found <= limit
    plain = {label: [asdict(one) for one in taken] for label, taken in samples.items()}
    print(f"\nsamples in {keep('status', {'machine': machine(), 'floor_us': floor, 'samples': plain})}")
    return 0 if kept else 1


def _table(samples: dict[str, Sequence[Sample]] | dict[str, list[Sample]], floor: float) -> Iterator[str]:
    yield "| one answer | median µs | min µs | x one signature | answers/s, one client |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for label, taken in samples.items():
        us = median(one.us for one in taken)
        yield (
            f"| {label} | {us:.0f} | {min(one.us for one in taken):.0f} | {us / floor:.1f} "
            f"| {median(one.rate for one in taken):.0f} |"
        )
    yield f"| one P-256 signature, in this process | {floor:.0f} | | 1.0 | |"
