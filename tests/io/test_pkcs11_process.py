from __future__ import annotations

import io
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from handfast.io.pkcs11_process import MAX_FRAME_BYTES, frame, read_frame, serve

COMMAND = [sys.executable, "-P", "-m", "handfast.io.pkcs11_process"]


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_are_read_as_they_were_written(messages: list[bytes]):
    """One after the other, and then the end."""
    source = io.BytesIO(b"".join(map(frame, messages)))
    assert [read_frame(source) for _ in messages] == messages
    assert read_frame(source) is None


@given(st.binary(min_size=1, max_size=300), st.integers(1, 20))
def test_a_frame_that_is_cut_short_is_the_end(message: bytes, missing: int):
    """A parent that died half-way asked for nothing."""
    assert read_frame(io.BytesIO(frame(message)[:-missing])) is None


def test_a_frame_beyond_the_limit_is_the_end():
    """No length makes this process take memory."""
    assert read_frame(io.BytesIO((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))) is None


@given(st.binary(max_size=100))
def test_any_first_frame_gets_one_answer_that_is_a_fault(garbage: bytes):
    """A URI that cannot be read is told, and nothing is signed after it."""
    sink = io.BytesIO()
    serve(io.BytesIO(frame(garbage) + frame(b"message")), sink)
    answer = read_frame(io.BytesIO(sink.getvalue()))
    assert answer is not None
    assert answer[:1] == b"B"
    assert sink.getvalue() == frame(answer)


def test_it_ends_with_its_input():
    """Whoever started it is gone then."""
    done = subprocess.run(COMMAND, input=b"", capture_output=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
