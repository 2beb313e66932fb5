"""At which hosts a name in a certificate is no identity of ours: those that trust other authorities, or once did.

Decides that they are known before Envoy serves them, and after a restart: rows about connections of before it are read later. Refuses to
know what follows for a row (`handfast.envoy.access_log`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from handfast.base.refusal import BadInput
from handfast.io.files import read, write


class PartnerHosts:
    """The names of these hosts, in a file beside the log."""

    def __init__(self, path: Path) -> None:
        """Begin with those of before.

        Raises:
            BadInput: the file cannot be read as what was written to it.
        """
        self._path = path
        self.names = _read(path) if path.exists() else frozenset()

    def add(self, names: Iterable[str]) -> None:
        """Know more of them, and keep that before anything else happens.

        Raises:
            BadInput: the file cannot be written.
            Unavailable: the disk is full or fails.
        """
        more = self.names | frozenset(names)
        if more != self.names:
            write(self._path, msgspec.json.encode(sorted(more)), 0o600)
            self.names = more


def _read(path: Path) -> frozenset[str]:
    try:
        return frozenset(msgspec.json.decode(read(path), type=list[str]))
    except msgspec.MsgspecError as error:
        hint = "remove it: names in rows of before are then read as ours, at hosts that trusted others as well"
        raise BadInput("these are no names of hosts", file=str(path), hint=hint) from error
