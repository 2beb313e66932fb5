"""A rotation that is begun without a server: where the root has expired, none can start until a new one comes.

Decides nothing: it writes down the beginning, and the server goes on with it at its next start.
"""

from __future__ import annotations

from pathlib import Path

from handfast.app.server.belonging import check_belonging
from handfast.base.events import RotationStepped
from handfast.base.refusal import BadInput, Unavailable, require
from handfast.io.authority_files import AUTHORITY
from handfast.io.databases import LEDGER, open_database
from handfast.io.ids import new_event_id
from handfast.io.ledger.rotation import Rotations
from handfast.io.ports import Clock
from handfast.io.postgres_session import Address
from handfast.trust import rotation

_NAME_IT = "name the server's data directory with --data, or its PostgreSQL database with --database"
_ONE = "leave --database out, or move away what is no ledger of this platform any more"


async def begin(
    data: Path,
    clock: Clock,
    requester: str,
    *,
    root: bool,
    compromised: bool = False,
    address: Address | None = None,
) -> int:
    """Begin a rotation in the ledger of a data directory, or in the one at ``address``, and give the new generation's number.

    Raises:
        Refused: one is coming already, or the root has ended and ``root`` was not asked for.
        BadInput: there is no ledger, it is another authority's, or no server ever ran over it.
        Unavailable: a server runs over it, or the database does not answer.
    """
    path = data / LEDGER
    if address is None and not path.exists():
        raise BadInput("there is no ledger", file=str(path), hint=_NAME_IT)
    if address and path.exists():
        raise BadInput("there is a ledger in this directory, and a database is named", file=str(path), hint=_ONE)
    database = await open_database(path, address)
    try:
        await check_belonging(database, data / AUTHORITY)
        rotations, now = Rotations(database), clock.now()
        before = await rotations.generations()
        if not before:
            where = str(address or path)
            raise BadInput("no authority issued over this ledger yet", file=where, hint="start the server once")
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
