import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handfast.access.world_file import parse_world

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "-=- end of block -=-"


def blocks(document: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall((ROOT / document).read_text())]


def pattern(expected: str) -> str:
    """Turn an output block into an expression in which … stands for anything."""
    return r"\A" + re.escape(expected.rstrip("\n")).replace("…", "(?s:.)*") + r"\s*\Z"


@pytest.mark.e2e
def test_the_tutorial_works_as_it_stands(tmp_path: Path):
    """Every command of the tutorial runs, and prints what the tutorial says."""
    steps = blocks("docs/tutorial.md")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    script = "".join(f"{text}echo '{MARK}'\n" for kind, text in steps if kind == "sh")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HANDFAST_")}
    with (tmp_path / "output").open("wb+") as output:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(90)
        finally:
            with contextlib.suppress(ProcessLookupError):  # whatever it started, when it failed half-way
                os.killpg(shell.pid, signal.SIGTERM)
        output.seek(0)
        printed = output.read().decode()
    assert code == 0, printed
    outputs = printed.split(f"{MARK}\n")
    shown = [steps[i + 1][1] for i, (kind, _) in enumerate(steps) if kind == "sh" and steps[i + 1][0] == "output"]
    assert len(shown) == sum(kind == "sh" for kind, _ in steps)
    for got, expected in zip(outputs, shown, strict=False):
        assert re.match(pattern(expected), got), f"expected:\n{expected}\ngot:\n{got}"


def test_the_world_files_in_documents_can_be_applied():
    """A reader may copy each world file, and Handfast takes it."""
    worlds = [text for document in ("README.md",) for kind, text in blocks(document) if kind == "yaml"]
    assert [parse_world(text).trust_domain.name for text in worlds] == ["example.internal"]


def test_the_readme_names_commands_that_exist():
    """What the README runs is there: make's targets, and handfast's verbs."""
    commands = [line for kind, text in blocks("README.md") if kind == "sh" for line in text.splitlines()]
    verbs = {match[1] for line in commands if (match := re.search(r"handfast (\w+(?: (?:issue|revoke))?)", line))}
    known = (ROOT / "docs/reference/commands.md").read_text()
    assert verbs >= {"up", "cert issue", "explain", "events", "cert revoke"}
    assert all(f"## handfast {verb}\n" in known for verb in verbs), verbs
    targets = {line.split()[1] for line in commands if line.startswith("make ")}
    assert targets == {"up", "test"}


def test_links_in_documents_lead_somewhere():
    """Each relative link of README and docs has a file at its end."""
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
