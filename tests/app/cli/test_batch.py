"""Many certificates by one command."""

import io
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handfast.app.server.batch_messages import MOST_IN_BATCH
from tests.app.cli.terminal import handfast
from tests.app.sites import DOMAIN, Site


async def issued(here: Site) -> set[str]:
    """Give the names that have a certificate, but for the platform's own."""
    rows = (await here.operator.send("GET", "/v1/certificates")).json()["certificates"]
    return {row["name"] for row in rows if not row["name"].startswith("handfast/")}


async def test_each_name_gets_a_certificate_of_its_own_key(here: Site, tmp_path: Path):
    """More names than one request takes; comments and empty lines are no names; files are as those of a single one."""
    names = [f"team/w{number}" for number in range(MOST_IN_BATCH + 5)]
    lines = "\n".join(f"{name} {name.rpartition('/')[2]}.internal  also.{DOMAIN}" for name in names)
    (tmp_path / "names.txt").write_text(f"# the fleet\n\n{lines}\n")
    shown = await handfast("cert", "batch", "names.txt", "--out", "fleet", "--ttl", "90m")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.endswith(f"{len(names)} issued\n")
    assert await issued(here) == set(names)
    keys = set()
    for number in range(len(names)):
        place = tmp_path / "fleet" / f"team-w{number}"
        leaf, issuing = x509.load_pem_x509_certificates((place / "cert.pem").read_bytes())
        (root,) = x509.load_pem_x509_certificates((place / "ca.pem").read_bytes())
        leaf.verify_directly_issued_by(issuing)
        issuing.verify_directly_issued_by(root)
        key = load_pem_private_key((place / "key.pem").read_bytes(), None)
        assert key.public_key() == leaf.public_key()
        assert stat.S_IMODE((place / "key.pem").stat().st_mode) == 0o600
        sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert sans.get_values_for_type(x509.DNSName) == [f"w{number}.internal", f"also.{DOMAIN}"]
        keys.add(leaf.serial_number)
    assert len(keys) == len(names)


async def test_what_is_refused_leaves_no_file(here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The others are issued; what is no name cannot choose where files go."""
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n../evil\nhandfast/server\n..\nfine\n"))
    shown = await handfast("cert", "batch", "-", "--out", "fleet")
    assert shown.code == 1
    assert shown.out.endswith("2 issued, 3 refused\n")
    assert [line.partition(":")[0] for line in shown.err.splitlines()] == [
        "refused ../evil",
        "refused handfast/server",
        "refused ..",
    ]
    assert sorted(path.name for path in (tmp_path / "fleet").iterdir()) == ["fine", "good"]
    assert {path.name for path in tmp_path.iterdir()} == {".handfast", "fleet"}
    assert await issued(here) == {"good", "fine"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "has 0 names"), ("# none\n", "has 0 names"), ("a/b\nc\na-b\n", "names.txt:3: its files would replace those of line 1")],
    ids=["empty", "comments", "one place"],
)  # fmt: skip
async def test_a_file_that_makes_no_sense_issues_nothing(text: str, said: str, here: Site, tmp_path: Path):
    """It is read whole before the first request."""
    (tmp_path / "names.txt").write_text(text)
    shown = await handfast("cert", "batch", "names.txt")
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err
    assert await issued(here) == set()


async def test_a_name_cannot_write_to_the_terminal(here: Site, tmp_path: Path):
    """A refusal shows the name with its marks escaped."""
    (tmp_path / "names.txt").write_text("a\x1b[2Jb\n")
    shown = await handfast("cert", "batch", "names.txt")
    assert shown.code == 1
    assert "\x1b" not in shown.err
    assert await issued(here) == set()
