import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from handfast import __version__
from handfast.app.cli import app
from tests.app.cli.terminal import run, steady


def commands(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *words, name)


_WORKERS = re.compile(r"(worker threads\. \[default: )\d")  # as many as the machine has
ALL = list(commands(typer.main.get_command(app)))
GROUPS = {words[:-1] for words in ALL if words}


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "handfast")
def test_help_reads_as_it_did(words: tuple[str, ...], golden: Callable[[str, str], None]):
    """Each verb's help is looked at by somebody when it changes."""
    shown = run(*words, "--help")
    assert (shown.code, shown.err) == (0, "")
    golden(f"{'-'.join(words) or 'handfast'}.txt", steady(_WORKERS.sub(r"\g<1>N", shown.out)))


@pytest.mark.parametrize("words", [words for words in ALL if words and words not in GROUPS], ids=" ".join)
def test_help_teaches_by_example(words: tuple[str, ...]):
    """Each verb shows a line that can be typed."""
    assert f"handfast {' '.join(words)}" in run(*words, "--help").out.split("Examples", 1)[1]


def test_the_short_option_helps_too():
    """``-h`` is ``--help``."""
    assert run("-h") == run("--help")


def test_the_version_is_said():
    """On standard output, alone."""
    assert run("--version").out == f"handfast {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["cert", "issue"], ["events", "--last", "x"], ["apply", "none.yaml"], ["status", "--nonsense"]],
)
def test_a_wrong_use_is_two(words: list[str]):
    """Usage goes to standard error, with exit code 2."""
    shown = run(*words)
    assert (shown.code, shown.out) == (2, "")
    assert "Usage: handfast" in shown.err


@pytest.mark.parametrize("words", [[], ["cert"]])
def test_nothing_at_all_shows_the_help(words: list[str]):
    """Somebody who knows nothing is told what there is."""
    shown = run(*words)
    assert "Usage: handfast" in shown.out + shown.err
