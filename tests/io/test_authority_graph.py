from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.authority_graph import graph
from handfast.trust.facts import facts
from tests.support.clock import FakeClock

DOMAIN = TrustDomain("example.org")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    return tmp_path / "ca"


def test_a_root_is_followed_by_its_issuing_ca(directory: Path):
    """With what their certificates say."""
    made = create_authority(directory.parent / "other", DOMAIN, FakeClock(), None)
    root, issuing = graph(directory.parent / "other")
    assert (root.kind, issuing.kind) == ("root", "issuing")
    assert root.fingerprint == issuing.issuer == facts(made.root_der).fingerprint
    assert issuing.fingerprint == facts(made.issuing_der).fingerprint
    assert (issuing.not_before, issuing.not_after) == (
        made.issuer_facts.window.not_before,
        made.issuer_facts.window.not_after,
    )


def test_it_is_shown_without_the_roots_key(directory: Path):
    """Which may lie in a safe."""
    (directory / "root-key.pem").unlink()
    assert [node.key_place for node in graph(directory)] == ["missing", "open"]


@pytest.mark.parametrize("damage", ["empty", "missing", "foreign"])
def test_a_file_that_is_wrong_is_named(directory: Path, damage: str):
    """Something is wrong then, and showing half of it would hide that."""
    root = directory / "root.pem"
    if damage == "empty":
        root.write_bytes(b"")
    elif damage == "missing":
        root.unlink()
    else:
        create_authority(directory.parent / "other", TrustDomain("example.com"), FakeClock(), None)
        shutil.copy(directory.parent / "other" / "root.pem", root)
    with pytest.raises(BadInput) as caught:
        graph(directory)
    assert Path(caught.value.file).parent == directory


def test_where_there_is_none_it_says_how_to_make_one(tmp_path: Path):
    """An empty place is no fault."""
    with pytest.raises(BadInput, match="no authority here") as caught:
        graph(tmp_path)
    assert "handfast ca init" in caught.value.hint
