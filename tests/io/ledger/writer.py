"""A program that issues certificates as fast as it can, and says what was acknowledged. It is there to be killed."""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from handfast.io.ledger import SqlLedger
from handfast.io.sqlite import SqliteDatabase
from tests.io.ledger.builders import NOW, intent, issued, revoked


def say(*words: str) -> None:
    """Write one line at once; a line of this size is never torn."""
    os.write(1, " ".join(words).encode() + b"\n")


async def work(ledger: SqlLedger, worker: int) -> None:
    """Intend, sign, issue, and revoke each third one."""
    for number in itertools.count():
        serial = f"{worker:02x}{number:08x}"
        await ledger.record_intent(intent(serial))
        say("signed", serial)
        await ledger.record_issued(serial, serial.encode(), issued(serial))
        say("issued", serial)
        if number % 3 == 0:
            await ledger.revoke([serial], NOW, "superseded", [revoked(serial)])
            say("revoked", serial)


async def main(path: Path) -> None:
    """Work until killed."""
    ledger = await SqlLedger.open(await SqliteDatabase.open(path))
    await asyncio.gather(*(work(ledger, worker) for worker in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
