from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.io import files

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest, tmp_path: Path):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_file_has_its_mode_whatever_the_umask_is(tmp_path: Path):
    """A secret is its owner's alone, and a public file is not hidden by accident."""
    files.write_secret(tmp_path / "key", b"k")
    files.write_secret(tmp_path / "group", b"k", 0o640)
    files.write(tmp_path / "cert", b"c")
    assert [mode(tmp_path / name) for name in ("key", "group", "cert")] == [0o600, 0o640, 0o644]


@pytest.mark.parametrize("bits", [0o604, 0o602, 0o601, 0o644])
def test_a_secret_that_everybody_could_read_is_not_written(tmp_path: Path, bits: int):
    """A mode that lets all in is refused before anything is there."""
    with pytest.raises(BadInput, match="is none"):
        files.write_secret(tmp_path / "key", b"k", bits)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_never_readable_by_others_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file is its owner's from its first moment on, not from chmod on."""
    seen: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen.append(stat.S_IMODE(os.fstat(handle).st_mode)), fsync(handle))
    )
    chmod = os.fchmod

    def fchmod(handle: int, wanted: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(handle).st_mode))
        chmod(handle, wanted)

    monkeypatch.setattr(os, "fchmod", fchmod)
    before = os.umask(0)
    try:
        files.write_secret(tmp_path / "key", b"k")
    finally:
        os.umask(before)
    assert seen[:2] == [0o600, 0o600]


def test_writing_replaces_the_whole_file(tmp_path: Path):
    """The new content and mode are there, nothing of the old, and nothing beside."""
    path = tmp_path / "key"
    path.write_bytes(b"long old content")
    path.chmod(0o666)
    files.write_secret(path, b"new")
    assert (path.read_bytes(), mode(path), [p.name for p in tmp_path.iterdir()]) == (b"new", 0o600, ["key"])


def test_a_link_in_the_place_is_replaced_and_not_followed(tmp_path: Path):
    """Nobody redirects a secret by leaving a link."""
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    (tmp_path / "key").symlink_to(target)
    files.write_secret(tmp_path / "key", b"new")
    assert target.read_bytes() == b"untouched"
    assert not (tmp_path / "key").is_symlink()


@pytest.mark.parametrize("step", ["fsync", "write", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """A full disk costs the new content, never the old."""
    path = tmp_path / "key"
    files.write_secret(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(Unavailable, match="No space"):
        files.write_secret(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_file_lasts_once_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its content is on the disk before its name is, and its name before the call returns: else a crash could bring the old one back."""
    steps, fsync, replace = list[str](), os.fsync, Path.replace

    def sync(handle: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    def rename(path: Path, target: Path) -> Path:
        steps.append("name")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    files.write(tmp_path / "key", b"k")
    assert steps == ["content", "name", "directory"]


def test_a_link_that_lies_where_the_new_file_is_begun_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where somebody guessed the name: what it leads to stays as it was."""
    other = tmp_path / "other"
    other.write_bytes(b"untouched")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".key.guessed.tmp").symlink_to(other)
    with pytest.raises(BadInput, match="cannot be written"):
        files.write_secret(tmp_path / "key", b"k")
    assert (other.read_bytes(), (tmp_path / "key").exists()) == (b"untouched", False)


@pytest.mark.parametrize(("owner", "fine"), [(1000, True), (0, True), (1001, False)])
def test_a_secret_is_ours_or_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, fine: bool):
    """Root may read and write all files anyway; anybody else who owns one can change it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    seen = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, owner, 0, 1, 0, 0, 0))
    with nullcontext() if fine else pytest.raises(BadInput, match="belongs to another user"):
        files._check_secret(tmp_path / "key", seen)


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path):
    """However often it is written, no half of it is ever read."""
    path, contents = tmp_path / "file", [bytes([n]) * 20_000 for n in range(4)]
    files.write(path, contents[0])
    done = threading.Event()
    wrong: list[bytes] = []

    def watch() -> None:
        while not done.is_set():
            data = path.read_bytes()
            if data not in contents:
                wrong.append(data)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for n in range(100):
        files.write(path, contents[n % 4])
    done.set()
    watcher.join()
    assert wrong == []


def test_a_process_that_is_killed_while_writing_leaves_a_whole_file(tmp_path: Path):
    """Killed at any moment, the file holds one content, all of it."""
    path = tmp_path / "file"
    files.write(path, b"0" * 50_000)
    code = (
        "import sys, itertools; from pathlib import Path; from handfast.io import files\n"
        "print('ready', flush=True)\n"
        "for n in itertools.count(): files.write(Path(sys.argv[1]), str(n % 10).encode() * 50_000)\n"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.03)
        writer.kill()
        writer.communicate()
        data = path.read_bytes()
        assert data == data[:1] * 50_000


def test_a_place_that_is_not_there_is_bad_input(tmp_path: Path):
    """The error names the file, and is ours."""
    with pytest.raises(BadInput) as caught:
        files.write(tmp_path / "missing" / "file", b"")
    assert str(tmp_path / "missing" / "file") in str(caught.value)


# --- reading


def test_a_secret_reads_back(tmp_path: Path):
    """What its owner wrote, its owner reads, through a link too."""
    files.write_secret(tmp_path / "key", b"\x00secret\n")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert files.read_secret(tmp_path / "key") == files.read_secret(tmp_path / "link") == b"\x00secret\n"


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_secret_that_others_can_reach_is_refused_with_the_remedy(tmp_path: Path, bits: int):
    """Group or others, reading or writing: the hint is the command that helps."""
    path = tmp_path / "my key"
    path.write_bytes(b"k")
    path.chmod(bits)
    with pytest.raises(BadInput, match="others can read") as caught:
        files.read_secret(path)
    assert f"chmod 600 '{path}'" in caught.value.hint
    with pytest.raises(BadInput):
        files.check_secret(path)
    path.chmod(0o600)
    files.check_secret(path)
    assert files.read_secret(path) == b"k"


@ROOT_ONLY
def test_a_secret_of_another_user_is_refused(tmp_path: Path):
    """Its owner could change it under us."""
    files.write_secret(tmp_path / "key", b"k")
    os.chown(tmp_path / "key", 12345, -1)
    with pytest.raises(BadInput, match="another user"):
        files.read_secret(tmp_path / "key")


def test_a_secret_that_is_too_large_is_refused(tmp_path: Path):
    """The bound itself is within, one octet more is not."""
    files.write_secret(tmp_path / "key", bytes(101))
    assert len(files.read_secret(tmp_path / "key", 101)) == 101
    with pytest.raises(BadInput, match="larger than 100"):
        files.read_secret(tmp_path / "key", 100)


def test_what_is_not_a_plain_file_is_refused_at_once(tmp_path: Path):
    """A pipe in its place holds nobody up."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(BadInput):
            files.read_secret(tmp_path / name)


def test_a_secret_that_is_not_there_is_bad_input_for_a_reader_and_fine_for_a_check(tmp_path: Path):
    """A key that is kept elsewhere has no mode that could be wrong."""
    with pytest.raises(BadInput, match="No such file"):
        files.read_secret(tmp_path / "key")
    files.check_secret(tmp_path / "key")


def test_a_plain_file_may_be_anybodys(tmp_path: Path):
    """Certificates are public; their size is bounded all the same."""
    files.write(tmp_path / "cert", b"c" * 10)
    assert files.read(tmp_path / "cert") == b"c" * 10
    with pytest.raises(BadInput, match="larger"):
        files.read(tmp_path / "cert", 9)


# --- directories


@pytest.mark.usefixtures("umask")
def test_a_private_directory_is_made_for_its_owner_alone(tmp_path: Path):
    """0700 even where the umask would give more, and found as it is the second time."""
    path = tmp_path / "private"
    assert files.private_directory(path) == path
    assert mode(path) == 0o700
    assert files.private_directory(path) == path
    assert mode(path) == 0o700


def test_a_private_directory_is_never_open_while_it_is_made(tmp_path: Path):
    """No umask makes it readable for a moment."""
    before = os.umask(0)
    try:
        assert mode(files.private_directory(tmp_path / "a" / "b")) == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o701, 0o770])
def test_a_directory_that_others_look_into_is_refused_with_the_remedy(tmp_path: Path, bits: int):
    """It is not changed: somebody may rely on it."""
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(bits)
    with pytest.raises(BadInput) as caught:
        files.private_directory(path)
    assert caught.value.hint == f"chmod 700 {path}"
    assert mode(path) == bits


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path):
    """The error says what it is."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="not a directory"):
        files.private_directory(tmp_path / "file")


def test_a_directory_is_never_open_while_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever opened it in that moment could look into it for ever."""
    seen, chmod = list[int](), Path.chmod

    def late(path: Path, wanted: int) -> None:
        seen.append(mode(path))
        chmod(path, wanted)

    monkeypatch.setattr(Path, "chmod", late)
    before = os.umask(0)
    try:
        files.private_directory(tmp_path / "private")
    finally:
        os.umask(before)
    assert seen == [0o700]


@ROOT_ONLY
def test_a_directory_of_another_user_is_refused(tmp_path: Path):
    """Its owner could exchange what is in it."""
    path = files.private_directory(tmp_path / "theirs")
    os.chown(path, 12345, -1)
    with pytest.raises(BadInput, match="another user"):
        files.private_directory(path)
