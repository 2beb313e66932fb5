import errno
import fcntl
import os
import socket
import stat
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.base.refusal import BadInput, Unavailable
from handfast.sdk import sockets
from handfast.sdk.sockets import Peer, bind_tcp, bind_unix, peer_credentials, read_ucred, read_xucred

numbers = st.integers(0, 2**32 - 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a short path to a socket that does not exist yet."""
    return tmp_path / "s"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


# TCP.


def test_tcp_listens_on_a_free_port():
    """Port 0 takes a free one; the socket does not block."""
    with bind_tcp("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not listener.getblocking()
        socket.create_connection(listener.getsockname()).close()


def test_taken_port_names_address_and_remedy():
    """The message has the address, the hint what to do."""
    with bind_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BadInput) as error:
            bind_tcp("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(error.value)
    assert "in use" in str(error.value)
    assert "stop it, or choose another port" in error.value.hint


def test_port_is_free_again_at_once():
    """A server that was stopped with connections open can be started again."""
    with bind_tcp("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(True)
        accepted, _ = listener.accept()
        port = listener.getsockname()[1]
        accepted.close()
    bind_tcp("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "port", "hint"),
    [
        ("203.0.113.7", 0, "0.0.0.0"),
        ("127.0.0.1", 70_000, "check the address"),
        ("127.0.0.1", -1, "check the address"),
        ("no such host", 0, "check the address"),
    ],
)
def test_address_that_cannot_be_had_is_named(host, port, hint):
    """Another machine's address, a port that is none and a name that is none are told as they were given."""
    with pytest.raises(BadInput) as error:
        bind_tcp(host, port)
    assert f"{host}:{port}" in str(error.value)
    assert hint in error.value.hint


def test_forbidden_port_names_the_capability(monkeypatch):
    """Whoever may not take a low port is told what that needs."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", forbidden)
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:443: Permission denied") as error:
        bind_tcp("127.0.0.1", 443)
    assert "CAP_NET_BIND_SERVICE" in error.value.hint


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_ipv6_address_is_taken_and_written_in_brackets():
    """An address with colons is IPv6, and its port is told apart from it."""
    with bind_tcp("::1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BadInput) as error:
            bind_tcp("::1", port)
    assert f"[::1]:{port}" in str(error.value)


# Unix.


def test_unix_socket_is_for_its_owner(path):
    """The file has mode 0600 whatever the umask says, and takes connections."""
    before = os.umask(0)
    try:
        listener = bind_unix(path)
    finally:
        os.umask(before)
    with listener.sock, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert not listener.sock.getblocking()
        client.connect(str(path))


def test_mode_is_right_before_anybody_can_connect(path, monkeypatch):
    """Nothing listens while the file may still be open to others."""
    seen = []

    def look(sock, backlog):
        seen.append(stat.S_IMODE(path.lstat().st_mode))
        socket.SocketType.listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", look)
    with bind_unix(path).sock:
        assert seen == [0o600]


def test_stale_socket_is_replaced(path):
    """A file that a dead process left behind is no obstacle."""
    bind_unix(path).sock.close()
    assert path.exists()
    with bind_unix(path).sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("backlog", [1, 0], ids=["idle", "full"])
def test_live_socket_is_left_alone(path, backlog):
    """Where somebody answers, or is too busy to, nothing is taken away."""
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(str(path))
        live.listen(backlog)
        if not backlog:
            client.connect(str(path))
        inode = path.stat().st_ino
        with pytest.raises(BadInput, match="taken") as error:
            bind_unix(path)
        assert str(path) in str(error.value)
        assert "stop it" in error.value.hint
        assert path.stat().st_ino == inode


def test_what_is_no_socket_is_left_alone(path, tmp_path):
    """A file, a directory or a link is not ours to remove."""
    (tmp_path / "file").write_text("kept")
    path.symlink_to(tmp_path / "file")
    for one in (path, tmp_path / "file", tmp_path):
        with pytest.raises(BadInput, match="is no socket"):
            bind_unix(one)
    assert path.read_text() == "kept"


@pytest.mark.parametrize("name", ["x" * 200, "x" * 300, "missing/s", "a\0b"], ids=["long", "longer", "nowhere", "nul"])
def test_path_that_cannot_be_used_is_told(name, tmp_path):
    """The message names the path, the hint the rules; nothing is left behind."""
    with pytest.raises(BadInput) as error:
        bind_unix(tmp_path / name)
    assert name in str(error.value)
    assert "about 100 bytes" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_start_at_once_one_wins(path):
    """Both find a stale socket, and only one replaces it."""
    for _ in range(20):
        bind_unix(path).sock.close()
        both = threading.Barrier(2)

        def start(both: threading.Barrier = both):
            both.wait(5)
            try:
                return bind_unix(path)
            except BadInput:
                return None

        with ThreadPoolExecutor(2) as pool:
            outcomes = [one.result() for one in [pool.submit(start) for _ in range(2)]]
        (winner,) = [one for one in outcomes if one]
        with winner.sock, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_locked_directory_is_waited_for_and_then_unavailable(path, monkeypatch):
    """Somebody who keeps the lock does not keep us for ever."""
    monkeypatch.setattr(sockets, "_LOCK_S", 0.05)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="locked"):
            bind_unix(path)
    finally:
        os.close(handle)
    bind_unix(path).sock.close()


def test_remove_takes_its_own_file_only(path):
    """A socket that somebody else has put in the same place stays."""
    first = bind_unix(path)
    path.unlink()
    second = bind_unix(path)
    with first.sock, second.sock:
        first.remove()
        assert path.exists()
        second.remove()
        second.remove()
        assert not path.exists()


# Who connects.


def test_the_kernel_tells_who_connects(path):
    """The other end of a connection is this process, by all three numbers."""
    with bind_unix(path).sock as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        accepted, _ = listener.accept()
        with accepted:
            assert peer_credentials(accepted) == Peer(os.getuid(), os.getgid(), os.getpid())


def test_a_socket_without_credentials_is_unavailable():
    """What the kernel does not say is not guessed."""
    closed = socket.socket(socket.AF_UNIX)
    closed.close()
    with pytest.raises(Unavailable, match="does not tell"):
        peer_credentials(closed)


def test_another_system_is_unavailable(monkeypatch, path):
    """Where there is no way to ask, nobody gets in and nothing listens."""
    monkeypatch.setattr("sys.platform", "plan9")
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(Unavailable):
        peer_credentials(sock)
    with pytest.raises(BadInput, match="does not tell who connects"):
        bind_unix(path)


@given(pid=st.integers(0, 2**31 - 1), uid=numbers, gid=numbers)
def test_reads_what_linux_tells(pid, uid, gid):
    """The kernel's order is pid, uid, gid (unix(7))."""
    assert read_ucred(struct.pack("=iII", pid, uid, gid)) == Peer(uid, gid, pid)


@given(uid=numbers, groups=st.lists(numbers, min_size=1, max_size=16), pid=st.integers(0, 2**31 - 1))
def test_reads_what_macos_tells(uid, groups, pid):
    """The first of the groups counts, and the pid is told apart (<sys/ucred.h>)."""
    data = struct.pack("=IIhxx16I", 0, uid, len(groups), *groups, *[0] * (16 - len(groups)))
    assert read_xucred(data, pid) == Peer(uid, groups[0], pid)


@given(data=st.binary(max_size=100).filter(lambda data: len(data) not in {12, 76}))
def test_credentials_of_another_size_are_unavailable(data):
    """A form that we do not know is nobody."""
    with pytest.raises(Unavailable):
        read_ucred(data)
    with pytest.raises(Unavailable):
        read_xucred(data, 1)


@pytest.mark.parametrize(("version", "count"), [(1, 1), (0, 0), (0, -1)])
def test_credentials_of_another_version_are_unavailable(version, count):
    """Neither another version nor a list without groups names anybody."""
    with pytest.raises(Unavailable):
        read_xucred(struct.pack("=IIhxx16I", version, 501, count, *[20] * 16), 1)
