"""A damaged world file is a world, or BadInput that says where; never anything else."""

import json
from functools import partial
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from tests.support.mutations import grown, many, mutants

SEEDS = [file.read_bytes() for file in sorted(Path(__file__).parents[1].glob("vectors/in/worlds/good-*.yaml"))]
COUNT = 60
KEPT_BYTES = 256 * 1024


def tried(data: bytes) -> World | BadInput:
    """Read a world as the API does, once it has seen that it is UTF-8."""
    try:
        return parse_world(data.decode("utf-8", "replace"), file="world.yaml")
    except BadInput as error:
        return error


def test_the_seeds_are_worlds():
    """What is damaged here is whole before."""
    assert SEEDS
    assert all(isinstance(tried(seed), World) for seed in SEEDS)


@given(mutants(SEEDS))
@settings(max_examples=100)
def test_a_damaged_world_is_a_world_or_bad_input(data: bytes):
    """What is still a world can be written down and read again; what is none names the file."""
    outcome = tried(data)
    if isinstance(outcome, BadInput):
        assert outcome.file == "world.yaml"
        assert outcome.message
    else:
        assert parse_world(json.dumps(document(outcome))) == outcome


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_noise_is_bad_input(data: bytes):
    """No text without a trust domain is a world."""
    assert isinstance(tried(data), BadInput)


def test_nothing_is_kept():
    """A second time over many damaged worlds leaves no more behind than the first."""
    assert grown(tried, partial(many, SEEDS, COUNT)) < KEPT_BYTES
