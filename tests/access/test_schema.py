from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given

from handfast.access.policy import CertificateMode, IdentityField, Open, RouteMode
from handfast.access.schema import schema
from handfast.access.world import World
from handfast.access.world_file import document, parse_world
from handfast.base.refusal import BadInput
from handfast.trust.facts import pem
from tests.access import strategies as some

ROOT = Path(__file__).parent.parent.parent
WORLDS = ROOT / "tests" / "vectors" / "in" / "worlds"
PUBLISHED = ROOT / "docs" / "reference" / "world.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(schema())
# What one value alone does not show: that two keys contradict each other, or what the text of the YAML was.
BEYOND = {
    "bad-alias", "bad-anchor", "bad-tag", "bad-merge-key", "bad-duplicate-key", "bad-second-document", "bad-not-yaml", "bad-nothing",
    "bad-duplicate-path", "bad-certificate-off", "bad-session-off", "bad-session-keys-path", "bad-listen-clash", "bad-other-authority",
    "bad-open-in-list", "bad-open-workload", "bad-reserved-workload", "bad-ttl", "bad-twice-header", "bad-number-key", "bad-roots-file",
}  # fmt: skip


def test_the_published_schema_is_this_one():
    """The file for editors is what the code gives, byte for byte."""
    assert PUBLISHED.read_text() == json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def test_the_schema_is_a_schema():
    """It is valid JSON Schema 2020-12, and describes each property."""
    jsonschema.Draft202012Validator.check_schema(schema())

    def described(part: object) -> None:
        if isinstance(part, dict):
            for one in part.get("properties", {}).values():
                assert one["description"]
            for one in part.values():
                described(one)

    described(schema())


@pytest.mark.parametrize("path", sorted(WORLDS.glob("good-*.yaml")), ids=lambda path: path.stem)
def test_good_worlds_please_the_editor(path: Path):
    """What the parser takes, the schema takes."""
    assert not list(VALIDATOR.iter_errors(yaml.safe_load(path.read_text())))


@given(some.worlds())
def test_canonical_forms_please_the_editor(world: World):
    """Whatever a world says, its canonical form is valid."""
    assert not list(VALIDATOR.iter_errors(document(world)))


@pytest.mark.parametrize("path", sorted(WORLDS.glob("bad-*.yaml")), ids=lambda path: path.stem)
def test_bad_worlds_are_underlined(path: Path):
    """What the parser refuses, the schema refuses too, but for what no schema can say."""
    if path.stem not in BEYOND:
        assert list(VALIDATOR.iter_errors(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize(
    "text", ["", "crl", "crl_pem", "ocsp", "crl ocsp", "crl_pem ocsp", "crl crl_pem", "crl crl_pem ocsp"]
)
def test_ways_of_revocation_are_those_that_the_parser_takes(text: str):
    """One kind of list, a responder, or both; not two lists, and not nothing."""
    ways = {"crl": "http://a.test/b", "crl_pem": pem(b"x", "X509 CRL"), "ocsp": "http://a.test"}
    plain = yaml.safe_load((WORLDS / "good-partners.yaml").read_text())
    plain["authorities"]["acme-partner"]["revocation"] = {way: ways[way] for way in text.split()}
    taken = text not in {"", "crl crl_pem", "crl crl_pem ocsp"}
    assert taken == (not list(VALIDATOR.iter_errors(plain)))
    with nullcontext() if taken else pytest.raises(BadInput):
        parse_world(json.dumps(plain))


def test_examples_are_valid():
    """Each example in the schema is one of what it is an example of."""
    checked = 0

    def check(part: object) -> None:
        nonlocal checked
        if isinstance(part, dict):
            for example in part.get("examples", ()):
                jsonschema.Draft202012Validator({**part, "$defs": schema()["$defs"]}).validate(example)
                checked += 1
            for one in part.values():
                check(one)
        if isinstance(part, list):
            for one in part:
                check(one)

    check(schema())
    assert checked > 20


def test_words_are_offered():
    """Editors complete the words of each enumeration."""
    text = json.dumps(schema())
    for kind in (CertificateMode, IdentityField, Open, RouteMode):
        assert all(f'"{word}"' in text for word in kind)
