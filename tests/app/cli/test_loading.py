"""What the command line loads, and when."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from handfast.app.cli import app
from handfast.app.cli.verbs import Later, loaded
from tests.app.cli.terminal import ENVIRONMENT
from tests.app.cli.test_help import ALL, GROUPS

CLIENT = {"httpx2", "ssl", "asyncio", "pydantic"}
HEAVY = CLIENT | {
    *("rich", "yaml", "cryptography", "structlog", "starlette", "uvicorn", "uvloop", "sqlite3", "asyncpg"),
    *("grpclib", "envoy", "google.protobuf", "prometheus_client", "dns", "pkcs11", "httptools"),
    *(
        "handfast.trust.facts",
        "handfast.io.ledger",
        "handfast.app.server.build",
        "handfast.app.up",
        "handfast.app.cli.verbs",
    ),
}
NEEDED = {
    "--help": {"rich"},
    "--version": set(),
    "cert revoke payments": CLIENT,
    "cert list": CLIENT,
    "cert own payments team": CLIENT,
    "status": CLIENT,
    "export": CLIENT,
    "events": CLIENT,
    "explain 7c1c": CLIENT,
    "ca status": CLIENT,
    "ca rotate": CLIENT,
    "acme list": CLIENT,
    "est token sensor": CLIENT,
    "domain list": {"pydantic"},
    "diff world.yaml": {*CLIENT, "yaml", "cryptography", "handfast.trust.facts"},
}
_THEN_TELL = """
import sys
from handfast.app.cli import main
try:
    main()
except SystemExit:
    pass
print("loaded:", *sys.modules)
"""
VERBS = [words for words in ALL if words and words not in GROUPS]


@pytest.mark.parametrize("words", NEEDED)
def test_a_verb_loads_what_it_needs(words: str, tmp_path: Path):
    """Libraries are most of the time in which a verb starts, so each loads its own: no more than the list, and all of it."""
    (tmp_path / "world.yaml").write_text("trust_domain: example.org\n")
    shown = subprocess.run(
        [sys.executable, "-c", _THEN_TELL, *words.split()],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(shown.stdout.rpartition("loaded:")[2].split())
    assert modules & HEAVY == {*NEEDED[words], "handfast.app.cli.verbs"}


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_the_list_says_what_the_verb_says(words: tuple[str, ...]):
    """What a list shows of a verb that is not loaded is the first paragraph of its help."""
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert isinstance(command, Later)
    assert command.help == " ".join(loaded(command).help.partition("\n\n")[0].split())


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ce"], ["cert"]),
        (["cert", "re"], ["revoke"]),
        (["cert", "revoke", "--rea"], ["--reason"]),
        (["up", "--gateway"], ["--gateway-port"]),
        (["server", "--tr"], ["--trust-domain"]),
        (["cert", "list", "--format", ""], ["table", "json", "csv"]),
    ],
    ids=" ".join,
)
def test_completion_goes_through(typed: list[str], offered: list[str]):
    """A shell is offered verbs that are not loaded, and the options of one that is."""
    asked = {
        "_HANDFAST_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["handfast", *typed]),
        "COMP_CWORD": str(len(typed)),
    }
    shown = subprocess.run(
        [Path(sys.executable).with_name("handfast")],
        env={**os.environ, **ENVIRONMENT, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(shown.stdout.split()) == sorted(offered)


def completion(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Ask for completion as a user of this home directory."""
    return subprocess.run(
        [Path(sys.executable).with_name("handfast"), *words],
        env={**os.environ, **ENVIRONMENT, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "complete --command")]
)
@pytest.mark.parametrize("joint", [" ", "="])
def test_completion_is_for_the_shell_that_is_named(shell: str, word: str, joint: str, tmp_path: Path):
    """Whatever shell calls, or none at all, as in a service."""
    shown = completion(tmp_path, *f"--show-completion{joint}{shell}".split())
    assert (shown.returncode, shown.stderr) == (0, "")
    assert word in shown.stdout


def test_completion_is_installed_for_the_shell_that_is_named(tmp_path: Path):
    """Where that shell looks for it, and nowhere else."""
    assert completion(tmp_path, "--install-completion", "fish").returncode == 0
    files = [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()]
    assert files == [Path(".config/fish/completions/handfast.fish")]


def test_there_is_no_completion_for_an_unknown_shell(tmp_path: Path):
    """It is named, and nothing is shown."""
    shown = completion(tmp_path, "--show-completion", "nosuch")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "nosuch" in shown.stderr
