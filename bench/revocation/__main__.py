"""``python -m bench.revocation``: how long a certificate still opens anything after someone said that it must not.

Each try has a certificate of its own and a connection that it opened. Requests go over that connection back to back; what counts is
the time from the start of the revocation to the first request that is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.support import (
    COMMAND,
    LOOPBACK,
    Platform,
    free_port,
    issued,
    keep,
    listens,
    machine,
    percentile,
    platform,
    process,
    wait_for,
)

from handfast.app.client import Api
from handfast.app.server.messages import RevocationAnswer, RevocationRequest
from handfast.io.credentials import Credential

HOST = "bench.example.org"
LIMIT_MS = 250.0
REQUEST = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
GIVE_UP_S = 20.0
WORLD = """\
trust_domain: example.org
hosts:
  {host}:
    listen: {loopback}:{gateway}
    clients: {{certificate: required}}
    routes: [{{path: /, upstream: "http://{loopback}:{upstream}", allow: any-certificate}}]
"""


@dataclass(frozen=True, slots=True)
class Try:
    """One try, in ms from its start: the server's answer, the agent's handing it to Envoy, the first refused request.

    ``requests`` is how many were still answered in between.
    """

    answered: float
    published: float
    refused: float
    requests: int


Revoke = Callable[[Credential], Awaitable[None]]


def main() -> int:
    """Run; 1 where the limit is not kept."""
    options = _options()
    tries = 15 if options.quick else options.tries
    with tempfile.TemporaryDirectory(prefix="handfast-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        upstream, gateway = free_port(), free_port()
        command: list[str | Path] = [sys.executable, Path(__file__).parents[1] / "upstream.py", str(upstream)]
        stack.enter_context(process(command, directory / "upstream.out"))
        wait_for("service", lambda: listens(upstream))
        world = WORLD.format(host=HOST, loopback=LOOPBACK, gateway=gateway, upstream=upstream)
        up = stack.enter_context(platform(directory, world))
        by_api, by_command = asyncio.run(_all(up, gateway, tries))
    return _judge(by_api, by_command)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.revocation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="15 tries: a look, no measurement")
    parser.add_argument("--tries", type=int, default=100)
    return parser.parse_args()


async def _all(up: Platform, port: int, tries: int) -> tuple[list[Try], list[Try]]:
    """Measure by the API over a connection that is open, and by the command, whose start counts in."""
    async with Api.local(up.data / "server.sock") as api:

        async def call(held: Credential) -> None:
            request = RevocationRequest(serial=held.leaf.serial, reason="keyCompromise")
            await api.call("POST", "/v1/revocations", RevocationAnswer, request)

        async def command(held: Credential) -> None:
            words = (COMMAND, "cert", "revoke", held.leaf.serial, "--data", up.data)
            run = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.DEVNULL)
            if await run.wait():
                raise SystemExit("'handfast cert revoke' failed")

        return await _tries(up, api, port, tries, call), await _tries(up, api, port, tries, command)


async def _tries(up: Platform, api: Api, port: int, tries: int, revoke: Revoke) -> list[Try]:
    held = [await issued(api, f"bench-{number}") for number in range(tries)]
    return [await _try(up, port, one, revoke) for one in held]


async def _try(up: Platform, port: int, held: Credential, revoke: Revoke) -> Try:
    """Revoke under load on one open connection."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=_context(up, held), server_hostname=HOST)
    with contextlib.closing(writer):
        await _served(reader, writer)
        asking = asyncio.create_task(_until_refused(reader, writer))
        await asyncio.sleep(0.05)
        began, began_at = time.monotonic(), time.time()
        await revoke(held)
        answered = time.monotonic()
        moments = await asyncio.wait_for(asking, GIVE_UP_S)
    await asyncio.sleep(0.05)  # for the agent to have written what it took
    return Try(
        answered=1000 * (answered - began),
        published=1000 * ((up.data / "agent" / "slice.json").stat().st_mtime - began_at),
        refused=1000 * (moments[-1] - began),
        requests=sum(moment > began for moment in moments[:-1]),
    )


async def _until_refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[float]:
    """Ask back to back; give the moments of the answers, of which the last is the refusal."""
    moments: list[float] = []
    served = True
    while served:
        served = await _served(reader, writer)
        moments.append(time.monotonic())
    return moments


async def _served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Ask once; tell whether it was served. Any other refusal than the one for a revoked certificate ends the run."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    body = await reader.readexactly(int(fields["content-length"]))
    if head.startswith(b"HTTP/1.1 200 "):
        return True
    if b'"revocation.revoked"' in body:
        return False
    raise SystemExit(f"the gateway answers {head!r} {body!r}")


def _context(up: Platform, held: Credential) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(up.roots))
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(held.key_pem + held.chain_pem)
        file.flush()
        made.load_cert_chain(file.name)
    return made


# What is printed


def _judge(by_api: Sequence[Try], by_command: Sequence[Try]) -> int:
    found = percentile([one.refused for one in by_api], 0.99)
    kept = found < LIMIT_MS
    print(f"{machine()}; {len(by_api)} tries each; ms\n")
    print(*_table({"API call": by_api, "handfast cert revoke": by_command}), "", sep="\n")
    print(
        f"{'PASS' if kept else 'FAIL'}  p99 from the API call to the first refused request: {found:.0f} ms, limit {LIMIT_MS:.0f} ms"
    )
    plain = {"api": [asdict(one) for one in by_api], "command": [asdict(one) for one in by_command]}
    print(f"\ntries in {keep('revocation', {'machine': machine(), **plain})}")
    return 0 if kept else 1


def _table(measured: dict[str, Sequence[Try]]) -> Iterator[str]:
    yield "| from the start of | to | p50 | p99 | min | max |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for start, tries in measured.items():
        for end, times in {
            "the server's answer": [one.answered for one in tries],
            "the agent's update for Envoy": [one.published for one in tries],
            "the first refused request": [one.refused for one in tries],
        }.items():
            p50, p99 = (percentile(times, share) for share in (0.5, 0.99))
            yield f"| {start} | {end} | {p50:.1f} | {p99:.1f} | {min(times):.1f} | {max(times):.1f} |"


if __name__ == "__main__":
    sys.exit(main())
