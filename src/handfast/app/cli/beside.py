"""The files beside a world file: read here, on the client's side, and sent as a part of it.

A server opens no path that somebody sent it, so what a world names has to be in the document before it leaves.
"""

from __future__ import annotations

from pathlib import Path

from handfast.access.inlining import FileName, inlined
from handfast.base.refusal import BadInput, HandfastError
from handfast.io.files import read
from handfast.trust.facts import MAX_PEM_BYTES, pem, pem_certificates
from handfast.trust.foreign_crl import crl_ders

MAX_CRL_BYTES = 512 * 1024
"""A list that stands in the world itself; a longer one is for a URL."""


def with_files(text: str, world: Path) -> str:
    """Put the text of each file that a world file names into it. Names are relative to the world file's directory.

    Raises:
        BadInput: one cannot be read, or has not in it what it should; names file, line and key of the world file.
    """

    def content(named: FileName) -> str:
        try:
            return _roots(world.parent / named.name) if named.key == "roots" else _lists(world.parent / named.name)
        except HandfastError as error:
            raise BadInput(
                f"{named.name}: {error.message}", hint=error.hint, file=str(world), line=named.line, key=named.key
            ) from error

    return inlined(text, content)


def _roots(path: Path) -> str:
    """Give the certificates alone: nothing else of a file, such as a key that lies in it, leaves this machine."""
    text = read(path, MAX_PEM_BYTES).decode(errors="replace")
    return "".join(pem(der) for der in pem_certificates(text))


def _lists(path: Path) -> str:
    return "".join(pem(der, "X509 CRL") for der in crl_ders(read(path, MAX_CRL_BYTES)))
