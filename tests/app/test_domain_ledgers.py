from pathlib import Path

import pytest

from handfast.app.domain_ledgers import address_at, address_for
from handfast.app.domains import Settings, add_domain
from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.postgres_session import Address
from handfast.io.schemas import schema_of

DEV = TrustDomain("dev.example")
FIRST = Address("postgresql:///ledger", "postgresql:///ledger")
ANY = ("127.0.0.1", 0)


def test_a_directory_says_whose_ledger_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """However it is named: by a path that leads there, or from within. A directory that was never added is a first one's."""
    added = add_domain(tmp_path, DEV, Settings(api=ANY, admin=ANY)).directory
    (tmp_path / "link").symlink_to(added)
    monkeypatch.chdir(added)
    for one in (added, tmp_path / "link", Path(), Path("..") / added.name):
        assert address_for(one, FIRST).schema == schema_of(DEV)
    (tmp_path / "domains" / "other").mkdir()
    for one in (tmp_path, tmp_path / "domains" / "other", tmp_path / "nowhere"):
        assert address_for(one, FIRST) == FIRST


def test_a_path_in_an_archive_says_whose_ledger_it_is():
    """The directory's own, and those of further trust domains in it."""
    assert address_at("ledger.sqlite", FIRST) == FIRST
    assert address_at("domains/dev.example/ledger.sqlite", FIRST).schema == schema_of(DEV)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "other.sqlite",
        "domains/ledger.sqlite",
        "domains/dev.example/other.sqlite",
        "elsewhere/dev.example/ledger.sqlite",
        "domains/dev.example/domains/dev.example/ledger.sqlite",
        "/domains/dev.example/ledger.sqlite",
        'domains/x"; drop schema public; --/ledger.sqlite',
        "domains/DEV/ledger.sqlite",
    ],
)
def test_no_other_path_leads_to_a_ledger(path: str):
    """An archive may say what it likes: no schema has a name that is no trust domain's."""
    with pytest.raises(BadInput):
        address_at(path, FIRST)
