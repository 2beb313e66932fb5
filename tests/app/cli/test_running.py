import os
from pathlib import Path

import pytest

from handfast.app.up import UpConfig
from tests.app.cli.terminal import run

SECRET = "s3cret-word"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[UpConfig]:
    """Take down what would be started, and with it whatever children would get."""
    configs: list[UpConfig] = []

    def remember(config: UpConfig, _: Path) -> None:
        assert "HANDFAST_DATABASE" not in os.environ
        configs.append(config)

    monkeypatch.setattr("handfast.app.cli.serving.serve", remember)
    monkeypatch.setattr("handfast.app.cli.serving.serve_alone", remember)
    return configs


@pytest.mark.parametrize("command", ["up", "server"])
def test_the_database_comes_from_the_command_line_or_the_environment(
    command: str, started: list[UpConfig], tmp_path: Path
):
    """Without either it is SQLite; the address is shown without its password, and no child process inherits it."""
    url = f"postgresql://u:{SECRET}@localhost/kept"
    assert run(command, "--data", str(tmp_path), "--database", "postgresql:///named", HANDFAST_DATABASE=url).code == 0
    assert run(command, "--data", str(tmp_path), HANDFAST_DATABASE=url).code == 0
    assert run(command, "--data", str(tmp_path)).code == 0
    assert [str(config.database) for config in started] == [
        "postgresql:///named",
        "postgresql://u@localhost/kept",
        "None",
    ]
    assert SECRET not in repr(started)


@pytest.mark.parametrize("command", ["up", "server"])
def test_a_password_on_the_command_line_is_refused(command: str, started: list[UpConfig], tmp_path: Path):
    """Nothing is started, the error does not repeat it, and the hint says where it may stand."""
    done = run(command, "--data", str(tmp_path), "--database", f"postgresql://u:{SECRET}@localhost/d")
    assert done.code == 2
    assert "on the command line" in done.err
    assert "@FILE" in done.err
    assert SECRET not in done.err
    assert started == []


def test_a_server_is_told_its_names(started: list[UpConfig], tmp_path: Path):
    """``localhost`` is always among them, each once."""
    names = ("--name", "ca.example.org", "--name", "localhost")
    assert run("server", "--data", str(tmp_path), "--trust-domain", "example.org", *names).code == 0
    assert started[0].names == ("localhost", "ca.example.org")
    assert started[0].trust_domain == "example.org"
