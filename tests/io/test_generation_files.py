"""A generation's files, taken out of one real directory and put into another."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import sealed
from handfast.io.authorities import create_authority, open_authority
from handfast.io.authority_files import ROOT_CRL, ROOT_KEY, alone
from handfast.io.generation_files import differs, gather, issuer_of, put
from handfast.io.roots import open_root
from handfast.io.sealed import Passphrase
from tests.support.clock import START, FakeClock

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority once; nobody changes it."""
    place = tmp_path_factory.mktemp("made") / "authority"
    create_authority(place, DOMAIN, FakeClock(), PASSPHRASE)
    return place


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """Give a copy of an authority with sealed keys."""
    shutil.copytree(made, tmp_path / "authority")
    return tmp_path / "authority"


def taken(directory: Path, *, keys: bool = True) -> dict[str, bytes]:
    found = gather(directory, directory, PASSPHRASE, keys=keys)
    assert found is not None
    return found


def test_what_was_put_in_place_opens(directory: Path, tmp_path: Path):
    """With its key, which is as sealed as it was and of mode 0600; and there is no root's key."""
    new = tmp_path / "there" / "authority"
    assert put(new, taken(directory), keys=True)
    theirs, ours = (open_authority(place, DOMAIN, PASSPHRASE) for place in (directory, new))
    assert (theirs.issuing_der, theirs.root_der, theirs.root_crl_pem) == (
        ours.issuing_der,
        ours.root_der,
        ours.root_crl_pem,
    )
    assert not (new / ROOT_KEY).exists()
    assert (new / "issuing-key.pem").stat().st_mode & 0o777 == 0o600
    assert sealed.is_sealed((new / "issuing-key.pem").read_bytes())
    assert not put(new, taken(directory), keys=True)


def test_no_root_key_leaves_by_name_or_by_content(directory: Path):
    """Also under another name, and a file of that name whatever is in it."""
    root_key = (directory / ROOT_KEY).read_bytes()
    (directory / "spare.pem").write_bytes(root_key)
    (directory / "spare.pem").chmod(0o600)
    (directory / "root-key-old.pem").write_bytes(b"what is this")
    found = taken(directory)
    assert not {"spare.pem", "root-key-old.pem", ROOT_KEY} & found.keys()
    assert root_key not in found.values()


def test_files_of_other_kinds_go_along(directory: Path):
    """There is no list of names; a subdirectory, a link and a hidden file are none of it."""
    (directory / "more.pem").write_bytes(b"more")
    (directory / ".hidden").write_bytes(b"hidden")
    (directory / "generations").mkdir()
    (directory / "link.pem").symlink_to("/etc/hostname")
    assert {"more.pem", "issuing.pem"} <= taken(directory).keys()
    assert not {".hidden", "generations", "link.pem", "ledger-id"} & taken(directory).keys()


@pytest.mark.parametrize("name", ["issuing-key.uri", "other-key.uri"])
def test_what_lies_in_a_token_stays_where_it_is(directory: Path, name: str):
    """Nothing of that generation is given, but certificates and lists once no key is asked for."""
    (directory / name).write_text("pkcs11:token=a;object=b")
    assert gather(directory, directory, PASSPHRASE, keys=True) is None
    assert name not in taken(directory, keys=False)
    assert "issuing.pem" in taken(directory, keys=False)


def test_an_open_key_stays_where_it_is(tmp_path: Path):
    """Whoever gave no passphrase then did not mean the database to have the key."""
    create_authority(tmp_path / "open", DOMAIN, FakeClock(), None)
    assert gather(tmp_path / "open", tmp_path / "open", PASSPHRASE, keys=True) is None
    assert not [text for text in taken(tmp_path / "open", keys=False).values() if b"PRIVATE" in text]


def test_without_keys_there_are_none(directory: Path, tmp_path: Path):
    """Neither given nor put in place, whatever was given."""
    assert not [text for text in taken(directory, keys=False).values() if b"PRIVATE" in text]
    assert put(tmp_path / "new", taken(directory), keys=False)
    assert not (tmp_path / "new" / "issuing-key.pem").exists()


def test_a_newer_list_replaces_an_older_one_and_never_the_other_way(directory: Path, tmp_path: Path):
    """The root's keeper signs one now and then; no file but a list is replaced at all."""
    put(tmp_path / "new", taken(directory), keys=True)
    before = taken(directory)
    root = open_root(directory, DOMAIN, PASSPHRASE)
    (directory / ROOT_CRL).write_text(root.crl(START + timedelta(days=1), number=2))
    after = taken(directory)
    assert differs(after, before)
    assert not differs(before, after)
    assert put(tmp_path / "new", after, keys=True)
    assert not put(tmp_path / "new", before, keys=True)
    listed = x509.load_pem_x509_crl((tmp_path / "new" / ROOT_CRL).read_bytes())
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    assert not put(tmp_path / "new", {**after, "issuing-key.pem": b"ENCRYPTED PRIVATE KEY-----"}, keys=True)


def test_another_issuing_authority_is_replaced_whole(directory: Path, tmp_path: Path):
    """Of two servers that made one at the same time, one takes the other's; nothing of its own is left."""
    create_authority(tmp_path / "lost", DOMAIN, FakeClock(), PASSPHRASE)
    assert issuer_of(tmp_path / "lost") != issuer_of(directory)
    assert put(tmp_path / "lost", taken(directory), keys=True)
    assert issuer_of(tmp_path / "lost") == issuer_of(directory)
    assert {path.name for path in (tmp_path / "lost").iterdir()} == taken(directory).keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authority", "lost"]


@pytest.mark.parametrize("name", ["../x.pem", "a/b.pem", "", ".hidden", "root-key.pem", "ledger-id", "x" * 65, "A.pem"])
def test_a_name_that_is_none_of_ours_is_refused(directory: Path, tmp_path: Path, name: str):
    """Nothing is written, neither there nor elsewhere."""
    with pytest.raises(BadInput, match="no files of a generation"):
        put(tmp_path / "new", {**taken(directory), name: b"x"}, keys=True)
    assert not (tmp_path / "new").exists()


def test_two_do_not_put_files_at_the_same_time(directory: Path, tmp_path: Path):
    """A command that makes an authority there holds it."""
    with alone(tmp_path), pytest.raises(Unavailable, match="another process"):
        put(tmp_path / "new", taken(directory), keys=True)
