"""Our dataclasses as plain JSON values, and back.

Decides the spelling: a SPIFFE id and a trust domain are their text, a time is RFC 3339 in UTC, bytes are base64, an event
carries its ``kind``. Refuses to guess: whatever cannot be read is `BadInput`, with the key that it was found at. Keys that
nobody knows are passed over, so that an older reader understands a newer writer.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from handfast.base.events import KINDS, Event
from handfast.base.refusal import BadInput
from handfast.base.spiffe import SpiffeId, TrustDomain
from handfast.io.native import native, shape_of

MAX_EVENT_BYTES = 64 * 1024
_EVENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_NOT_UNICODE = "the text is not Unicode"
_MISSING = object()
_AS_THEY_ARE = frozenset({str, int, bool, types.NoneType})
"""Most of what there is to write and read, and so asked for first."""

T = TypeVar("T")


def encode_event(event: Event) -> bytes:
    """Write an event as one line of JSON, its kind first.

    Raises:
        BadInput: `decode_event` would refuse it: its id, its size, a time without a zone, text that is not Unicode.
    """
    raw = _with_kind(event) if native(event) else encode(event)
    _check_size(raw)
    _check_id(event)
    return raw


def decode_event(raw: bytes) -> Event:
    """Read what `encode_event` wrote, or an agent sent: at most 64 KiB.

    Raises:
        BadInput: it is too long, not JSON, of no known kind, or a field is missing or wrong.
    """
    _check_size(raw)
    event = _typed(raw)
    if event is None or not native(event):
        return event_from_plain(decode(raw))
    _check_id(event)
    return event


def event_from_plain(plain: object) -> Event:
    """Turn what `to_plain` gave for an event back into it. Its size is for the caller to bound.

    Raises:
        BadInput: it is of no known kind, or a field is missing or wrong.
    """
    kind = plain.get("kind") if isinstance(plain, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f"{str(kind)[:80]!r} is no kind of event", key="kind")
    event = from_plain(KINDS[kind], plain)
    _check_id(event)
    return event


def encode(value: object) -> bytes:
    """Write any of our values as JSON.

    Raises:
        BadInput: it holds a time without a zone, or text that is not Unicode.
    """
    try:
        return msgspec.json.encode(to_plain(value))
    except UnicodeEncodeError as error:
        raise BadInput(_NOT_UNICODE) from error


def decode(raw: bytes) -> object:
    """Read JSON as dicts, lists, texts and numbers.

    Raises:
        BadInput: it is not JSON, or nested too deep to read.
    """
    try:
        return cast("object", msgspec.json.decode(raw))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput("this is not JSON") from error


def to_plain(value: object) -> Any:  # noqa: ANN401 - JSON has no type of its own
    """Turn a dataclass, and all within it, into values that JSON has. An event begins with its kind.

    Raises:
        BadInput: it holds a time without a zone.
    """
    if type(value) in _AS_THEY_ARE:
        return value
    match value:
        case SpiffeId() | TrustDomain():
            return str(value)
        case datetime():
            return _utc(value).isoformat().replace("+00:00", "Z")
        case bytes():
            return base64.b64encode(value).decode()
        case Enum():
            return value.value
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
        case tuple() | list():
            return [to_plain(item) for item in value]
        case Event():
            return {"kind": value.kind, **_fields_of(value)}
        case _ if dataclasses.is_dataclass(value):
            return _fields_of(value)
        case _:
            return value


def from_plain(kind: type[T], plain: object) -> T:
    """Turn what `to_plain` gave back into a ``kind``.

    Raises:
        BadInput: a field is missing, of another type, or cannot be. Names its key.
    """
    return cast("T", _read(kind, plain))


def _with_kind(event: Event) -> bytes:
    try:
        fields = msgspec.json.encode(event)
    except UnicodeEncodeError as error:
        raise BadInput(_NOT_UNICODE) from error
    return b'{"kind":"%b",%b' % (event.kind.encode(), fields[1:])


def _typed(raw: bytes) -> Event | None:
    """Read an event as it was most likely written; None where it was not, and has to be looked at in detail."""
    try:
        kind: Any = KINDS[msgspec.json.decode(raw, type=_Kind).kind]
        return cast("Event", msgspec.json.decode(raw, type=kind)) if shape_of(kind) else None
    except (msgspec.DecodeError, KeyError, RecursionError, UnicodeDecodeError):
        return None


class _Kind(msgspec.Struct):
    """All that is read of an event first."""

    kind: str


def _check_size(raw: bytes) -> None:
    if len(raw) > MAX_EVENT_BYTES:
        raise BadInput(f"the event is longer than {MAX_EVENT_BYTES} bytes")


def _check_id(event: Event) -> None:
    if not _EVENT_ID.fullmatch(event.id):
        raise BadInput("an event's id has 1 to 128 letters, digits, dots, colons and dashes", key="id")


def _fields_of(value: object) -> dict[str, Any]:
    kind: Any = type(value)
    return {name: to_plain(getattr(value, name)) for name in _hints(kind)}


@lru_cache(maxsize=256)
def _hints(kind: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@lru_cache(maxsize=256)
def _optional(kind: type[Any]) -> frozenset[str]:
    return frozenset(
        field.name
        for field in dataclasses.fields(kind)
        if (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
    )


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise BadInput("the time has no zone", hint="write it as RFC 3339 does: 2026-01-31T12:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise BadInput("the time is out of range") from error


def _read(hint: Any, plain: Any) -> object:  # noqa: ANN401 - both are only known while reading
    if isinstance(hint, type) and hint in _AS_THEY_ARE:
        return _convert(plain, hint)
    origin = get_origin(hint)
    if hint is SpiffeId:
        return SpiffeId.parse(_convert(plain, str))
    if hint is TrustDomain:
        return TrustDomain(_convert(plain, str))
    if hint is datetime:
        return _utc(_convert(plain, datetime))
    if origin in {Union, types.UnionType}:
        return _read_union(get_args(hint), plain)
    if origin is tuple:
        (item, *_) = get_args(hint)
        return tuple(_read(item, element) for element in _convert(plain, list[Any]))
    if origin in {dict, Mapping}:
        (_, item) = get_args(hint)
        return {key: _read_at(key, item, value) for key, value in _convert(plain, dict[str, Any]).items()}
    return _read_fields(hint, plain) if dataclasses.is_dataclass(hint) else _convert(plain, hint)


def _read_union(choices: tuple[Any, ...], plain: object) -> object:
    if plain is None and types.NoneType in choices:
        return None
    *others, last = (choice for choice in choices if choice is not types.NoneType)
    for choice in others:
        try:
            return _read(choice, plain)
        except BadInput:
            continue
    return _read(last, plain)


def _read_fields(kind: Any, plain: object) -> object:  # noqa: ANN401 - a dataclass
    given = _convert(plain, dict[str, Any])
    values = {}
    for name, hint in _hints(kind).items():
        item = given.get(name, _MISSING)
        if item is not _MISSING:
            values[name] = _read_at(name, hint, item)
        elif name not in _optional(kind):
            raise BadInput("it is missing", key=name)
    return kind(**values)


def _read_at(key: str, hint: object, plain: object) -> object:
    try:
        return _read(hint, plain)
    except BadInput as error:
        path = f"{key[:80]}.{error.key}" if error.key else key[:80]
        raise BadInput(error.message, hint=error.hint, key=path) from error


def _convert(plain: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(plain, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadInput(str(error)[:200]) from error
