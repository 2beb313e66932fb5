"""What lies in an authority's directory: roots, the issuing CAs under them, and where their keys are.

Decides nothing, and opens no key. A file that cannot be read is an error, as something is wrong then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from handfast.base.refusal import BadInput
from handfast.io import authority_files, files, key_places
from handfast.io.key_places import KeyPlace
from handfast.trust import constraints
from handfast.trust.facts import facts, load, pem_certificates

LATER = "generations"
_ELSEWHERE = KeyPlace("elsewhere", "its keeper has it")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaNode:
    """One CA. ``kind`` is ``root``, ``between`` or ``issuing``; ``issuer`` the fingerprint of its root; ``directory`` where its files are.

    ``key_place`` is ``sealed``, ``open``, ``token``, ``missing``, ``unreadable`` or ``elsewhere``, ``key_text`` a file, a URI without
    its PIN's place, or why. ``constraints`` are the names it may give, empty where it may give any of its trust domain.
    """

    kind: str
    directory: str
    subject: str
    fingerprint: str
    issuer: str
    serial: str
    key_kind: str
    key_bits: int
    curve: str
    key_place: str
    key_text: str
    not_before: datetime
    not_after: datetime
    constraints: str


def graph(directory: Path) -> list[CaNode]:
    """Give each root, followed by what is below it, oldest first.

    Raises:
        BadInput: there is no authority, or one of its files cannot be read.
    """
    if not (directory / authority_files.ISSUING).exists():
        raise BadInput(
            "there is no authority here", file=str(directory), hint="'handfast up' or 'handfast ca init' makes one"
        )
    places = places_of(directory)
    roots = list(_roots(places))
    below = [node for place in places if (place / authority_files.ISSUING).exists() for node in _below(place, roots)]
    return [node for root in roots for node in (root, *(one for one in below if one.issuer == root.fingerprint))]


def roots_here(directory: Path) -> frozenset[bytes]:
    """Give the roots in an authority's directory (DER), those that are over too; not one that waits for a rotation.

    Raises:
        BadInput: one cannot be read.
    """
    roots = [place / authority_files.ROOT for place in places_of(directory)]
    return frozenset(_der(root) for root in roots if root.exists())


def places_of(directory: Path) -> list[Path]:
    """Give the directories of all generations of an authority, oldest first: its own, and those below it."""
    return [directory, *sorted((directory / LATER).glob("[0-9]*"))]


def _roots(places: list[Path]) -> Iterator[CaNode]:
    for place in places:
        if (place / authority_files.ROOT).exists():
            der = _der(place / authority_files.ROOT)
            yield _node("root", place, der, facts(der).fingerprint, key_places.place_of(place, key_places.ROOT))


def _below(place: Path, roots: list[CaNode]) -> Iterator[CaNode]:
    """Give the issuing CA of a directory, with what is between it and its root before it."""
    between, issuing = authority_files.read_between(place), _der(place / authority_files.ISSUING)
    top = (issuing, *between)[-1]
    above = next((root for root in roots if _signed_by(top, root)), None)
    if above is None:
        raise BadInput("no root here signed this certificate", file=str(place / authority_files.ISSUING))
    for der in reversed(between):
        yield _node("between", place, der, above.fingerprint, _ELSEWHERE)
    yield _node("issuing", place, issuing, above.fingerprint, key_places.place_of(place))


def _signed_by(der: bytes, root: CaNode) -> bool:
    above = _der(Path(root.directory) / authority_files.ROOT)
    return facts(der).aki in {"", facts(above).ski} and facts(der).issuer == root.subject


def _node(kind: str, place: Path, der: bytes, issuer: str, key: KeyPlace) -> CaNode:
    seen, limits = facts(der), constraints.read(load(der).extensions)
    return CaNode(
        kind=kind,
        directory=str(place),
        subject=seen.subject,
        fingerprint=seen.fingerprint,
        issuer=issuer,
        serial=seen.serial,
        key_kind=seen.key_kind,
        key_bits=seen.key_bits,
        curve=seen.curve,
        key_place=key.kind,
        key_text=key.text,
        not_before=seen.window.not_before,
        not_after=seen.window.not_after,
        constraints=str(limits) if limits else "",
    )


def _der(path: Path) -> bytes:
    try:
        return pem_certificates(files.read(path).decode("ascii", "replace"))[0]
    except BadInput as error:
        raise error.at(file=str(path)) from error
