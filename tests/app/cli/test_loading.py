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
