"""What a long revocation list costs: the time to make and to serve it, and the most memory that the process had.

The list is made by the server's own code from a ledger on disk, and is fetched by curl from a listener in the same process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import sqlite3
import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.support import LOOPBACK, keep, machine

from handfast.app.server.status_pages import Pages, Sources
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.clock import SystemClock
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.status import StatusTable
from handfast.io.lists import RevocationLists
from handfast.io.sqlite import SqliteDatabase
from handfast.sdk.front import Front
from handfast.trust.addresses import crl_path
from handfast.trust.facts import hex_serial
from handfast.trust.plan import serial_from

LIMIT = 2.0
"""How much more memory making and serving may take, in sizes of the list."""
REASONS = ("unspecified", "keyCompromise", "superseded", "cessationOfOperation")


def run(count: int) -> int:
    """Measure and print; 1 where the limit is not kept."""
    with tempfile.TemporaryDirectory(prefix="handfast-bench-") as name:
        return asyncio.run(_run(Path(name), count))


async def _run(directory: Path, count: int) -> int:
    clock = SystemClock()
    authority = create_authority(directory / "authority", TrustDomain("example.org"), clock, None)
    database = await SqliteDatabase.open(directory / "ledger.sqlite")
    ledger, issuer = await SqlLedger.open(database), authority.issuer_facts.key_id.hex()
    _fill(directory / "ledger.sqlite", issuer, count)
    lists = RevocationLists(
        authority,
        StatusTable(database),
        clock,
        directory,
        lambda: ledger.next_counter("crl"),
        urls=(f"http://{LOOPBACK}",),
    )
    resting = _forget_peak()
    began, cpu = time.perf_counter(), time.process_time()
    await lists.refresh()
    made, made_cpu, made_peak = time.perf_counter() - began, time.process_time() - cpu, _peak()
    size = lists.published[crl_path(issuer, 0)].size
    sources = Sources(lambda _: None, lists.published.get, lambda _: None, lambda _: None, clock)
    front = Front(Pages(sources).app(), on_failed_handshake=lambda _: None)
    _, port = await front.listen_plain(LOOPBACK, 0)
    before = _forget_peak()
    began, cpu = time.perf_counter(), time.process_time()
    url = f"http://{LOOPBACK}:{port}{crl_path(issuer, 0)}"
    got = await asyncio.create_subprocess_exec("curl", "-sS", "--fail", "-o", directory / "got.crl", url)
    if await got.wait() or (directory / "got.crl").stat().st_size != size:
        raise SystemExit("the list was not served whole")
    served, served_cpu, served_peak = time.perf_counter() - began, time.process_time() - cpu, _peak()
    _check(directory / "got.crl", count)
    await front.stop(1)
    await database.close()
    found = (made_peak - resting) / size
    print(f"{machine()}; {count} entries, {size / 1e6:.1f} MB\n")
    print(
        "| | seconds | processor seconds | memory before, MB | most, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
        sep="\n",
    )
    print(f"| made, signed, checked | {made:.1f} | {made_cpu:.1f} | {resting / 1e6:.0f} | {made_peak / 1e6:.0f} |")
    print(f"| served once | {served:.2f} | {served_cpu:.2f} | {before / 1e6:.0f} | {served_peak / 1e6:.0f} |\n")
    kept = found <= LIMIT
    print(f"{'PASS' if kept else 'FAIL'}  memory for making it: {found:.1f} sizes of the list, limit {LIMIT:.1f}")
    plain = {"count": count, "size": size, "made_s": made, "made_cpu_s": made_cpu, "made_peak": made_peak, "resting": resting,
             "served_s": served, "served_cpu_s": served_cpu, "served_peak": served_peak}  # fmt: skip
    print(f"\nnumbers in {keep('status-crl', {'machine': machine(), **plain})}")
    return 0 if kept else 1


def _fill(ledger: Path, issuer: str, count: int) -> None:
    """Revoke as many certificates as a large site has, straight into the ledger's table."""
    now = int(datetime.now(UTC).timestamp() * 1e6)
    ends = now + int(timedelta(days=90).total_seconds() * 1e6)
    rows = (
        (
            hex_serial(serial_from(secrets.token_bytes(20))),
            issuer,
            ends,
            now - at * 1_000_000,
            REASONS[at % len(REASONS)],
        )
        for at in range(count)
    )
    with contextlib.closing(sqlite3.connect(ledger)) as db, db:
        db.executemany(
            """insert into certificates (serial, issuer, identity, name, dns, not_before, not_after, requester, state, tbs, der,
            fingerprint, recorded_at, revoked_at, revocation_reason) values (?1, ?2, '', '', '[]', 0, ?3, '', 'revoked', x'', x'',
            '', 0, ?4, ?5)""",
            rows,
        )


def _check(file: Path, count: int) -> None:
    """Have OpenSSL read what was served: it knows nothing of who wrote it."""
    text = subprocess.run(
        ["openssl", "crl", "-inform", "DER", "-in", file, "-noout", "-text"], capture_output=True, check=True
    ).stdout
    if (seen := text.count(b"Serial Number:")) != count:
        raise SystemExit(f"OpenSSL reads {seen} entries, not {count}")


def _peak() -> int:
    """Give the most memory that this process had since the last `_forget_peak`, in bytes."""
    return _status("VmHWM")


def _forget_peak() -> int:
    """Count the most anew from what the process has now; give that, in bytes."""
    Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
