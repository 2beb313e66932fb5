"""The slice: all that one agent needs to know of the world, and nothing more.

It is what the server sends to an agent, what the agent keeps on disk, and what the translator turns into Envoy's resources.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from handfast.access.long_json import loads, pieces
from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from handfast.trust.foreign_crl import RevocationList

_FEW, _MANY = 3000, 10_000


@dataclass(frozen=True, slots=True)
class Slice:
    """One version of what an agent knows. ``digest`` names the content of all other fields.

    ``roots`` are what client certificates are verified against; ``issuers`` are CA certificates known here, used to explain
    a chain and never to trust one; ``crls`` cover every CA in ``issuers``, and are empty while nothing is revoked. All are
    PEM texts. The world carries the revocation lists of authorities that are not ours. ``denied`` are SHA-256 fingerprints (lower case hex) of revoked certificates that have not expired.
    """

    digest: str
    revision: int
    world: World
    roots: tuple[str, ...]
    issuers: tuple[str, ...]
    crls: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        """Whether so much stands in it that work on it takes long: more than some thousand entries in all."""
        return len(self.denied) + self.world.listed > _FEW or sum(map(len, self.crls)) > _FEW * 64

    def denies(self, fingerprint: str) -> bool:
        """Tell whether a certificate (by its SHA-256) is among the ``denied``. They are in order, and may be a million."""
        at = bisect_left(self.denied, fingerprint)
        return at < len(self.denied) and self.denied[at] == fingerprint


def document_of(slice_: Slice) -> dict[str, object]:
    """Give the slice as plain values, for the wire and the disk."""
    return {
        "digest": slice_.digest,
        "revision": slice_.revision,
        "world": document(slice_.world),
        "lists": {name: [_list_document(one) for one in lists] for name, lists in sorted(slice_.world.lists.items())},
        "roots": list(slice_.roots),
        "issuers": list(slice_.issuers),
        "crls": list(slice_.crls),
        "denied": list(slice_.denied),
    }


def written(slice_: Slice) -> bytes:
    """Write a slice for the wire and the disk: `document_of` it as JSON."""
    return b"".join(piece.encode() for piece in pieces(document_of(slice_)))


def parse_slice(raw: bytes, before: Slice | None = None) -> Slice:
    """Read what `document_of` gave, as JSON. Where the world is that of ``before``, it is not read again.

    Raises:
        BadInput: it is not a slice, or its digest is not that of its content.
    """
    try:
        plain = _object(raw)
        same = before is not None and plain["world"] == document(before.world)
        world = before.world if before and same else parse_world(json.dumps(plain["world"]), file="slice")
        revoked = _lists(plain["lists"])
        world = world if world.lists == revoked else replace(world, lists=revoked)
        lists = {name: _texts(plain[name]) for name in ("roots", "issuers", "crls")}
        denied = _list_of_texts(plain["denied"])
        slice_ = make_slice(revision=_revision(plain["revision"]), world=world, denied=denied, **lists)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput("this is not a slice", hint="it is made anew when the server is reached") from error
    if slice_.digest != plain.get("digest"):
        raise BadInput(
            "the slice's digest is not that of its content", hint="it is made anew when the server is reached"
        )
    return slice_


def _object(raw: bytes) -> dict[str, Any]:
    plain = loads(raw)
    if not isinstance(plain, dict):
        raise TypeError("not an object")
    return plain


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_list_of_texts(value))


def _list_of_texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("not a list of texts")
    return value


def _list_document(one: RevocationList) -> dict[str, object]:
    return {"ca": one.ca, "since": one.since, "until": one.until, "serials": list(one.serials)}


def _lists(value: object) -> Mapping[str, tuple[RevocationList, ...]]:
    if not isinstance(value, dict) or not all(isinstance(lists, list) for lists in value.values()):
        raise TypeError("not lists by name")
    return {name: tuple(_list(one) for one in lists) for name, lists in value.items()}


def _list(plain: dict[str, object]) -> RevocationList:
    (ca,) = _texts([plain["ca"]])
    return RevocationList(ca, _revision(plain["since"]), _revision(plain["until"]), _texts(plain["serials"]))


def _revision(value: object) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def make_slice(
    *,
    revision: int,
    world: World,
    roots: tuple[str, ...],
    issuers: tuple[str, ...],
    crls: tuple[str, ...] = (),
    denied: Collection[str] = (),
) -> Slice:
    """Give the slice of this content, with the digest that names it (the first 32 hex digits of SHA-256)."""
    content = Slice("", revision, world, roots, issuers, crls, _in_order(denied))
    digest = hashlib.sha256()
    for piece in pieces(document_of(content)):
        digest.update(piece.encode())
    return replace(content, digest=digest.hexdigest()[:32])


def _in_order(names: Collection[str]) -> tuple[str, ...]:
    """Sort names, many by their beginnings first: nothing interrupts the sorting of a million, which takes most of a second."""
    if len(names) < _MANY:
        return tuple(sorted(names))
    beginning_with: dict[str, list[str]] = {}
    for name in names:
        beginning_with.setdefault(name[:2], []).append(name)
    return tuple(name for some in sorted(beginning_with) for name in sorted(beginning_with[some]))
