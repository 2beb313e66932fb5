import json
import logging
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import structlog

from handfast.app.logs import log_to, tell
from handfast.app.server.messages import JoinRequest, RevocationRequest
from handfast.base.refusal import Refused
from handfast.io.credentials import new_key
from handfast.io.sealed import Passphrase, PassphraseFile, read_passphrase
from tests.app.sites import raw, site

SECRET = "correct horse battery staple"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Log to a file, and put the logging of the process back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    path = tmp_path / "logs" / "handfast.log"
    log_to(str(path), logging.DEBUG)
    yield path
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_one_json_object(log: Path):
    """Name, level, time and fields; also where a value has line ends."""
    structlog.get_logger("handfast").info("certificate.issued", name="a\nb")
    logging.getLogger("elsewhere").warning("plain %s", "text")
    ours = json.loads(log.read_text().splitlines()[0])
    assert (ours["event"], ours["level"], ours["logger"], ours["name"]) == (
        "certificate.issued",
        "info",
        "handfast",
        "a\nb",
    )
    assert ours["timestamp"].endswith("Z")
    assert len(log.read_text().splitlines()) == 2


def test_the_log_is_for_its_owner_alone(log: Path):
    """It names identities and addresses."""
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_dash_means_standard_error(log: Path):
    """Nothing goes to standard output, which belongs to the command."""
    assert log
    seen = StringIO()
    with redirect_stderr(seen):
        log_to("-")
        structlog.get_logger("handfast").info("x")
    assert json.loads(seen.getvalue())["event"] == "x"


def test_the_log_is_bounded(log: Path, monkeypatch: pytest.MonkeyPatch):
    """A few files of a bounded size."""
    for handler in logging.getLogger().handlers:
        monkeypatch.setattr(handler, "maxBytes", 2000, raising=False)
    for number in range(200):
        structlog.get_logger("handfast").info("x", number=number)
    files = sorted(log.parent.iterdir())
    assert len(files) == 5
    assert all(file.stat().st_size <= 2000 for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def passphrase(directory: Path) -> Passphrase:
    file = directory / "passphrase"
    file.touch(0o600)
    file.write_text(SECRET)
    return read_passphrase(PassphraseFile(file))


def told(log: Path) -> bytes:
    return log.read_bytes()


def written(data: Path) -> bytes:
    return b"".join(file.read_bytes() for file in data.glob("ledger.sqlite*"))


async def test_nothing_secret_is_told_anywhere(log: Path, tmp_path: Path):
    """Keys, join tokens and the passphrase are in no log line, no answer, and nowhere in the ledger's file."""
    data = tmp_path / "data"
    data.mkdir()
    answers: list[bytes] = []
    async with site(data, passphrase=passphrase(tmp_path)) as here:
        await here.apply()
        token = await here.token()
        key = new_key()
        joining = JoinRequest(token=token, name="edge", csr=key.csr_pem)
        answers.append((await here.anonymous().send("POST", "/v1/agents/join", joining)).content)
        with pytest.raises(Refused):
            await here.anonymous().send("POST", "/v1/agents/join", joining)
        bad = await raw(
            here.anonymous(), "POST", "/v1/agents/join", json.dumps({"token": token, "name": token, "csr": key.key_pem})
        )
        answers.append(bad.content)
        held = await here.issue("payments")
        await here.operator.send("POST", "/v1/revocations", RevocationRequest(serial=held.leaf.serial))
        read = [
            "certificates",
            f"certificates/{held.leaf.serial}",
            "events",
            "status",
            "world",
            "authority",
            "openapi.json",
        ]
        answers += [(await raw(here.operator, "GET", f"/v1/{path}")).content for path in read]
        assert here.server.platform.authority.sealed
    ledger = written(data)
    assert b"payments" in ledger
    assert {line["event"] for line in lines(log)} >= {
        "certificate.issued",
        "agent.joined",
        "certificate.revoked",
        "world.applied",
    }
    body = "".join(key.key_pem.splitlines()[1:-1])[:40]
    for place in (told(log), ledger, *answers):
        for secret in ("PRIVATE KEY", token, SECRET, body, "".join(held.key_pem.splitlines()[1:-1])[:40]):
            assert secret.encode() not in place


async def test_one_line_an_event(log: Path, tmp_path: Path):
    """Each event of the ledger is told once, in its order, with its id."""
    async with site(tmp_path / "d") as here:
        for name in "abc":
            await here.issue(name)
        events = [event for _, event in await here.server.platform.ledger.page()]
    listed = [line for line in lines(log) if line.get("logger") == "handfast" and "id" in line]
    assert [(line["event"], line["id"]) for line in listed] == [(event.kind, event.id) for event in events]


def test_time_is_utc(log: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the machine's zone is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    structlog.get_logger("handfast").info("x")
    monkeypatch.undo()
    time.tzset()
    stamp = lines(log)[0]["timestamp"]
    assert abs(int(stamp[11:13]) - time.gmtime().tm_hour) in {0, 1, 23}


def test_entries_that_are_plain_already_are_lines_like_all_others(log: Path):
    """One turn of the machinery for all, and the same fields in the same places."""
    structlog.get_logger("handfast").info("x", number=1, name="ü")
    tell([{"number": 1, "name": "ü", "event": "x"}, {"event": "y"}])
    one, other, last = lines(log)
    assert {**other, "timestamp": ""} == {**one, "timestamp": ""}
    assert list(other) == list(one)
    assert last["event"] == "y"
    assert log.read_bytes().isascii()


def test_entries_are_not_told_where_the_level_leaves_them_out(log: Path):
    """They are lines of level info; and no entries are no line."""
    tell([])
    logging.getLogger().setLevel(logging.WARNING)
    tell([{"event": "x"}])
    assert lines(log) == []
