"""Whether a ledger and the files of authorities belong together, before both go into one archive.

Decides it by the id that both keep, and by the issuing authorities that the ledger says count: each has to be among the files. What
is saved apart could be restored apart, and nothing could be issued then.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from handfast.base.refusal import BadInput
from handfast.io.authority_files import ISSUING
from handfast.io.generations import place_of
from handfast.io.ledger.sharing import LEDGER_ID
from handfast.trust.facts import facts, pem_certificates
from handfast.trust.rotation import DELIVERED

AUTHORITY = Path("authority")
_COUNT = "select number, issuer, stage from generations where issuer <> '' order by number"
_THERE = "save it at a server that has them: 'handfast ca status' there says that it issues"


def check_together(ledger: Path, kept: Mapping[str, bytes]) -> None:
    """Check that the ledger in a SQLite file and the files of a data directory, by path, belong together.

    Raises:
        BadInput: they are of different platforms, or the files lack an authority that counts.
    """
    with contextlib.closing(sqlite3.connect(ledger)) as source:
        said = source.execute("select value from meta where key = ?", (LEDGER_ID,)).fetchone()
        counting = [(number, issuer) for number, issuer, stage in source.execute(_COUNT) if stage in DELIVERED]
    ours = kept.get(str(AUTHORITY / LEDGER_ID), b"").decode("ascii", "replace").strip()
    if said and said[0] != ours:
        raise BadInput("the database belongs to another authority than the one in this directory", key="database")
    for number, issuer in counting:
        path = str(place_of(AUTHORITY, number) / ISSUING)
        if path not in kept or _key_id(kept[path]) != issuer:
            raise BadInput(f"the ledger knows a generation {number} that is not here", file=path, hint=_THERE)


def _key_id(text: bytes) -> str:
    return facts(pem_certificates(text.decode("ascii", "replace"))[0]).ski
