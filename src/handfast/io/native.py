"""Which dataclasses the JSON library writes and reads as `encoding` does, in a twentieth of the time.

Decides by the types of a class's fields, once a class, and by the times in a value. Refuses everything else, which goes the long
way, and to read or write by itself.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from handfast.base.spiffe import SpiffeId, TrustDomain

_SIMPLE = frozenset({str, int, bool, types.NoneType, Ellipsis})
_TEXTS = frozenset({SpiffeId, TrustDomain})
"""Dataclasses that are one text each when we write them."""
_CONTAINERS = frozenset({Union, types.UnionType, tuple, dict, Mapping})


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a class that a value has to be asked about: times, and dataclasses within. Each may be None."""

    times: tuple[str, ...]
    parts: tuple[str, ...]


def native(value: Any) -> bool:  # noqa: ANN401 - any dataclass
    """Tell whether the library spells ``value``, a dataclass, as `encoding` does: no type that it knows nothing of, all times in UTC."""
    kind: Any = type(value)
    shape = shape_of(kind)
    if shape is None:
        return False
    for name in shape.times:
        moment = getattr(value, name)
        if moment is not None and moment.tzinfo is not UTC:
            return False
    for name in shape.parts:
        part = getattr(value, name)
        if part is not None and not native(part):
            return False
    return True


@lru_cache(maxsize=256)
def shape_of(kind: type[Any]) -> Shape | None:
    """Give what has to be looked at in each value of a dataclass; None where the library would spell a field in its own way."""
    if kind in _TEXTS or not is_dataclass(kind):
        return None
    times, parts = [], []
    for name, hint in get_type_hints(kind).items():
        if _only(hint) is datetime:
            times.append(name)
        elif shape_of(_only(hint)):
            parts.append(name)
        elif not _simple(hint):
            return None
    return Shape(tuple(times), tuple(parts))


def _only(hint: Any) -> Any:  # noqa: ANN401 - a hint is anything
    """Give ``X`` for ``X | None``."""
    others = [one for one in get_args(hint) if one is not types.NoneType]
    return others[0] if get_origin(hint) in {Union, types.UnionType} and len(others) == 1 else hint


def _simple(hint: Any) -> bool:  # noqa: ANN401 - as above
    if get_origin(hint) in _CONTAINERS:
        return all(map(_simple, get_args(hint)))
    return hint in _SIMPLE or (isinstance(hint, type) and issubclass(hint, Enum))
