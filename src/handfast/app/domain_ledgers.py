"""Where the ledger of a trust domain lies in a PostgreSQL database, by where its state lies in a data directory.

Decides it for the commands that open a ledger without a server. Refuses to know what is in one.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from handfast.app.domains import DIRECTORY, SETTINGS
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.databases import LEDGER
from handfast.io.postgres_session import Address
from handfast.io.schemas import address_of


def address_for(data: Path, first: Address) -> Address:
    """Give where the ledger of the trust domain with its state in ``data`` lies, in the database of the ``first`` one.

    Raises:
        BadInput: the directory is a further trust domain's, and its name is none.
    """
    directory = data.resolve()
    if directory.parent.name == DIRECTORY and (directory / SETTINGS).is_file():
        return address_of(first, TrustDomain(directory.name))
    return first


def address_at(path: str, here: Address) -> Address:
    """Give where the ledger at ``path`` of a data directory lies, in the database where the directory's own is ``here``.

    Raises:
        BadInput: it is no trust domain's.
    """
    match PurePosixPath(path).parts:
        case (name,) if name == LEDGER:
            return here
        case (folder, name, file) if (folder, file) == (DIRECTORY, LEDGER):
            return address_of(here, TrustDomain(name))
    raise BadInput("this is not the ledger of a trust domain", file=path[:200], hint="move it away")
