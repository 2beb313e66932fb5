from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handfast.access import yaml_lines
from handfast.access.yaml_lines import MAX_BYTES, MAX_DEPTH, Items, Node, Place, Table, Text, parse_yaml
from handfast.base.refusal import BadInput


def plain(node: Node) -> object:
    """Give a node as the values that PyYAML's base loader gives: every single value is a text."""
    match node:
        case Text():
            return node.text
        case Items():
            return [plain(one) for one in node.nodes]
        case Table():
            return {key: plain(one) for key, one in node.nodes.items()}


words = st.text(alphabet="abcxyz -:#'\"*&!%@é{}[],\n", max_size=8)
keys = words.filter(lambda word: word.strip() and not word.isspace())
trees = st.recursive(
    words, lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(keys, below, max_size=3)), max_leaves=8
)


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_lines, "_LOADER", getattr(yaml, request.param))


def test_places_are_lines_and_key_paths():
    """Each node knows its line and key path, and a mapping knows those of its keys."""
    root = parse_yaml("hosts:\n  a.b:\n    routes:\n      - {path: /}\n", file="w.yaml")
    routes = root.nodes["hosts"].nodes["a.b"].nodes["routes"]
    assert routes.nodes[0].nodes["path"].place == Place("w.yaml", 4, "hosts.a.b.routes[0].path")
    assert root.nodes["hosts"].nodes["a.b"].places["routes"] == Place("w.yaml", 3, "hosts.a.b.routes")
    assert str(routes.place.error("no")) == "w.yaml:4: hosts.a.b.routes: no"


def test_values_stay_what_was_written():
    """No word becomes a boolean or a number, and quotes are remembered."""
    node = parse_yaml("[off, 'off', NO, 0x10, 1_000, 1.50, 2001-01-01, ~]")
    assert plain(node) == ["off", "off", "NO", "0x10", "1_000", "1.50", "2001-01-01", "~"]
    assert [one.plain for one in node.nodes[:2]] == [True, False]


@pytest.mark.usefixtures("_loader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("&a x", "anchor"), ("&a [x]", "anchor"), ("&a {}", "anchor"), ("[*a]", "alias"), ("{*a : b}", "alias"), ("{&a b: c}", "anchor"),
        ("!x y", "tag"), ("! y", "tag"), ("!!str y", "tag"), ("!!map {}", "tag"), ("{!!str a: b}", "tag"),
        ("%TAG ! tag:x,2000:\n---\n!y z", "tag"), ("!<tag:yaml.org,2002:str> y", "tag"),
        ("{1: a}", "not a text"), ("{yes: a}", "not a text"), ("{~: a}", "not a text"), ("{1.5: a}", "not a text"),
        ("{2001-01-01: a}", "not a text"), ("{<<: a}", "not a text"), ("?\n: a", "not a text"), ("{=: a}", "not a text"),
        ("{[a]: b}", "single word"), ("? {a: b}\n: c", "single word"),
        ("{a: b, a: b}", "twice"), ("{a: b, 'a': b}", "twice"), ("a\n---\nb", "second document"), ("a\n...\nb", "not YAML|second"),
        ("", "nothing"), ("# a", "nothing"), ("---\n...\n---\na", "second document"),
        ("[a", "not YAML"), ("a: b: c", "not YAML"), ("\ta", "not YAML"), ("\0", "not YAML"), ("\ud800", "not YAML"), ("%YAML 9.0\n---\na", "not YAML"),
        ("[" * 100, "deeper"), ("- " * 100 + "a", "deeper"), ("{a: " * 100, "deeper"), ("a" * (MAX_BYTES + 1), "1 MiB"), ("é" * MAX_BYTES, "1 MiB"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, message: str):
    """Both of PyYAML's parsers lead to the same refusal, and never to another error."""
    with pytest.raises(BadInput, match=message):
        parse_yaml(text)


@pytest.mark.usefixtures("_loader")
def test_the_bounds_are_reached():
    """What is just within the bounds is read."""
    assert isinstance(parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH), Items)
    assert parse_yaml("a" * MAX_BYTES).text == "a" * MAX_BYTES


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch):
    """The count of values is bounded, and not their size alone."""
    monkeypatch.setattr(yaml_lines, "MAX_NODES", 4)
    assert len(parse_yaml("[a, b, c]").nodes) == 3
    with pytest.raises(BadInput, match="more than 4"):
        parse_yaml("[a, b, c, d]")


def test_a_long_or_odd_key_is_shown_short():
    """A key that a stranger chose cannot fill an error, nor break its line."""
    with pytest.raises(BadInput) as caught:
        parse_yaml('{"' + "k" * 1000 + '": a, "x\\ny": &b c}')
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@given(trees)
def test_yaml_is_read_as_it_was_written(tree: object):
    """What PyYAML and JSON write is read back value by value."""
    assert plain(parse_yaml(yaml.safe_dump(tree, allow_unicode=True))) == tree
    assert plain(parse_yaml(json.dumps(tree))) == tree


@given(st.one_of(st.text(), st.text(alphabet="ab:-[]{},*&!#|>'\"%@? \n~<0")))
def test_any_text_is_read_or_refused(text: str):
    """Whatever the text is, there is a tree or a BadInput, and the tree is the one that PyYAML sees."""
    try:
        node = parse_yaml(text)
    except BadInput:
        return
    assert plain(node) == yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
