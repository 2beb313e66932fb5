import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handfast.base.refusal import Unavailable
from handfast.io import tail as module
from handfast.io.tail import MAX_LINE, Tail


@pytest.fixture(autouse=True, scope="module")
def hurry() -> Iterator[None]:
    """Let it look more often than it does, so that nothing waits longer than it has to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAUSE", 0.01)
        patch.setattr(module, "_REST", 0.02)
        yield


def follow(directory: Path) -> Tail:
    return Tail(directory / "log", position_file=directory / "position")


def append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


async def take(tail: Tail) -> list[bytes]:
    """Take the next batch; there must be one within 2 seconds."""
    async with asyncio.timeout(2):
        return await anext(tail)


async def settle(tail: Tail, *, until: Callable[[], bool] = lambda: False) -> list[bytes]:
    """Take all there is until nothing comes for a while, so that all of it counts as delivered."""
    lines: list[bytes] = []
    try:
        while not until():
            async with asyncio.timeout(0.15):
                lines += await anext(tail)
    except TimeoutError:
        pass
    return lines


async def test_complete_lines_are_delivered_in_order(tmp_path: Path):
    """Lines must come as they were written, and half a line only when it is whole."""
    tail = follow(tmp_path)
    append(tmp_path / "log", b"one\ntwo\nthr")
    assert await take(tail) == [b"one", b"two"]
    append(tmp_path / "log", b"ee\n")
    assert await take(tail) == [b"three"]


async def test_a_file_may_come_later(tmp_path: Path):
    """A tail must wait for a file that Envoy has not made yet."""
    tail = follow(tmp_path)
    waiting = asyncio.create_task(take(tail))
    await asyncio.sleep(0.05)
    append(tmp_path / "log", b"one\n")
    assert await waiting == [b"one"]


async def test_what_was_delivered_is_not_delivered_again_after_a_restart(tmp_path: Path):
    """A tail that was closed must go on where it stopped."""
    append(tmp_path / "log", b"one\n")
    tail = follow(tmp_path)
    assert await settle(tail) == [b"one"]
    tail.close()
    append(tmp_path / "log", b"two\n")
    assert await take(follow(tmp_path)) == [b"two"]


async def test_a_batch_that_was_not_dealt_with_is_delivered_again(tmp_path: Path):
    """A consumer that dies amid a batch must get it once more."""
    append(tmp_path / "log", b"one\n")
    tail = follow(tmp_path)
    assert await take(tail) == [b"one"]
    tail.close()
    assert await take(follow(tmp_path)) == [b"one"]


async def test_a_rotation_loses_and_repeats_nothing(tmp_path: Path):
    """Lines written before, during and after a rotation must come once each, in order."""
    tail, log = follow(tmp_path), tmp_path / "log"
    writer = log.open("ab", buffering=0)
    writer.write(b"before\n")
    assert await take(tail) == [b"before"]
    assert tail.rotate()
    writer.write(b"during\n")
    assert await take(tail) == [b"during"]
    writer.write(b"last\n")
    writer.close()
    append(log, b"after\n")
    assert await settle(tail) == [b"last", b"after"]
    assert tail.dropped == 0


async def test_a_restart_amid_a_rotation_reads_the_old_file_first(tmp_path: Path):
    """A position in the rotated file must be found there, and the new file read from its beginning."""
    tail, log = follow(tmp_path), tmp_path / "log"
    append(log, b"one\n")
    assert await settle(tail) == [b"one"]
    append(log, b"two\n")
    assert tail.rotate()
    tail.close()
    append(log, b"three\n")
    assert await settle(follow(tmp_path)) == [b"two", b"three"]


async def test_a_rotated_file_is_read_to_its_end_however_long_it_is(tmp_path: Path):
    """A tail must not leave a rotated file after the first batch of several."""
    tail, log = follow(tmp_path), tmp_path / "log"
    append(log, b"first\n")
    await take(tail)
    lines = [b"%d" % i + b"x" * 100_000 for i in range(30)]
    append(log, b"".join(line + b"\n" for line in lines))
    assert tail.rotate()
    append(log, b"after\n")
    assert await settle(tail) == [*lines, b"after"]


async def test_a_second_rotation_waits_for_the_first(tmp_path: Path):
    """A rotated file that is still being read must not be overwritten."""
    tail, log = follow(tmp_path), tmp_path / "log"
    assert not tail.rotate()
    append(log, b"one\n")
    assert not tail.rotate()
    await take(tail)
    assert tail.rotate()
    assert not tail.rotate()
    append(log, b"two\n")
    assert not tail.rotate()
    assert await settle(tail) == [b"two"]
    assert tail.rotate()


async def test_a_tail_wants_to_be_rotated_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The size of the file must decide."""
    monkeypatch.setattr(module, "ROTATE_AT", 10)
    tail = follow(tmp_path)
    assert not tail.full
    append(tmp_path / "log", b"12345678\n")
    assert not tail.full
    append(tmp_path / "log", b"\n")
    assert tail.full


async def test_a_line_without_an_end_in_a_rotated_file_is_counted(tmp_path: Path):
    """What a writer that died left unfinished must not be delivered, nor joined with the next line."""
    tail, log = follow(tmp_path), tmp_path / "log"
    append(log, b"one\nhal")
    await take(tail)
    assert tail.rotate()
    append(log, b"two\n")
    assert await settle(tail) == [b"two"]
    assert tail.dropped == 1


@pytest.mark.parametrize("length", [MAX_LINE + 1, 3 << 20])
async def test_a_line_that_is_too_long_is_dropped_and_counted(tmp_path: Path, length: int):
    """A line over 256 KiB must not come, and must not keep those around it away."""
    append(tmp_path / "log", b"one\n" + b"x" * length + b"\n" + b"y" * MAX_LINE + b"\ntwo\n")
    tail = follow(tmp_path)
    assert await settle(tail) == [b"one", b"y" * MAX_LINE, b"two"]
    assert tail.dropped == 1


async def test_a_restart_amid_a_line_that_is_too_long_does_not_deliver_the_rest_of_it(tmp_path: Path):
    """The end of a dropped line must never look like a line."""
    append(tmp_path / "log", b"one\n" + b"x" * (2 << 20))
    tail = follow(tmp_path)
    assert await settle(tail) == [b"one"]
    tail.close()
    append(tmp_path / "log", b"tail of it\ntwo\n")
    assert await settle(follow(tmp_path)) == [b"two"]


async def test_a_file_that_was_cut_short_is_read_from_its_beginning(tmp_path: Path):
    """Somebody's truncation must not make us wait for ever."""
    tail, log = follow(tmp_path), tmp_path / "log"
    append(log, b"one\ntwo\n")
    await take(tail)
    os.truncate(log, 0)
    append(log, b"3\n")
    assert await take(tail) == [b"3"]


@pytest.mark.parametrize("position", [b"", b"nonsense", b'{"inode":1}', b'{"inode":1,"offset":-5}', b"[" * 5000])
async def test_a_position_that_cannot_be_read_costs_a_repetition(tmp_path: Path, position: bytes):
    """A damaged position must not stop the tail."""
    (tmp_path / "position").write_bytes(position)
    append(tmp_path / "log", b"one\n")
    assert await take(follow(tmp_path)) == [b"one"]


async def test_a_position_that_cannot_be_written_costs_a_repetition(tmp_path: Path):
    """A full disk must not stop the tail."""
    tail = Tail(tmp_path / "log", position_file=tmp_path / "absent" / "position")
    append(tmp_path / "log", b"one\n")
    assert await settle(tail) == [b"one"]
    tail.close()


async def test_positions_are_written_once_a_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each batch must not cost a write; a private file must hold the last position."""
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    tail, log, position = follow(tmp_path), tmp_path / "log", tmp_path / "position"
    append(log, b"one\n")
    await settle(tail)
    assert not position.exists()
    now[0] += 1
    append(log, b"two\n")
    await settle(tail)
    assert json.loads(position.read_bytes())["offset"] == 4
    tail.close()
    assert json.loads(position.read_bytes()) == {"inode": log.stat().st_ino, "offset": 8}
    assert position.stat().st_mode & 0o777 == 0o600


async def test_a_tail_that_is_closed_ends(tmp_path: Path):
    """A loop over a tail must end when it is closed."""
    tail = follow(tmp_path)
    asyncio.get_running_loop().call_later(0.05, tail.close)
    async with asyncio.timeout(2):
        assert [batch async for batch in tail] == []


async def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path):
    """A directory in the file's place must be an error that can be tried again."""
    (tmp_path / "log").mkdir()
    with pytest.raises(Unavailable, match="cannot read"):
        await take(follow(tmp_path))


_steps = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")),
        st.sampled_from(["read", "read", "rotate", "reopen", "restart", "crash"]),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps=_steps)
@example(steps=["read", b"", "rotate", "crash"])
@example(steps=[b"", "read", "rotate", "reopen", "read", b"", "rotate", "crash"])
def test_no_line_is_lost_whatever_happens_in_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[bytes | str]
):
    """With any writes, reads, rotations, re-openings, restarts and crashes, each line must come, in order, repetitions aside."""
    directory = tmp_path_factory.mktemp("tail")
    log, tail = directory / "log", follow(directory)
    writer = log.open("ab", buffering=0)
    written: list[bytes] = []
    read: list[bytes] = []
    for step in [*steps, "reopen", "read", "read", "read"]:
        if isinstance(step, bytes):
            line = b"%d %s" % (len(written), step)
            writer.write(line + b"\n")
            written.append(line)
        elif step == "read":
            tail._commit()
            read += tail._read()
        elif step == "rotate":
            tail.rotate()
        elif step == "reopen":
            writer.close()
            writer = log.open("ab", buffering=0)
        else:
            if step == "restart":
                tail.close()
            tail = follow(directory)
    writer.close()
    tail.close()
    assert list(dict.fromkeys(read)) == written
    assert tail.dropped == 0
