"""A terminal of fixed width, on which the command line is run as its user would."""

from __future__ import annotations

import asyncio
import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from handfast.app.cli import main

ENVIRONMENT = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
_VARIABLE = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "<serial>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<serial…>"),
    (re.compile(r"\b[a-z2-7]{26}\b"), "<event>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?"), "<time>"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "<date>"),
    (re.compile(r"\d\d:\d\d:\d\d"), "<time>"),
    (re.compile(r"uid:\d+"), "uid:<uid>"),
)


@dataclass(frozen=True)
class Shown:
    """What a command left on the terminal, and its exit code."""

    out: str
    err: str
    code: int


def run(*words: str, **environment: str) -> Shown:
    """Run ``handfast`` in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        patch.dict("os.environ", {**ENVIRONMENT, **environment}),
        patch.object(sys, "argv", ["handfast", *words]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Shown(_text(out), _text(err), code)


async def handfast(*words: str, **environment: str) -> Shown:
    """Run a command beside the server."""
    return await asyncio.to_thread(run, *words, **environment)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def steady(text: str) -> str:
    """Take out what differs from run to run, and what a table pads."""
    for pattern, name in _VARIABLE:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
