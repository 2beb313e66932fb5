import io
import os
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput, Unavailable
from handfast.base.spiffe import TrustDomain
from handfast.io import backup
from handfast.io.authorities import create_authority, open_authority
from handfast.io.backup import JUMP, Manifest, back_up, restore
from handfast.io.encoding import decode, encode, from_plain
from handfast.io.ledger import SqlLedger
from handfast.io.sealed import Passphrase
from handfast.io.sqlite import SqliteDatabase
from tests.io.ledger.builders import NOW, ids, intent, issue, joined, revoked
from tests.support.clock import FakeClock
from tests.support.ledger import revoked_live

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"0123456789abcdef")
LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Give a data directory with an authority, some other files, and a ledger of one revoked certificate."""
    directory = tmp_path / "data"
    directory.mkdir(0o700)
    create_authority(directory / "authority", DOMAIN, FakeClock(NOW), PASSPHRASE)
    (directory / "agent").mkdir(0o700)
    for name in ("agent/credential.pem", "handfast.log", "lock", "agent/envoy.sock", "agent/old.tmp"):
        (directory / name).write_text(name)
    (directory / "agent" / "link.pem").symlink_to("/etc/hostname")
    database = await SqliteDatabase.open(directory / "ledger.sqlite")
    ledger = await SqlLedger.open(database)
    await issue(ledger, "0a")
    await ledger.revoke(["0a"], NOW, "superseded", [revoked("0a")])
    for _ in range(3):
        await ledger.next_counter("crl")
    await ledger.seal(NOW)
    await database.close()
    return directory


def put_back(archive: Path, data: Path) -> Manifest:
    return restore(archive, data, LATER, "test")


async def test_what_was_saved_comes_back(data: Path, tmp_path: Path):
    """Files, authority and ledger are what they were; logs, locks, sockets and links stay behind."""
    archive, new = tmp_path / "a.tar", tmp_path / "new"
    made = back_up(data, archive, NOW)
    assert archive.stat().st_mode & 0o777 == 0o600
    assert put_back(archive, new) == made
    assert {member.path for member in made.members} == {
        "agent/credential.pem",
        *(f"authority/{path.name}" for path in (data / "authority").iterdir()),
        "ledger.sqlite",
    }
    assert {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()} == {m.path for m in made.members}
    assert {path.stat().st_mode & 0o777 for path in new.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (new, *new.rglob("*")) if path.is_dir()} == {0o700}
    theirs, ours = (open_authority(place / "authority", DOMAIN, PASSPHRASE) for place in (data, new))
    assert theirs.issuing_der == ours.issuing_der
    assert made.open_keys == ()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_a_restored_ledger_goes_on_ahead(data: Path, tmp_path: Path):
    """Numbers of lists and events never go back; what was revoked is; the restoration is an event, and the chain holds."""
    back_up(data, tmp_path / "a.tar", NOW)
    put_back(tmp_path / "a.tar", tmp_path / "new")
    database = await SqliteDatabase.open(tmp_path / "new" / "ledger.sqlite")
    ledger = await SqlLedger.open(database)
    assert [one.serial for one in await revoked_live(ledger, NOW)] == ["0a"]
    assert await ledger.next_counter("crl") == JUMP + 4
    assert ledger.changes.value == JUMP + 1
    *before, last = await ledger.page()
    assert (last[1].kind, last[1].at, last[1].backup_at) == ("platform.restored", LATER, NOW)
    assert last[0] == before[-1][0] + JUMP + 1
    assert await ledger.seal(LATER) == 1
    assert (await ledger.chain_head()).number == 3
    await database.close()


async def test_a_backup_beside_a_writer_is_whole(data: Path, tmp_path: Path):
    """The ledger is copied as of one moment while a server writes to it, and the server does not wait."""
    database = await SqliteDatabase.open(data / "ledger.sqlite")
    ledger = await SqlLedger.open(database)
    await issue(ledger, "0b")
    writer = database._writer
    writer.execute("begin immediate")
    writer.execute("delete from events")
    back_up(data, tmp_path / "a.tar", NOW)
    writer.execute("commit")
    await database.close()
    put_back(tmp_path / "a.tar", tmp_path / "new")
    restored = await SqliteDatabase.open(tmp_path / "new" / "ledger.sqlite")
    assert (await ids(await SqlLedger.open(restored)))[:-1] == ["issued-0a", "revoked-0a", "issued-0b"]
    await restored.close()


async def test_keys_that_lie_open_are_named(tmp_path: Path):
    """The archive is as secret as what is in it, and its maker is told."""
    (tmp_path / "data").mkdir(0o700)
    create_authority(tmp_path / "data" / "authority", DOMAIN, FakeClock(NOW), None)
    await (await SqliteDatabase.open(tmp_path / "data" / "ledger.sqlite")).close()
    made = back_up(tmp_path / "data", tmp_path / "a.tar", NOW)
    assert made.open_keys == ("authority/issuing-key.pem", "authority/ocsp-key.pem", "authority/root-key.pem")


async def test_other_trust_domains_come_along(data: Path, tmp_path: Path):
    """Each has a ledger of its own below the first one's directory."""
    below = data / "domains" / "other.org"
    below.mkdir(0o700, parents=True)
    database = await SqliteDatabase.open(below / "ledger.sqlite")
    await (await SqlLedger.open(database)).append([joined("theirs")])
    back_up(data, tmp_path / "a.tar", NOW)
    await database.close()
    put_back(tmp_path / "a.tar", tmp_path / "new")
    restored = await SqliteDatabase.open(tmp_path / "new" / "domains" / "other.org" / "ledger.sqlite")
    ledger = await SqlLedger.open(restored)
    assert (await ids(ledger))[0] == "theirs"
    assert await ledger.next_counter("crl") == JUMP + 1
    await restored.close()


async def test_an_authority_that_changes_meanwhile_is_read_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Files and ledger fit together; where they never do, it is said."""
    snapshot, turns = backup._snapshot, iter(range(100))

    def rotating(ledger: Path, copy: Path) -> Path:
        copy.unlink(missing_ok=True)
        if (turn := next(turns)) in turning:
            (data / "authority" / "root.crl.pem").write_text(f"{turn}")
        return snapshot(ledger, copy)

    monkeypatch.setattr(backup, "_snapshot", rotating)
    turning = range(1, 2)
    next(turns)
    back_up(data, tmp_path / "a.tar", NOW)
    put_back(tmp_path / "a.tar", tmp_path / "new")
    assert (tmp_path / "new" / "authority" / "root.crl.pem").read_text() == "1"
    turning = range(100)
    with pytest.raises(Unavailable):
        back_up(data, tmp_path / "b.tar", NOW)
    assert not (tmp_path / "b.tar").exists()


async def test_nothing_is_overwritten(data: Path, tmp_path: Path):
    """Neither an archive nor a directory with anything in it."""
    (tmp_path / "a.tar").write_text("precious")
    with pytest.raises(BadInput, match="no backup is overwritten"):
        back_up(data, tmp_path / "a.tar", NOW)
    assert (tmp_path / "a.tar").read_text() == "precious"
    back_up(data, tmp_path / "b.tar", NOW)
    with pytest.raises(BadInput, match="something in this directory"):
        put_back(tmp_path / "b.tar", data)
    (tmp_path / "empty").mkdir(0o755)
    put_back(tmp_path / "b.tar", tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o700


async def test_a_directory_in_use_is_left_alone(data: Path, tmp_path: Path):
    """A platform holds its lock."""
    import fcntl  # noqa: PLC0415

    back_up(data, tmp_path / "a.tar", NOW)
    used = tmp_path / "used"
    used.mkdir()
    with (used / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="runs with"):
            put_back(tmp_path / "a.tar", used)


def test_a_directory_without_a_ledger_is_not_saved(tmp_path: Path):
    """The hint says what to do where PostgreSQL has it."""
    with pytest.raises(BadInput) as caught:
        back_up(tmp_path, tmp_path / "a.tar", NOW)
    assert "--database" in caught.value.hint


async def test_a_damaged_ledger_is_not_saved(data: Path, tmp_path: Path):
    """A backup that could not be restored is none."""
    (data / "ledger.sqlite").write_bytes(b"no database, and yet of some length" * 100)
    with pytest.raises(BadInput):
        back_up(data, tmp_path / "a.tar", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# Archives that are not ours


def members(archive: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(archive) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar]


def pack(archive: Path, packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(archive, "w") as tar:
        for info, content in packed:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def flip(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    info, content = packed[1]
    packed[1] = info, bytes([content[0] ^ 1]) + content[1:]


def drop(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    del packed[1]


def add(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    packed.append((tarfile.TarInfo("more"), b"x"))


def twice(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    packed.append(packed[1])


def link(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    info = packed[1][0]
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"


def leave(path: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        manifest = packed[0][1].replace(b'"path":"agent/credential.pem"', f'"path":"{path}"'.encode())
        assert manifest != packed[0][1]
        packed[0] = packed[0][0], manifest
        packed[1][0].name = path

    return change


def newer(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    packed[0] = packed[0][0], packed[0][1].replace(b'"version":1', b'"version":2')


def headless(packed: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    del packed[0]


@pytest.mark.parametrize(
    "spoil",
    [
        flip,
        drop,
        add,
        twice,
        link,
        newer,
        headless,
        leave("../out"),
        leave("/out"),
        leave("a/../../out"),
        leave("a//b"),
    ],
)
async def test_an_archive_that_is_not_as_its_manifest_says_leaves_nothing(
    data: Path, tmp_path: Path, spoil: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]
):
    """Changed, missing, added or doubled files, links, and paths that lead out: nothing comes of it, nowhere."""
    back_up(data, tmp_path / "a.tar", NOW)
    packed = members(tmp_path / "a.tar")
    spoil(packed)
    pack(tmp_path / "b.tar", packed)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match=r"b\.tar"):
        put_back(tmp_path / "b.tar", tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", [0, 100, 600, 5000])
async def test_an_archive_that_is_cut_short_leaves_nothing(data: Path, tmp_path: Path, size: int):
    """Wherever it ends."""
    back_up(data, tmp_path / "a.tar", NOW)
    os.truncate(tmp_path / "a.tar", size)
    with pytest.raises(BadInput, match=r"a\.tar"):
        put_back(tmp_path / "a.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_an_archive_whose_ledger_is_none_leaves_nothing(data: Path, tmp_path: Path):
    """Though the manifest agrees."""
    back_up(data, tmp_path / "a.tar", NOW)
    packed = members(tmp_path / "a.tar")
    manifest = from_plain(Manifest, decode(packed[0][1]))
    assert encode(manifest) == packed[0][1]
    with closing(sqlite3.connect(tmp_path / "empty.sqlite")) as empty:
        empty.execute("create table x (y)")
        empty.commit()
    body = (tmp_path / "empty.sqlite").read_bytes()
    kept = [one for one in manifest.members if one.path != "ledger.sqlite"]
    import hashlib  # noqa: PLC0415

    fake = backup.Member("ledger.sqlite", len(body), hashlib.sha256(body).hexdigest())
    changed = Manifest(1, NOW, (*kept, fake), ())
    pack(tmp_path / "b.tar", [(packed[0][0], encode(changed)), *packed[1:-1], (packed[-1][0], body)])
    with pytest.raises(BadInput):
        put_back(tmp_path / "b.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


async def test_an_intent_from_before_is_known_after(data: Path, tmp_path: Path):
    """What was about to be signed at the moment of the backup is settled by the platform that starts on it."""
    database = await SqliteDatabase.open(data / "ledger.sqlite")
    await (await SqlLedger.open(database)).record_intent(intent("0c"))
    back_up(data, tmp_path / "a.tar", NOW)
    await database.close()
    put_back(tmp_path / "a.tar", tmp_path / "new")
    restored = await SqliteDatabase.open(tmp_path / "new" / "ledger.sqlite")
    assert [one.serial for one in await (await SqlLedger.open(restored)).interrupted(LATER)] == ["0c"]
    await restored.close()
