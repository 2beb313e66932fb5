import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from handfast.access.world_file import parse_world
from handfast.app.cli import app
from handfast.app.cli.verbs import loaded
from tests.support.ports import free_port

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "-=- end of block -=-"
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/howto").glob("*.md")]
)
HISTORY = {"CHANGELOG.md", "docs/decisions.md"}  # what they say was true on its day


def blocks(document: str) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in BLOCK.findall((ROOT / document).read_text())]


def pattern(expected: str) -> str:
    """Turn an output block into an expression in which … stands for anything."""
    return r"\A" + re.escape(expected.rstrip("\n")).replace("…", "(?s:.)*") + r"\s*\Z"


def run_shell(script: str, directory: Path) -> tuple[int, str]:
    """Run a script as a reader would, and end what it leaves behind; give its exit code and all that it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HANDFAST_")}
    with (directory / "output").open("wb+") as output:
        shell = subprocess.Popen(
            ["bash", "-eu", "-c", script],
            cwd=directory,
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
        return code, output.read().decode()


@pytest.mark.e2e
def test_the_tutorial_works_as_it_stands(tmp_path: Path):
    """Every command of the tutorial runs, and prints what the tutorial says."""
    steps = blocks("docs/tutorial.md")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    script = "".join(f"{text}echo '{MARK}'\n" for kind, text in steps if kind == "sh")
    code, printed = run_shell(script, tmp_path)
    assert code == 0, printed
    outputs = printed.split(f"{MARK}\n")
    shown = [steps[i + 1][1] for i, (kind, _) in enumerate(steps) if kind == "sh" and steps[i + 1][0] == "output"]
    assert len(shown) == sum(kind == "sh" for kind, _ in steps)
    for got, expected in zip(outputs, shown, strict=False):
        assert re.match(pattern(expected), got), f"expected:\n{expected}\ngot:\n{got}"


def test_the_world_files_in_documents_can_be_applied():
    """A reader may copy each world file, and Handfast takes it."""
    shown = [text for document in DOCUMENTS for kind, text in blocks(document) if kind == "yaml"]
    worlds = [text for text in shown if text.startswith("trust_domain:")]
    assert {parse_world(text).trust_domain.name for text in worlds} >= {
        "example.internal",
        "example.org",
        "dev.example.org",
    }


@pytest.mark.e2e
def test_the_readme_works_as_it_stands(tmp_path: Path):
    """Who copies the README has a gateway, is let in and refused as it says, and leaves the demo's data alone."""
    gateway, service, api, admin = (free_port() for _ in range(4))
    shown = [
        (kind, text.replace("8443", str(gateway)).replace("9000", str(service))) for kind, text in blocks("README.md")
    ]
    world = next(text for kind, text in shown if kind == "yaml")
    _, begin, alice, reports, rest = (text for kind, text in shown if kind == "sh")
    explained = next(text for kind, text in shown if kind == "console")
    (tmp_path / "handfast.yaml").write_text(world)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "files").mkdir()
    script = f"""
        python3 -m http.server {service} --bind 127.0.0.1 --directory files > service.txt 2>&1 &
        {begin.strip()} --api 127.0.0.1:{api} --admin 127.0.0.1:{admin} > up.txt 2>&1 &
        up=$!
        until grep -qs 'is up' up.txt; do kill -0 $up; sleep 0.2; done
        {alice}
        ({reports}) > reports.txt
        sleep 1
        echo '{MARK}'
        handfast explain "$(sed -n 's/.*"request_id":"\\([^"]*\\)".*/\\1/p' reports.txt)"
        echo '{MARK}'
        {rest.replace("events --follow", "events").replace("handfast diff handfast.yaml", "handfast diff handfast.yaml || true")}
        kill $up
        wait $up"""
    code, printed = run_shell(script, tmp_path)
    assert code == 0, printed
    let_in, why, after = printed.split(f"{MARK}\n")
    assert "Directory listing" in let_in
    assert re.match(pattern(explained.partition("\n")[2]), why), why
    assert "revoked spiffe://example.internal/alice" in after
    assert not (tmp_path / ".handfast").exists()


def told(document: str) -> Iterator[list[str]]:
    """Give what a document says after each ``handfast``, word by word: in blocks that are shown, and in the text."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / document).read_text())
    shown = "\n".join(body for kind, body in BLOCK.findall(f"{text}\n") if kind != "text")
    inline = re.findall(r"`([^`\n]*(?:\n[^`\n]+)?)`", BLOCK.sub("", f"{text}\n"))
    for line in [*shown.splitlines(), *inline]:
        if called := re.search(r"(?:^\s*|[$/] ?|[|&] )handfast ((?:\"[^\"]*\"|'[^']*'|[^|>&;#\"'])+)", line):
            yield called[1].split()


def unknown(words: list[str]) -> list[str]:
    """Give those of the words of a command line that ``handfast`` does not know: verbs, and options."""
    command, rest = typer.main.get_command(app), [*words]
    while below := getattr(command, "commands", None):
        if not rest or rest[0].startswith("-"):
            break
        if rest[0] not in below:
            return rest[:1]
        command = loaded(below[rest.pop(0)])
    options = {"--help", "-h", *(name for one in command.params for name in (*one.opts, *one.secondary_opts))}
    return [word for word in rest if word.startswith("-") and word.partition("=")[0] not in options]


@pytest.mark.parametrize("document", [one for one in DOCUMENTS if one not in HISTORY])
def test_documents_name_commands_that_exist(document: str):
    """Every command that a reader may copy is one that ``handfast`` has, with each of its options."""
    assert [words for words in told(document) if unknown(words)] == []


def test_a_command_that_does_not_exist_is_seen():
    """The test before this one is not blind."""
    assert unknown(["up", "--data", "d", "--gateway-port", "1"]) == unknown(["cert", "revoke", "alice", "--yes"]) == []
    assert unknown(["sert", "issue"]) == ["sert"]
    assert unknown(["cert", "isue"]) == ["isue"]
    assert unknown(["up", "--gateway"]) == ["--gateway"]
    assert {words[0] for words in told("README.md")} >= {"up", "cert", "explain", "events"}
    assert len([*told("docs/howto/authorities.md")]) > 10


def test_the_readme_names_targets_of_make_that_exist():
    """What a newcomer types first is there."""
    shown = "".join(text for kind, text in blocks("README.md") if kind == "sh")
    targets = set(re.findall(r"^make (\w+)", shown, re.MULTILINE))
    assert targets == {"up", "test"}
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_in_documents_lead_somewhere(document: str):
    """Each relative link has a file at its end, and the heading in it that it names."""
    links = re.findall(r"\]\(([^):]+)\)", (ROOT / document).read_text())
    assert [link for link in links if not leads_somewhere(ROOT / document, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    file, _, heading = link.partition("#")
    target = page.parent / file if file else page
    return target.exists() and (not heading or heading in headings(target))


def headings(page: Path) -> set[str]:
    """Give the names by which a page's headings are linked to."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}
