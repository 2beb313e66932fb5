import os
from pathlib import Path

from handfast.app.agent.paths import LONGEST_SOCKET, AgentPaths


def test_sockets_lie_in_the_agents_directory(tmp_path: Path):
    """Where their paths are short enough."""
    paths = AgentPaths(tmp_path / "a")
    if len(str(paths.root / "run" / "session.sock")) <= LONGEST_SOCKET:
        assert paths.socket("ads") == tmp_path.resolve() / "a" / "run" / "ads.sock"


def test_a_deep_directory_gets_short_sockets(tmp_path: Path):
    """A socket's path has about 100 bytes at most; each directory has a place of its own, the same at each start."""
    deep, other = (AgentPaths(tmp_path / ("x" * 100) / name) for name in "ab")
    for paths in (deep, other):
        assert len(str(paths.socket("session"))) <= LONGEST_SOCKET
        assert str(os.getuid()) in paths.run.name
    assert deep.run != other.run
    assert deep.run == AgentPaths(deep.root).run


def test_files_have_names_of_their_own(tmp_path: Path):
    """No two things share a file, and all but the sockets lie below the root."""
    paths = AgentPaths(tmp_path)
    files = [
        paths.identity,
        paths.slice,
        paths.session_key,
        paths.access_log,
        paths.host("a.example.org"),
        paths.host("b.example.org"),
        paths.staple("a.example.org"),
        paths.staple("b.example.org"),
    ]
    assert len(set(files)) == len(files)
    assert all(file.is_relative_to(tmp_path) for file in files)
