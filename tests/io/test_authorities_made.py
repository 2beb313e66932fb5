from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import files
from handfast.io.authorities import create_authority
from tests.io.authority_parts import DOMAIN, PASSPHRASE
from tests.support.clock import FakeClock


@pytest.mark.usefixtures("authority")
def test_what_is_there_is_never_made_again(tmp_path: Path):
    """A second creation is refused, and changes nothing."""
    before = {path.name: path.read_bytes() for path in (tmp_path / "ca").iterdir()}
    with pytest.raises(BadInput, match="already"):
        create_authority(tmp_path / "ca", DOMAIN, FakeClock(), PASSPHRASE)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ca").iterdir()} == before


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "failed"])
def test_a_creation_that_ends_half_way_leaves_nothing_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, killed: bool
):
    """After each file: the directory is not there, and the next call clears what a killed process left."""
    write, written = files.write, []

    def failing(path: Path, data: bytes, mode: int = 0o644) -> None:
        if len(written) == step:
            raise KeyboardInterrupt
        write(path, data, mode)
        written.append(path)

    monkeypatch.setattr(files, "write", failing)
    if killed:
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ([".ca.new"] if killed else [])
    assert create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None).trust_domain == DOMAIN
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_a_process_killed_while_creating_leaves_a_whole_authority_or_none(tmp_path: Path):
    """A real kill, just before the rename."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from handfast.base.spiffe import TrustDomain\n"
        "from handfast.io import authorities, clock\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "authorities.create_authority(Path(sys.argv[1]), TrustDomain('example.org'), clock.SystemClock(), None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "ca")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".ca.new"]
    assert stat.S_IMODE((tmp_path / ".ca.new").stat().st_mode) == 0o700
    assert create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_two_processes_do_not_make_one_authority_together(tmp_path: Path):
    """Whoever comes second is told to try again."""
    holder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another process"):
            create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    finally:
        os.close(holder)
    assert create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)


def test_an_empty_directory_that_is_there_is_used(tmp_path: Path):
    """Whoever made it for us, with whatever mode, gets it filled and private."""
    (tmp_path / "ca").mkdir(0o755)
    create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700


def test_a_file_in_the_place_is_refused(tmp_path: Path):
    """The error names it, and nothing is left beside it."""
    (tmp_path / "ca").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        create_authority(tmp_path / "ca", DOMAIN, FakeClock(), None)
    assert caught.value.file == str(tmp_path / "ca")
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]
