"""Whether ledgers and the files of authorities belong together, before they go into one archive.

Decides it by the id that both keep, and by the issuing authorities that the ledger says count: each has to be among the files. What
is saved apart could be restored apart, and nothing could be issued then.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from handfast.base.refusal import BadInput
from handfast.io.authority_files import AUTHORITY, ISSUING
from handfast.io.generations import place_of
from handfast.io.ledger.sharing import LEDGER_ID
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import DELIVERED

FIRST = PurePosixPath()
_COUNT = "select number, issuer, stage from generations where issuer <> '' order by number"
_THERE = "save it at a server that has them: 'handfast ca status' there says that it issues"


def homes(kept: Mapping[str, bytes]) -> list[PurePosixPath]:
    """Give the directories, among the files of a data directory by path, of each authority that a ledger belongs to."""
    tail = (AUTHORITY, LEDGER_ID)
    return [path.parent.parent for path in map(PurePosixPath, kept) if path.parts[-2:] == tail]


def check_together(ledger: Path, kept: Mapping[str, bytes], home: PurePosixPath = FIRST) -> None:
    """Check that the ledger in a SQLite file and the files of a data directory, by path, belong together.

    ``home`` is where the ledger's authority lies in the data directory: a further trust domain's lies below.

    Raises:
        BadInput: they are of different platforms, or the files lack an authority that counts.
    """
    with contextlib.closing(sqlite3.connect(ledger)) as source:
        said = source.execute("select value from meta where key = ?", (LEDGER_ID,)).fetchone()
        counting = [(number, issuer) for number, issuer, stage in source.execute(_COUNT) if stage in DELIVERED]
    authority = home / AUTHORITY
    ours = kept.get(str(authority / LEDGER_ID), b"").decode("ascii", "replace").strip()
    if said and said[0] != ours:
        text = "the database belongs to another authority than the one in this directory"
        raise BadInput(text, key="database", file=str(authority))
    for number, issuer in counting:
        path = str(place_of(Path(authority), number) / ISSUING)
        if path not in kept or _key_id(kept[path]) != issuer:
            raise BadInput(f"the ledger knows a generation {number} that is not here", file=path, hint=_THERE)


def _key_id(text: bytes) -> str:
    return facts(pem_certificates(text.decode("ascii", "replace"))[0]).ski
