import asyncio
import contextlib
import os
import signal
import socket
import sys
import textwrap
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Unavailable
from handfast.envoy.types import HTTP_MANAGER, ROUTER
from handfast.io.envoy_admin import EnvoyAdmin, Reply
from handfast.io.envoy_process import (
    EnvoyProcess,
    Exit,
    _lines,
    _run,
    check_version,
    find_envoy,
    pause_before,
)
from tests.support.ports import free_port

Json = dict[str, Any]
LIMIT = 5.0


def serving(port: int) -> Json:
    """Give a bootstrap with one plain listener."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}}
    typed = {
        "@type": HTTP_MANAGER,
        "stat_prefix": "h",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    listener = {
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": typed}]}],
    }
    return {"static_resources": {"listeners": [listener]}}


async def ready(envoy: EnvoyProcess, limit_s: float) -> bool:
    """Wait until Envoy has its first configuration and accepts connections; False after ``limit_s``."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        with contextlib.suppress(Unavailable):
            if (await envoy.admin.get("/ready")).status == 200:
                return True
        await asyncio.sleep(0.02)
    return False


@asynccontextmanager
async def running(directory: Path, bootstrap: Json, **options: Any) -> AsyncIterator[EnvoyProcess]:
    envoy = EnvoyProcess(None, bootstrap, directory, concurrency=1, **options)
    await envoy.start()
    try:
        yield envoy
    finally:
        await envoy.stop()


async def eventually(look: Callable[[], bool]) -> bool:
    """Look again and again for at most 5 seconds."""
    async with asyncio.timeout(LIMIT):
        while not look():
            await asyncio.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def program(path: Path, text: str) -> Path:
    """Write a program that plays an Envoy that behaves badly."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    path.chmod(0o700)
    return path


# The program.


def test_the_envoy_of_the_package_is_found():
    """The finder must give the program itself, not the script that starts it."""
    found = find_envoy()
    assert found.read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize("name", ["absent", ".", "plain"])
def test_what_cannot_be_run_is_refused(tmp_path: Path, name: str):
    """A missing file, a directory and a file without the right to run must be told apart from an Envoy at once."""
    (tmp_path / "plain").write_text("")
    with pytest.raises(BadInput, match="no program"):
        find_envoy(tmp_path / name)


@pytest.mark.e2e
async def test_the_version_is_read():
    """The Envoy that we test with must be new enough."""
    assert tuple(int(n) for n in (await check_version(find_envoy())).split(".")) >= (1, 40)


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ("envoy  version: abc/1.39.0/Clean/RELEASE/BoringSSL", "too old"),
        ("nginx/1.22.1", "too old"),
        ("hello", "does not say"),
    ],
)
async def test_another_version_is_refused(tmp_path: Path, says: str, complaint: str):
    """An older Envoy, and what is none, must be refused before it is run."""
    fake = program(tmp_path / "envoy", f"print({says!r})")
    with pytest.raises(BadInput, match=complaint):
        await EnvoyProcess(fake, {}, tmp_path).start()
    assert not (tmp_path / "bootstrap.json").exists()


async def test_a_program_that_is_none_is_unavailable(tmp_path: Path):
    """What the kernel refuses to run must not end in a traceback."""
    broken = tmp_path / "envoy"
    broken.write_bytes(b"\x00\x01")
    broken.chmod(0o700)
    with pytest.raises(Unavailable, match="cannot run"):
        await _run(broken)


async def test_lines_are_cut_and_bounded():
    """However a program talks, a line that we keep must have 1 KiB at most, and none may be lost."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"one\n" + b"x" * 200_000 + b"\nthree\n\xff and no end")
    reader.feed_eof()
    lines = [line async for line in _lines(reader)]
    assert [line[:10] for line in lines] == ["one", "x" * 10, "three", "\ufffd and no e"]
    assert max(map(len, lines)) == 1024


def test_the_pauses_double_up_to_ten_seconds():
    """Restarts must begin quickly, and never become a storm or stop."""
    assert [pause_before(n) for n in (0, 1, 2, 5, 6, 10_000)] == [0.2, 0.4, 0.8, 6.4, 10.0, 10.0]


def test_an_end_is_told_in_words():
    """Exit codes and signals must be told apart, in the vocabulary of "no"."""
    assert Exit(1, ("a", "b"), 0.1).how == "exit code 1"
    killed = Exit(-9, tuple("abcdefg"), 0.1)
    assert killed.refusal.reason is Reason.ENVOY_DIED
    assert killed.refusal.evidence == {"how": "signal SIGKILL", "last words": "c\nd\ne\nf\ng"}


# Its life.


@pytest.mark.e2e
async def test_envoy_runs_and_is_gone_after_the_stop(tmp_path: Path):
    """Ready must mean that it serves; after the stop there must be no process; its files must be private."""
    port = free_port()
    async with running(tmp_path, serving(port)) as envoy:
        assert await ready(envoy, LIMIT)
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await asyncio.to_thread(client.recv, 4096)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)}
        assert modes == {"bootstrap.json": 0o600, "admin.sock": 0o600}
        pid = envoy.pid
        assert is_alive(pid)
    assert not is_alive(pid)
    assert envoy.pid is None


@pytest.mark.e2e
async def test_an_envoy_that_is_killed_is_reported_and_started_again(tmp_path: Path):
    """A death must be heard of, with its cause, and must be over in about a second."""
    heard: list[Exit] = []
    async with running(tmp_path, serving(free_port()), on_exit=heard.append) as envoy:
        assert await ready(envoy, LIMIT)
        first = envoy.pid
        os.kill(first, signal.SIGKILL)
        assert await eventually(lambda: envoy.pid not in {None, first})
        assert await ready(envoy, LIMIT)
        assert [e.how for e in heard] == ["signal SIGKILL"]
    assert not is_alive(first)


@pytest.mark.e2e
async def test_an_envoy_that_cannot_start_says_why(tmp_path: Path):
    """A bootstrap that Envoy refuses must be heard of in its last words, and must not end the supervision."""
    heard: list[Exit] = []
    async with running(tmp_path, {"static_resources": {"listeners": [{"name": "l"}]}}, on_exit=heard.append) as envoy:
        assert not await ready(envoy, 0.1)
        assert await eventually(lambda: len(heard) >= 2)
    assert heard[0].how == "exit code 1"
    assert any("address is necessary" in line for line in heard[0].last_words)


@pytest.mark.e2e
async def test_a_stop_lets_connections_finish_and_waits_no_longer_than_that(tmp_path: Path):
    """A stop must wait for an open connection, end when the last one has gone, and end at its limit in any case."""
    port = free_port()
    envoy = EnvoyProcess(None, serving(port), tmp_path, concurrency=1)
    await envoy.start()
    assert await ready(envoy, LIMIT)
    pid = envoy.pid
    with socket.create_connection(("127.0.0.1", port), 1):
        assert await eventually(lambda: _accepted(port))
        stopping = asyncio.create_task(envoy.stop(LIMIT))
        await asyncio.sleep(0.4)
        assert is_alive(pid)
        assert (await envoy.admin.get("/ready")).status == 503
    async with asyncio.timeout(2):
        await stopping
    assert not is_alive(pid)
    await envoy.start()
    assert await ready(envoy, LIMIT)
    with socket.create_connection(("127.0.0.1", port), 1):
        began = time.monotonic()
        await envoy.stop(0.3)
        assert time.monotonic() - began < 2


def _accepted(port: int) -> bool:
    """Tell whether the listener's backlog is empty (column rx_queue of a listening socket)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return all(r[4].endswith(":00000000") for r in rows if r[1].endswith(f":{port:04X}") and r[3] == "0A")


async def test_a_program_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stop must end whatever runs, however it talks meanwhile."""
    monkeypatch.setattr("handfast.io.envoy_process._TERM_LIMIT", 0.2)
    fake = program(
        tmp_path / "envoy",
        """
        import signal, sys
        if "--version" in sys.argv:
            sys.exit("/1.40.0/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            print("x" * 10_000, flush=True)
        """,
    )
    envoy = EnvoyProcess(fake, {}, tmp_path)
    await envoy.start()
    assert await eventually(lambda: len(envoy.last_words) == 50)
    pid = envoy.pid
    async with asyncio.timeout(2):
        await envoy.stop()
    assert not is_alive(pid)


@pytest.mark.e2e
async def test_a_stop_that_is_cut_short_leaves_no_process(tmp_path: Path):
    """Whoever gives up on a stop must not leave an Envoy behind."""
    port = free_port()
    envoy = EnvoyProcess(None, serving(port), tmp_path, concurrency=1)
    await envoy.start()
    assert await ready(envoy, LIMIT)
    pid = envoy.pid
    with socket.create_connection(("127.0.0.1", port), 1):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await envoy.stop(60)
        assert await eventually(lambda: not is_alive(pid))


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
async def test_envoy_dies_with_a_supervisor_that_is_killed(tmp_path: Path):
    """Not even kill -9 of the supervisor may leave an Envoy behind."""
    supervisor = program(
        tmp_path / "supervisor",
        f"""
        import asyncio, pathlib, sys
        from handfast.io.envoy_process import EnvoyProcess
        async def main():
            envoy = EnvoyProcess(None, {serving(free_port())!r}, pathlib.Path({str(tmp_path)!r}), concurrency=1)
            await envoy.start()
            print(envoy.pid, file=sys.stderr)
            await asyncio.sleep(60)
        asyncio.run(main())
        """,
    )
    process = await asyncio.create_subprocess_exec(supervisor, stdout=DEVNULL, stderr=PIPE)
    async with asyncio.timeout(2 * LIMIT):
        pid = int(await process.stderr.readline())
        assert is_alive(pid)
        process.kill()
        await process.communicate()
    assert await eventually(lambda: not is_alive(pid))


# Its administration interface.


@pytest.mark.e2e
async def test_the_administration_interface_answers(tmp_path: Path):
    """Short and chunked answers, counters, actions and Prometheus's format must all be read."""
    async with running(tmp_path, serving(free_port())) as envoy:
        assert await ready(envoy, LIMIT)
        admin = envoy.admin
        assert (await admin.get("/ready")).text == "LIVE\n"
        assert (await admin.get("/config_dump")).body.endswith(b"}\n")
        assert await admin.stats(r"^server\.live$") == {"server.live": 1}
        assert len(await admin.stats()) > 100
        assert b"# TYPE envoy_server_live gauge" in await admin.prometheus()
        assert (await admin.get("/nothing")).status == 404
        assert (await admin.post("/reopen_logs")).status == 200
        assert (await admin.get("/reopen_logs")).status == 405
        with pytest.raises(Unavailable, match="400"):
            await admin.stats("(")


async def answers(directory: Path, text: bytes, ask: Callable[[EnvoyAdmin], Awaitable[Any]]) -> Any:
    """Ask something that answers ``text``."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    async with await asyncio.start_unix_server(serve, directory / "s"):
        return await ask(EnvoyAdmin(directory / "s", timeout=1.0))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1\r\n\r\n",
        b"nonsense nonsense\r\n\r\n",
        b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ],
)
async def test_what_is_not_http_is_unavailable(tmp_path: Path, text: bytes):
    """Whatever answers in Envoy's place must not harm us."""
    with pytest.raises(Unavailable):
        await answers(tmp_path, text, lambda admin: admin.get("/"))


async def test_chunks_are_joined(tmp_path: Path):
    """A body in chunks must come out whole."""
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert await answers(tmp_path, text, lambda admin: admin.get("/")) == Reply(200, b"abcde")


async def test_silence_and_absence_are_unavailable(tmp_path: Path):
    """Nobody there, and somebody who says nothing, must end in the same error within the limit."""
    with pytest.raises(Unavailable):
        await EnvoyAdmin(tmp_path / "absent").get("/")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(Unavailable, match="TimeoutError"):
            await EnvoyAdmin(tmp_path / "s", timeout=0.05).get("/")


@pytest.mark.parametrize("path", ["", "ready", "/a b", "/a\r\nhost: b", "/ä"])
async def test_a_path_cannot_carry_more_than_a_path(path: str):
    """No text may become a second line of the request."""
    with pytest.raises(BadInput):
        await EnvoyAdmin(Path("nowhere")).get(path)
