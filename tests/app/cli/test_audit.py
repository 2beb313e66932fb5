import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.app.cli.terminal import handfast
from tests.app.sites import Site

LEDGER = Path(".handfast/ledger.sqlite")
ROOT = ".handfast/authority/root.pem"


@pytest.fixture
async def here(here: Site) -> Site:
    """Give a running control plane with some events."""
    for n in range(4):
        await here.issue(f"w{n}")
    return here


def tamper(*statements: str) -> None:
    """Write to the ledger past the server."""
    with closing(sqlite3.connect(LEDGER)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_chain_that_holds(here: Site):
    """It is said, with what was checked."""
    assert (await handfast("audit", "checkpoint", "--out", "c.json")).code == 0
    assert Path("c.json").stat().st_mode & 0o777 == 0o644
    for more in ([], ["--checkpoint", "c.json"], ["--checkpoint", "c.json", "--roots", ROOT]):
        shown = await handfast("audit", "verify", *more)
        assert (shown.code, shown.err) == (0, "")
        assert shown.out.startswith("the audit chain holds: 5 events, links 1 to 5\n")
        assert ("it has the checkpoint's link 5" in shown.out) == bool(more)
    assert json.loads((await handfast("audit", "verify", "--json")).out)["faults"] == []
    assert here


@pytest.mark.usefixtures("here")
async def test_what_was_changed_is_told_with_its_place():
    """Exit code 1, one line a fault, and the first in the error."""
    await handfast("audit", "verify")
    tamper("update events set body = replace(body, 'w1', 'w9') where seq = 3")
    shown = await handfast("audit", "verify")
    assert shown.code == 1
    assert shown.out == "link 3, event 3: changed: the event, or its link, is not what was sealed\n"
    assert "first link 3" in shown.err
    shown = await handfast("audit", "verify", "--json")
    assert json.loads(shown.out)["faults"] == [{"damage": "changed", "number": 3, "seq": 3}]


@pytest.mark.usefixtures("here")
async def test_a_missing_end_needs_the_checkpoint():
    """Without it the chain holds; with it, it is too short. The file alone says the same."""
    Path("c.json").write_text((await handfast("audit", "checkpoint")).out)
    tamper("delete from events where seq > 3", "delete from audit_links where number > 3")
    assert (await handfast("audit", "verify")).code == 0
    for where in ([], ["--ledger", str(LEDGER), "--roots", ROOT]):
        shown = await handfast("audit", "verify", "--checkpoint", "c.json", *where)
        assert shown.code == 1
        assert shown.out.startswith("link 3: truncated: ")


@pytest.mark.usefixtures("here")
async def test_a_checkpoint_that_is_none_is_two():
    """A touched one, another file, and a file without its roots."""
    said = json.loads((await handfast("audit", "checkpoint")).out)
    Path("touched.json").write_text(json.dumps({**said, "number": 2}))
    Path("other.json").write_text("{}")
    for words in (
        ["--checkpoint", "touched.json"],
        ["--checkpoint", "other.json"],
        ["--checkpoint", "none.json"],
        ["--ledger", str(LEDGER)],
        ["--ledger", "none", "--roots", ROOT],
    ):
        shown = await handfast("audit", "verify", *words)
        assert (shown.code, shown.out) == (2, "")
        assert shown.err.startswith("handfast: error: ")
