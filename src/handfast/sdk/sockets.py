"""Sockets to listen on, and who is at the other end of a Unix one.

Decides what to do with an address that is taken and a socket file that was left behind. Refuses to know what is spoken on it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from handfast.base.refusal import BadInput, Unavailable

BACKLOG = 2048

_LOCK_S = 2.0
_UCRED = struct.Struct("=iII")  # pid, uid, gid: unix(7)
_XUCRED = struct.Struct("=IIhxx16I")  # version, uid, number of groups, groups: <sys/ucred.h> of XNU
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 0x001, 0x002

_HINTS = {
    errno.EADDRINUSE: "something else listens there (`ss -ltnp` or `lsof -i` names it): stop it, or choose another port",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one, or grant it",
    errno.EADDRNOTAVAIL: "this machine has no such address: use one of its own, or 0.0.0.0 for all",
}


class Peer(NamedTuple):
    """The process at the other end of a Unix socket, as the kernel saw it connect. ``pid`` is 0 where it is hidden."""

    uid: int
    gid: int
    pid: int


def place_of(host: str, port: int) -> str:
    """Write an address and a port as in a URL (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP address; port 0 takes any free one. ``::`` takes IPv4 as well.

    Raises:
        BadInput: the address cannot be had. The message names it, the hint says what to do.
    """
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = place_of(host, port)
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        code = getattr(error, "errno", None) or 0
        raise BadInput(
            f"cannot listen on {place}: {_words(error)}", hint=_HINTS.get(code, "check the address")
        ) from None
    listener.setblocking(False)
    return listener


class UnixListener(NamedTuple):
    """A listening Unix socket and the file that it made."""

    sock: socket.socket
    path: Path
    inode: tuple[int, int]

    def remove(self) -> None:
        """Take the file away, unless it is somebody else's by now. Comes before closing, which sets the inode free."""
        with suppress(OSError):
            if _inode(self.path) == self.inode:
                self.path.unlink()


def bind_unix(path: Path) -> UnixListener:
    """Listen on a Unix socket that its owner alone may open (mode 0600). A file that nobody answers on is replaced.

    May wait up to two seconds for another process that opens a socket in the same directory.

    Raises:
        BadInput: something answers there, the file is no socket, or it cannot be made.
        Unavailable: the directory stays locked.
    """
    if sys.platform not in {"linux", "darwin"}:
        raise BadInput(f"{path}: this system does not tell who connects to a Unix socket", hint="use TCP and TLS")
    try:
        with _locked(path.parent):
            _clear(path)
            return _listen(path)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot listen on {path}: {_words(error)}",
            hint="the directory must exist and be ours to write; a socket's path has about 100 bytes at most",
        ) from None


def _listen(path: Path) -> UnixListener:
    """Bind, close to others, and only then listen: no connection is taken before the mode is right."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        return UnixListener(listener, path, _inode(path))
    except OSError:
        listener.close()
        raise


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadInput(f"{path} exists and is no socket", hint="choose another path, or remove it")
    if _answers(path):
        raise BadInput(f"{path} is taken", hint="something answers on it: stop it, or choose another path")
    path.unlink()


def _answers(path: Path) -> bool:
    """Tell whether somebody listens. Anything but a plain "nobody" counts as yes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) not in {errno.ECONNREFUSED, errno.ENOENT}


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep others of our kind out, so that two who start at once cannot both find a stale socket."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, directory)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, directory: Path) -> None:
    until = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Unavailable(f"{directory} is locked", hint="another process opens a socket there") from None
            time.sleep(0.01)
        else:
            return


def _inode(path: Path) -> tuple[int, int]:
    seen = path.lstat()
    return seen.st_dev, seen.st_ino


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def peer_credentials(sock: socket.socket) -> Peer:
    """Ask the kernel who connected.

    Raises:
        Unavailable: it does not say. Nobody may be let in then.
    """
    try:
        if sys.platform == "linux":
            return read_ucred(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if sys.platform == "darwin":
            credentials = sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED.size)
            return read_xucred(credentials, sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID))
    except OSError as error:
        raise Unavailable(f"the kernel does not tell the peer's credentials: {_words(error)}") from None
    raise Unavailable("this system does not tell a peer's credentials")


def read_ucred(data: bytes) -> Peer:
    """Read Linux's ``struct ucred``.

    Raises:
        Unavailable: it is none.
    """
    if len(data) != _UCRED.size:
        raise Unavailable("the peer's credentials have an unknown form")
    pid, uid, gid = _UCRED.unpack(data)
    return Peer(uid, gid, pid)


def read_xucred(data: bytes, pid: int) -> Peer:
    """Read the ``struct xucred`` of macOS; the first group is the effective one.

    Raises:
        Unavailable: it is none, of another version, or without a group.
    """
    if len(data) != _XUCRED.size:
        raise Unavailable("the peer's credentials have an unknown form")
    version, uid, count, gid, *_ = _XUCRED.unpack(data)
    if version != 0 or count < 1:
        raise Unavailable("the peer's credentials have an unknown form")
    return Peer(uid, gid, pid)
