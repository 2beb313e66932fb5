"""A program that issues certificates as fast as it can, and says what was acknowledged. It is there to be killed."""

import asyncio
import itertools
import os
import sys

from handfast.io.ledger import SqlLedger
from tests.io.ledger.builders import NOW, intent, issued, revoked
from tests.support.stores import open_argument


def say(*words: str) -> None:
    """Write one line at once; a line of this size is never torn."""
    os.write(1, " ".join(words).encode() + b"\n")


async def work(ledger: SqlLedger, worker: int, prefix: str) -> None:
    """Intend, sign, issue, and revoke each third one."""
    for number in itertools.count():
        serial = f"{prefix}{worker:02x}{number:08x}"
        await ledger.record_intent(intent(serial))
        say("signed", serial)
        await ledger.record_issued(serial, serial.encode(), issued(serial))
        say("issued", serial)
        if number % 3 == 0:
            await ledger.revoke([serial], NOW, "superseded", [revoked(serial)])
            say("revoked", serial)


async def main(argument: str, prefix: str = "") -> None:
    """Work until killed."""
    ledger = await SqlLedger.open(await open_argument(argument))
    await asyncio.gather(*(work(ledger, worker, prefix) for worker in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
