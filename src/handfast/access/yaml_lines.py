"""YAML as a tree that knows its lines, and nothing of YAML beyond that.

Decides what of YAML a world file may use: mappings, lists, and single values, which stay the text that was written, so that
`off` is off and `NO` is NO. Refuses aliases, anchors, tags, keys that are not plain words, a second document, and whatever is too
large or too deep. Refuses to know what the keys mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

import yaml

from handfast.base.refusal import BadInput

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 16
MAX_NODES = MAX_BYTES // 4
"""JSON takes four bytes a value at least: no JSON that is small enough has too many."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_STRING = "tag:yaml.org,2002:str"
_SHOWN = 80
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: file, line (from 1), and key path such as ``hosts.api.example.org.routes[0].upstream``."""

    file: str
    line: int
    key: str = ""

    def error(self, message: str, *, hint: str = "") -> BadInput:
        """Make an error of this place."""
        return BadInput(message, hint=hint, file=self.file, line=self.line, key=self.key)

    def below(self, step: str, line: int) -> Place:
        """Give the place of a key or, as ``[0]``, of a list's item."""
        shown = step[:_SHOWN] if step.isprintable() else repr(step)[:_SHOWN]
        dot = "." if self.key and step and not step.startswith("[") else ""
        return Place(self.file, line, f"{self.key}{dot}{shown}")


@dataclass(frozen=True, slots=True)
class Text:
    """A single value: its text, and whether it stood without quotes."""

    place: Place
    text: str
    plain: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping. ``places`` are those of the keys."""

    place: Place
    nodes: Mapping[str, Node]
    places: Mapping[str, Place]

    def need(self, key: str, *, hint: str = "") -> Node:
        """Give what stands under a key.

        Raises:
            BadInput: nothing does.
        """
        if key not in self.nodes:
            raise self.place.below(key, self.place.line).error(f"{key!r} is missing", hint=hint)
        return self.nodes[key]


Node = Text | Items | Table


def parse_yaml(text: str, *, file: str = "") -> Node:
    """Read one YAML document of at most 1 MiB.

    Raises:
        BadInput: it is not YAML, or uses of YAML what is refused here; names file, line and key.
    """
    start = Place(file, 1)
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise Place(file, 0).error("it is larger than 1 MiB")
    try:
        return _Tree(yaml.parse(text, Loader=_LOADER), start).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise Place(file, line).error(f"this is not YAML: {error.problem}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise Place(file, 0).error(f"this is not YAML: {str(error).splitlines()[0][:200]}") from error


class _Tree:
    """Builds nodes from the parser's events. PyYAML's own composer recurses without bound and follows aliases."""

    def __init__(self, events: Iterator[yaml.Event], start: Place) -> None:
        self._events, self._start = events, start
        self._depth = self._count = 0

    def document(self) -> Node:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise self._start.error("there is nothing in it", hint="a world file has at least 'trust_domain: NAME'")
        first = next(self._events)
        node = self._node(first, self._start.below("", _line(first)))
        next(self._events)
        if not isinstance(after := next(self._events), yaml.StreamEndEvent):
            raise self._start.below("", _line(after)).error("a second document begins here", hint="remove the '---'")
        return node

    def _node(self, event: yaml.Event, place: Place) -> Node:
        _check_plain(event, place)
        self._count += 1
        if self._count > MAX_NODES:
            raise place.error(f"there are more than {MAX_NODES} values in it")
        if isinstance(event, yaml.ScalarEvent):
            return Text(place, event.value, _is_plain(event))
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise place.error(f"it is nested deeper than {MAX_DEPTH} levels")
        node = self._items(place) if isinstance(event, yaml.SequenceStartEvent) else self._table(place)
        self._depth -= 1
        return node

    def _items(self, place: Place) -> Items:
        nodes: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            nodes.append(self._node(event, place.below(f"[{len(nodes)}]", _line(event))))
        return Items(place, tuple(nodes))

    def _table(self, place: Place) -> Table:
        nodes: dict[str, Node] = {}
        places: dict[str, Place] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = _key(event, place)
            places[key] = place.below(key, _line(event))
            if key in nodes:
                raise places[key].error(
                    "the key is written twice", hint=f"it stands in line {nodes[key].place.line} too"
                )
            value = next(self._events)
            nodes[key] = self._node(value, place.below(key, _line(value)))
        return Table(place, nodes, places)


def _line(event: yaml.Event) -> int:
    assert event.start_mark
    return event.start_mark.line + 1


def _check_plain(event: yaml.Event, place: Place) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise place.error("an alias (*name) is not supported", hint="write the value out")
    if getattr(event, "anchor", None):
        raise place.error("an anchor (&name) is not supported", hint="remove it, and write each value out")
    if getattr(event, "tag", None):
        raise place.error("a tag (!name) is not supported", hint="remove it")


def _is_text(plain: str) -> bool:
    """Tell whether a value without quotes is a text, not a number, a boolean or a date, to readers of YAML 1.1."""
    tag = _RESOLVER.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]
    return bool(tag == _STRING)


def _is_plain(event: yaml.ScalarEvent) -> bool:
    return not event.style


def _key(event: yaml.Event, table: Place) -> str:
    place = table.below("", _line(event))
    _check_plain(event, place)
    if not isinstance(event, yaml.ScalarEvent):
        raise place.error("a key is a single word", hint="there may be a '{', '[' or '?' too many")
    shown = event.value[:_SHOWN]
    if _is_plain(event) and not _is_text(event.value):
        raise table.below(event.value, place.line).error(
            f"the key {shown!r} is not a text for every YAML reader", hint=f'put it in quotes: "{shown}"'
        )
    return str(event.value)


def table(node: Node, known: Collection[str], *, later: Mapping[str, str] | None = None) -> Table:
    """Take a node as a mapping of known keys; nothing at all is an empty one.

    ``later`` are keys that are refused by name, each with what to write instead.

    Raises:
        BadInput: it is no mapping, or has another key.
    """
    found = any_table(node)
    for key, place in found.places.items():
        if later and key in later:
            raise place.error(f"{key!r} is not yet supported", hint=later[key])
        if key not in known:
            raise place.error(f"{key[:_SHOWN]!r} is not a known key", hint=_did_you_mean(key, known))
    return found


def any_table(node: Node) -> Table:
    """Take a node as a mapping whose keys are names.

    Raises:
        BadInput: it is no mapping.
    """
    match node:
        case Table():
            return node
        case Text(text="" | "~" | "null", plain=True):
            return Table(node.place, {}, {})
        case _:
            raise node.place.error("a mapping ('key: value') is needed here")


def items(node: Node, *, most: int) -> tuple[Node, ...]:
    """Take a node as a list.

    Raises:
        BadInput: it is none, or longer than ``most``.
    """
    if not isinstance(node, Items):
        raise node.place.error("a list ('[a, b]') is needed here")
    if len(node.nodes) > most:
        raise node.place.error(f"there are {len(node.nodes)} in the list; {most} are the most")
    return node.nodes


def value(node: Node, read: Callable[[str], T]) -> T:
    """Read a single value, and give an error of ``read`` its place.

    Raises:
        BadInput: it is a list or a mapping, or ``read`` refuses it.
    """
    if not isinstance(node, Text):
        raise node.place.error("a single value is needed here")
    return placed(node.place, lambda: read(node.text))


def placed(place: Place, make: Callable[[], T]) -> T:
    """Make something, and give an error in it its place."""
    try:
        return make()
    except BadInput as error:
        raise error.at(file=place.file, line=place.line, key=place.key) from error


def distinct(nodes: Collection[Node], read: Callable[[Node], T]) -> tuple[T, ...]:
    """Read a list of which no two are the same.

    Raises:
        BadInput: two are.
    """
    found: dict[T, Node] = {}
    for node in nodes:
        one = read(node)
        if one in found:
            raise node.place.error("it is written twice", hint=f"it stands in line {found[one].place.line} too")
        found[one] = node
    return tuple(found)


def _did_you_mean(key: str, known: Collection[str]) -> str:
    close = get_close_matches(key[:_SHOWN], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
