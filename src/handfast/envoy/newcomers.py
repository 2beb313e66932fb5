"""Rows about certificates that were let in: of each certificate one is worth reading.

Each of Envoy's workers writes one whenever its memory of certificates begins anew, which is at each change of the rules. Decides
by the fingerprint that the row shows, without reading the row. Refuses to know whether the inventory has the certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MOST_REMEMBERED = 50_000
# Envoy's own words: in a text of a stranger's the quotes are escaped. A request that was refused as well is read in any case, and one
# that the service did not answer: Envoy may have refused it, or may not have reached the service.
_NEW, _REFUSED, _ANSWERED = b'"new":"1"', b'"code":"', b'"details":"via_upstream"'
_FINGERPRINT = re.compile(rb'"fingerprint":"([0-9a-f]{64})"')


class Newcomers:
    """Remembers which certificates one gateway has told of."""

    def __init__(self) -> None:
        """Know none."""
        self._told: set[bytes] = set()

    def among(self, lines: Iterable[bytes]) -> list[bytes]:
        """Give the lines to read, in order: all, but those that tell again of a certificate alone."""
        return [line for line in lines if _NEW not in line or self._worth(line)]

    def _worth(self, line: bytes) -> bool:
        found = _FINGERPRINT.search(line)
        if not found or _REFUSED in line or _ANSWERED not in line:
            return True
        known = found[1] in self._told
        if len(self._told) >= MOST_REMEMBERED:
            self._told.clear()
        self._told.add(found[1])
        return not known
