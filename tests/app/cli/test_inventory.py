import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handfast.app.cli.inventory import _show_table
from handfast.app.cli.tables import Columns, csv_line, table
from handfast.app.server.inventory_messages import InventoryRow
from handfast.trust.facts import facts
from tests.app.cli.terminal import handfast
from tests.app.server.status_sites import status_site
from tests.app.sites import Site
from tests.support.pki import Pki


async def test_a_day_with_others_certificates(here: Site):
    """Import, own, search, show: one certificate of a partner and one of ours."""
    held, theirs = await here.issue("payments"), Pki("Partner").leaf("client", san_uris=(), dns=("client.partner",))
    # A key in the file stays where it is.
    Path("partner.pem").write_bytes(theirs.key_pem + theirs.cert_pem)
    shown = await handfast("cert", "import", "partner.pem", "--owner", "team-p")
    assert shown.code == 0
    assert shown.out.startswith("partner.pem: 1 imported\n")
    assert (await handfast("cert", "import", "partner.pem")).out == "partner.pem: 0 imported, 1 known\n"
    assert (await handfast("cert", "own", "payments", "team-p")).out == "payments: team-p\n"
    lines = (await handfast("cert", "list", "--owner", "team-p")).out.splitlines()
    assert lines[0].split() == ["serial", "name", "state", "until", "owner", "dns"]
    assert sorted(line.split()[1:3] for line in lines[1:]) == [["client.partner", "watched"], ["payments", "issued"]]
    fingerprint = facts(theirs.cert_der).fingerprint
    shown = await handfast("cert", "show", fingerprint)
    assert "added by: " in shown.out
    assert "owner:    team-p" in shown.out
    assert theirs.cert_pem.decode().strip() in shown.out
    assert held.leaf.serial in (await handfast("cert", "show", held.leaf.fingerprint)).out


async def test_show_tells_what_a_certificate_demands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A must-staple certificate is told apart, from the inventory and from a file, in text and as JSON."""
    monkeypatch.chdir(tmp_path)
    world = "trust_domain: example.org\nworkloads: {payments: {must_staple: true}, ledger: {}}\n"
    (tmp_path / ".handfast").mkdir(0o700)
    async with status_site(tmp_path / ".handfast") as running:
        await running.apply(world)
        for name, told in (("payments", ["demands:  a stapled OCSP response (must-staple)"]), ("ledger", [])):
            held = await running.issue(name)
            Path("cert.pem").write_text(held.chain_pem)
            for what in ("cert.pem", held.leaf.serial, held.leaf.fingerprint):
                shown = await handfast("cert", "show", what)
                assert [line for line in shown.out.splitlines() if line.startswith("demands:")] == told, what
            leaf, issuing = json.loads((await handfast("cert", "show", "cert.pem", "--json")).out)
            assert (leaf["must_staple"], issuing["must_staple"]) == (bool(told), False)


async def test_an_export_is_whole(here: Site):
    """JSON and CSV have every page's rows, and are what a program reads."""
    for n in range(3):
        await here.issue(f"w{n}", dns=["a.internal", "b.internal"])
    rows = json.loads((await handfast("cert", "list", "--format", "json")).out)
    assert [row["name"] for row in rows] == ["w2", "w1", "w0", "handfast/server"]
    lines = list(csv.DictReader(io.StringIO((await handfast("cert", "list", "--format", "csv")).out)))
    assert [line["fingerprint"] for line in lines] == [row["fingerprint"] for row in rows]
    assert lines[0]["dns"] == "a.internal b.internal"
    assert json.loads((await handfast("cert", "list", "--name", "none", "--json")).out) == []


async def test_many_pages_are_one_list(here: Site, monkeypatch: pytest.MonkeyPatch):
    """Whatever a page holds."""
    monkeypatch.setattr("handfast.app.server.inventory.PAGE", 2)
    for n in range(4):
        await here.issue(f"w{n}")
    assert len(json.loads((await handfast("cert", "list", "--json")).out)) == 5


async def test_what_cannot_be_imported_names_its_file(here: Site):
    """Nothing is imported where one of the files is none."""
    Path("good.pem").write_bytes(Pki().leaf().cert_pem)
    Path("bad.pem").write_text("nothing")
    shown = await handfast("cert", "import", "good.pem", "bad.pem")
    assert shown.code == 2
    assert "bad.pem" in shown.err
    assert len(json.loads((await handfast("cert", "list", "--json")).out)) == 1
    assert here


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_stranger_s_name_is_no_formula(cell: str):
    """What a spreadsheet would compute begins with an apostrophe, or is no control character any more."""
    assert next(csv.reader([csv_line(["x", cell])]))[1][0] in "'\\"


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=9), min_size=1, max_size=4))
def test_a_cell_is_read_back(row: list[str]):
    """Commas and quotes are kept; only the apostrophe was added."""
    assert [cell.removeprefix("'") for cell in next(csv.reader([csv_line(row)]))] == [c.removeprefix("'") for c in row]


def test_a_table_comes_in_pages():
    """Columns are as wide as what has come so far: a page that is out stays as it is, and no later one is narrower."""
    columns = Columns(("name", "n"))
    assert list(columns.lines([("a", "1")])) == ["name  n", "a     1"]
    assert list(columns.lines([])) == []
    assert list(columns.lines([("longer", "2"), ("b", "33")])) == ["longer  2", "b       33"]
    assert list(columns.lines([("c", "4")])) == ["c       4"]


async def test_a_table_waits_for_no_later_page(capsys: pytest.CaptureFixture[str]):
    """What a page holds is out before the next one is asked for."""

    async def pages() -> AsyncIterator[list[InventoryRow]]:
        for name in ("first", "second"):
            yield [_row(name)]
            assert name in capsys.readouterr().out

    await _show_table(pages())


def _row(name: str) -> InventoryRow:
    now = datetime.now(UTC)
    return InventoryRow(
        source="issued", fingerprint="ab", serial="01", name=name, dns=[], identity="", state="issued", not_before=now,
        not_after=now, issuer="", subject="", owner="", requester="", recorded_at=now,
    )  # fmt: skip


def test_a_table_moves_no_cursor():
    """Control characters are spelled out, and columns align."""
    assert list(table(("a", "b"), [("\x1b[2J", "x"), ("1", "\n")])) == ["a        b", "\\x1b[2J  x", "1        \\n"]
