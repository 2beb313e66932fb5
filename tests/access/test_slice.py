from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.access.slice import Slice, document_of, make_slice, parse_slice
from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from tests.access import strategies as some

WORLD = parse_world("{trust_domain: example.org}")
SLICE = make_slice(revision=3, world=WORLD, roots=("r",), issuers=("i", "j"), crls=("c",), denied=("b", "a"))
texts = st.lists(st.text(max_size=20), max_size=3).map(tuple)


@st.composite
def slices(draw: st.DrawFn) -> Slice:
    """Slices as a server makes them, of worlds that a file can say."""
    world = parse_world(json.dumps(document(draw(some.worlds()))))
    return make_slice(
        revision=draw(st.integers(0, 2**40)),
        world=world,
        roots=draw(texts),
        issuers=draw(texts),
        crls=draw(texts),
        denied=draw(texts),
    )


def wire(slice_: Slice, **other: Any) -> bytes:
    return json.dumps(document_of(slice_) | other).encode()


@settings(max_examples=30)
@given(slices(), st.booleans())
def test_a_slice_comes_back_whole(slice_: Slice, held: bool):
    """What is written is read again as an equal slice, whether the slice before had the same world or not."""
    assert parse_slice(wire(slice_), before=slice_ if held else None) == slice_


@settings(max_examples=30)
@given(slices(), slices())
def test_the_slice_before_changes_nothing(old: Slice, new: Slice):
    """Read beside any other slice the result is the one that is written."""
    assert parse_slice(wire(new), before=old) == new


def test_an_equal_world_is_not_read_again():
    """Where only certificates changed, the world of the slice before is kept as it is."""
    newer = make_slice(revision=3, world=WORLD, roots=("other",), issuers=())
    assert parse_slice(wire(newer), before=SLICE).world is SLICE.world


@pytest.mark.parametrize(
    "change",
    [
        {"revision": 4},
        {"world": parse_world("{trust_domain: example.com}")},
        {"roots": ()},
        {"roots": ("r", "")},
        {"issuers": ("j", "i")},
        {"crls": ("c", "c")},
        {"denied": ("a",)},
    ],
)
def test_the_digest_names_all_content(change: dict[str, Any]):
    """Any other field makes another digest, and the old digest is not taken for it."""
    content = {one.name: getattr(SLICE, one.name) for one in fields(Slice) if one.name != "digest"}
    other = make_slice(**(content | change))
    assert other.digest != SLICE.digest
    with pytest.raises(BadInput, match="digest"):
        parse_slice(wire(replace(other, digest=SLICE.digest)))


def test_the_order_of_the_denied_means_nothing():
    """The deny list is a set, and is written sorted."""
    assert SLICE.denied == ("a", "b")
    again = make_slice(revision=3, world=WORLD, roots=("r",), issuers=("i", "j"), crls=("c",), denied=("a", "b"))
    assert again == SLICE


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"null", b"[]", b"{}", b'"slice"', b"\xff", b"1" * 5000, b"[" * 100_000, b'{"world":' * 50_000,
        wire(SLICE, revision="x"), wire(SLICE, revision=None), wire(SLICE, revision=float("inf")), wire(SLICE, revision=float("nan")),
        wire(SLICE, roots=None), wire(SLICE, roots="r"), wire(SLICE, roots=[1]), wire(SLICE, denied=[["a"]]), wire(SLICE, issuers={}),
        wire(SLICE, world=None), wire(SLICE, world={"trust_domain": "example.org", "hots": {}}), wire(SLICE, world=[]),
        wire(SLICE, digest=None), wire(SLICE, digest=""), wire(SLICE, digest=SLICE.digest[:-1]), wire(SLICE, revision=3.7),
    ],
)  # fmt: skip
def test_what_is_no_slice_is_refused(raw: bytes):
    """Damaged or foreign bytes are bad input, and nothing else is ever raised."""
    with pytest.raises(BadInput):
        parse_slice(raw)
    with pytest.raises(BadInput):
        parse_slice(raw, before=SLICE)


@pytest.mark.parametrize(
    "wrong", [{"revision": True}, {"revision": 3.0}, {"roots": (1,)}, {"issuers": ("i", None)}, {"denied": (("a",),)}]
)
def test_a_digest_that_is_right_makes_no_other_kind_of_value_right(wrong: dict[str, Any]):
    """Whoever wrote the file could count its digest as well."""
    content = {one.name: getattr(SLICE, one.name) for one in fields(Slice) if one.name != "digest"}
    raw = wire(make_slice(**(content | wrong)))
    with pytest.raises(BadInput, match="this is not a slice"):
        parse_slice(raw)


@pytest.mark.parametrize("lists", [{}, "", {"ca": 1}])
def test_the_lists_of_an_authority_are_a_list(lists: object):
    """What is empty is no list for that: none and an empty one are two things."""
    held = replace(SLICE, world=replace(WORLD, lists={"acme": ()}))
    assert document_of(held)["lists"] == {"acme": []}
    with pytest.raises(BadInput, match="this is not a slice"):
        parse_slice(wire(held, lists={"acme": lists}))


@given(st.binary(), st.integers(0, 400), st.integers(0, 40))
def test_damage_is_noticed(noise: bytes, at: int, length: int):
    """A slice with some octets exchanged is refused, or still says exactly the same."""
    raw = wire(SLICE)
    damaged = raw[:at] + noise + raw[at + length :]
    try:
        assert parse_slice(damaged) == SLICE
    except BadInput:
        assert damaged != raw


def test_a_world_is_still_a_world():
    """A slice cannot smuggle in what a world file could not say."""
    hosts = {
        "a.test": {"listen": 8443, "routes": [{"path": "/../x", "upstream": "http://127.0.0.1", "allow": "anyone"}]}
    }
    with pytest.raises(BadInput, match="normal path"):
        parse_slice(wire(SLICE, world={"trust_domain": "example.org", "hosts": hosts}))


def test_an_empty_world_has_a_slice():
    """The smallest slice is one."""
    slice_ = make_slice(revision=0, world=World(some.OWN), roots=(), issuers=())
    assert parse_slice(wire(slice_)) == slice_
    assert len(slice_.digest) == 32
