from pathlib import Path

import pytest

from tests.support.golden import Goldens


def test_a_text_that_changed_fails(tmp_path: Path):
    """What is kept is what is compared, and a missing file is a failure too."""
    Goldens(tmp_path, rewrite=True).check("envoy/rows", "a.txt", "one\n")
    kept = Goldens(tmp_path)
    kept.check("envoy/rows", "a.txt", "one\n")
    for name, text in (("a.txt", "two\n"), ("b.txt", "one\n")):
        with pytest.raises(pytest.fail.Exception):
            kept.check("envoy/rows", name, text)


def test_rewriting_deletes_what_no_test_asked_for(tmp_path: Path):
    """Files of modules that ran or are gone are deleted where nobody asked for them; those of other modules stay."""
    tests = tmp_path / "tests"
    (tests / "envoy").mkdir(parents=True)
    for module in ("ran", "did_not_run"):
        (tests / "envoy" / f"test_{module}.py").touch()
    before = Goldens(tmp_path / "out", rewrite=True)
    for group in ("envoy/ran", "envoy/did_not_run", "envoy/gone"):
        before.check(group, "old.txt", "old\n")
    goldens = Goldens(tmp_path / "out", rewrite=True)
    goldens.check("envoy/ran", "new.txt", "new\n")
    deleted = goldens.delete_stale({"envoy/ran"}, tests)
    assert [str(path.relative_to(tmp_path / "out")) for path in deleted] == ["envoy/gone/old.txt", "envoy/ran/old.txt"]
    assert (tmp_path / "out/envoy/ran/new.txt").read_text() == "new\n"
    assert (tmp_path / "out/envoy/did_not_run/old.txt").exists()
