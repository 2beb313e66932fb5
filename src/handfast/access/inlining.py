"""The files that a world file names beside itself, and how their text gets into it.

Decides where such a name stands, and what stands there afterwards: the same document with ``roots_pem`` for ``roots`` and
``crl_pem`` for ``crl``, all else as it was written, every line where it was. Refuses to read the files, and to judge the world.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import yaml

KEYS = {"roots": "roots_pem", "crl": "crl_pem"}


@dataclass(frozen=True, slots=True)
class FileName:
    """A file that the text names: under which key, in which line, and from where to where in the text that stands."""

    key: str
    name: str
    line: int
    start: int
    end: int


def file_names(text: str) -> tuple[FileName, ...]:
    """Give the files that a world file names, in the order of the text. What is no world file names none."""
    if "authorities" not in text:
        return ()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return ()  # `parse_world` says what is wrong with it
    authorities = _below(root, "authorities")
    each = [node for _, node in authorities.value] if isinstance(authorities, yaml.MappingNode) else []
    found = [*_named(each, "roots"), *_named([_below(one, "revocation") for one in each], "crl")]
    return tuple(sorted(found, key=lambda one: one.start))


def inlined(text: str, read: Callable[[FileName], str]) -> str:
    """Put what ``read`` gives, PEM, in the place of each file's name."""
    for one in reversed(file_names(text)):
        # JSON's texts are YAML's, in a block and within braces alike.
        text = f"{text[: one.start]}{KEYS[one.key]}: {json.dumps(read(one))}{text[one.end :]}"
    return text


def _named(nodes: list[yaml.Node | None], key: str) -> Iterator[FileName]:
    for node in nodes:
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if name.value == key and isinstance(value, yaml.ScalarNode) and "://" not in value.value:
                yield FileName(key, value.value, name.start_mark.line + 1, name.start_mark.index, value.end_mark.index)


def _below(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)
