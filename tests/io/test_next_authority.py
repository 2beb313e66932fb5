"""An issuing CA that waits for a rotation."""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import next_authority
from handfast.io.authority_files import read_certificate
from handfast.io.authority_sources import Place, generate, prepare
from handfast.io.ca_certificates import DEFAULT
from handfast.io.signers import KeyKind

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ISSUING = {"issuing.pem", "issuing-key.pem", "ocsp.pem", "ocsp-key.pem"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(data=tmp_path / "data", trust_domain=TrustDomain("example.org"))
    generate(made, DEFAULT, KeyKind.P256, NOW)
    return made


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    (tmp_path / "stage").mkdir()
    return tmp_path / "stage"


def test_where_none_waits_there_is_none(place: Place):
    """And removing it does nothing."""
    assert not next_authority.waits(place.authority)
    assert next_authority.waiting_root(place.authority) is None
    next_authority.taken(place.authority, place.authority)


def test_one_below_a_known_root_is_taken_without_it(place: Place, stage: Path):
    """The root is in its own directory already; keys stay private, and it waits until the copy is whole."""
    prepare(place, DEFAULT, NOW)
    root = read_certificate(place.authority / "root.pem")
    assert next_authority.waiting_root(place.authority) == root
    next_authority.take(place.authority, stage, root)
    assert {path.name for path in stage.iterdir()} == ISSUING
    assert {stat.S_IMODE(path.stat().st_mode) for path in stage.glob("*-key.pem")} == {0o600}
    assert next_authority.waits(place.authority)
    next_authority.taken(place.authority, stage)
    assert not next_authority.waits(place.authority)


def test_one_below_a_new_root_is_taken_with_it(place: Place, stage: Path):
    """Its key and its list too; below another root it is refused."""
    prepare(place, DEFAULT, NOW, KeyKind.P256)
    with pytest.raises(BadInput, match="of another root") as caught:
        next_authority.take(place.authority, stage, read_certificate(place.authority / "root.pem"))
    assert "--root" in caught.value.hint
    assert not list(stage.iterdir())
    next_authority.take(place.authority, stage)
    assert {path.name for path in stage.iterdir()} == {*ISSUING, "root.pem", "root-key.pem", "root.crl.pem"}


@pytest.mark.parametrize("steps", range(8))
def test_removing_it_goes_on_after_a_crash(
    place: Place, stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
):
    """Wherever it broke off: then nothing waits any more, and no copy of a key stays behind."""
    prepare(place, DEFAULT, NOW)
    next_authority.take(place.authority, stage, read_certificate(place.authority / "root.pem"))
    with monkeypatch.context() as faults:
        left = iter(range(steps))

        def once_more(work: Any) -> Any:
            def run(*args: Any, **more: Any) -> Any:
                if next(left, None) is None:
                    raise OSError("the power went off")
                return work(*args, **more)

            return run

        for name in ("unlink", "rmdir", "rename"):
            faults.setattr(os, name, once_more(getattr(os, name)))
        with contextlib.suppress(Unavailable, BadInput, OSError):
            next_authority.taken(place.authority, stage)
    next_authority.taken(place.authority, stage)
    assert not next_authority.waits(place.authority)
    held = {path.parent for path in tmp_path.rglob("issuing-key.pem")}
    assert held == {place.authority, stage}


def test_what_waits_is_not_removed_for_another(place: Place, stage: Path):
    """A generation that was made otherwise leaves it alone."""
    prepare(place, DEFAULT, NOW)
    next_authority.taken(place.authority, place.authority)
    assert next_authority.waits(place.authority)


def test_a_spoilt_root_is_named(place: Place):
    """And nothing is guessed of what waits."""
    prepare(place, DEFAULT, NOW)
    (place.authority / "signed" / "root.pem").write_text("nothing")
    with pytest.raises(BadInput) as caught:
        next_authority.waiting_root(place.authority)
    assert caught.value.file.endswith("root.pem")
