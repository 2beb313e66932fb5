"""The slice: all that one agent needs to know of the world, and nothing more.

It is what the server sends to an agent, what the agent keeps on disk, and what the translator turns into Envoy's resources.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from handfast.trust.foreign_crl import RevocationList


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


def parse_slice(raw: bytes, before: Slice | None = None) -> Slice:
    """Read what `document_of` gave, as JSON. Where the world is that of ``before``, it is not read again.

    Raises:
        BadInput: it is not a slice, or its digest is not that of its content.
    """
    try:
        plain = json.loads(raw)
        same = before is not None and plain["world"] == document(before.world)
        world = before.world if before and same else parse_world(json.dumps(plain["world"]), file="slice")
        revoked = _lists(plain["lists"])
        world = world if world.lists == revoked else replace(world, lists=revoked)
        lists = {name: _texts(plain[name]) for name in ("roots", "issuers", "crls", "denied")}
        slice_ = make_slice(revision=_revision(plain["revision"]), world=world, **lists)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput("this is not a slice", hint="it is made anew when the server is reached") from error
    if slice_.digest != plain.get("digest"):
        raise BadInput(
            "the slice's digest is not that of its content", hint="it is made anew when the server is reached"
        )
    return slice_


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise TypeError("not a list of texts")
    return tuple(value)


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
    denied: tuple[str, ...] = (),
) -> Slice:
    """Give the slice of this content, with the digest that names it (the first 32 hex digits of SHA-256)."""
    content = Slice("", revision, world, roots, issuers, crls, tuple(sorted(denied)))
    canonical = json.dumps(document_of(content), sort_keys=True, separators=(",", ":")).encode()
    return replace(content, digest=hashlib.sha256(canonical).hexdigest()[:32])
