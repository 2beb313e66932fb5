"""A rotation that is begun without a server: where the root has expired, none can start until a new one comes.

Decides nothing: it writes down the beginning, and the server goes on with it at its next start.
"""

from __future__ import annotations

from pathlib import Path

from handfast.base.events import RotationStepped
from handfast.base.refusal import BadInput, Unavailable, require
from handfast.io.ids import new_event_id
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.sqlite import SqliteDatabase
from handfast.trust import rotation


async def begin(data: Path, clock: Clock, requester: str, *, root: bool, compromised: bool = False) -> int:
    """Begin a rotation in the ledger of a data directory, and give the new generation's number.

    Raises:
        Refused: one is coming already, or the root has ended and ``root`` was not asked for.
        BadInput: there is no ledger, or no server ever ran over it.
        Unavailable: a server runs over it.
    """
    path = data / "ledger.sqlite"
    if not path.exists():
        raise BadInput("there is no ledger", file=str(path), hint="name the server's data directory with --data")
    database = await SqliteDatabase.open(path)
    try:
        rotations, now = Rotations(database), clock.now()
        before = await rotations.generations()
        if not before:
            raise BadInput("no authority issued over this ledger yet", file=str(path), hint="start the server once")
        after = require(rotation.begin(before, now, root=root, compromised=compromised))
        new = after[-1]
        event = RotationStepped(
            id=new_event_id(), at=now, step="begin", generation=new.number, root=new.root, requester=requester
        )
        if not await rotations.save(before, after, [event]):
            raise Unavailable("a server runs over this ledger", hint="leave --offline out")
        return new.number
    finally:
        await database.close()
