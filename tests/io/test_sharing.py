"""Generations on their way between two servers' directories, by a real PostgreSQL."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput
from handfast.base.spiffe import TrustDomain
from handfast.io.authorities import create_authority
from handfast.io.authority_files import ISSUING_KEY, ROOT_KEY
from handfast.io.database import Database, step
from handfast.io.generation_files import issuer_of
from handfast.io.generations import Generations, place_of
from handfast.io.ledger.rotation import Rotations
from handfast.io.ledger.sharing import LEDGER_ID, GenerationFiles
from handfast.io.sealed import Passphrase
from handfast.io.sealed_files import MAX_SEALED_BYTES
from handfast.io.sharing import Sharing, join, open_sharing
from handfast.trust import rotation
from handfast.trust.rotation import Generations as Rows
from handfast.trust.rotation import Stage, Step, Verb
from tests.support.clock import START, FakeClock
from tests.support.stores import PostgresStore, SqliteStore

DOMAIN = TrustDomain("example.org")
PASSPHRASE = Passphrase(b"correct horse battery staple")


@dataclass
class Here:
    """One server's directory over the ledger."""

    directory: Path
    authorities: Generations
    rotations: Rotations
    sharing: Sharing

    async def recall(self) -> Rows:
        """Take what the ledger says."""
        rows = await self.rotations.generations()
        await self.sharing.bring(rows)
        self.authorities.settle(rows)
        return rows

    async def save(self, before: Rows, after: Rows) -> bool:
        """Write a step as a server does."""
        return await self.rotations.save(before, after, (), await self.sharing.steps(before, after))

    async def make(self, *, root: bool = False, compromised: bool = False) -> bool:
        """Begin a rotation where none is coming, and make the next generation."""
        rows = await self.rotations.generations()
        if not rotation.coming(rows):
            begun = rotation.begin(rows, START, root=root, compromised=compromised)
            assert isinstance(begun, tuple)
            assert await self.save(rows, begun)
            rows = begun
        one = rotation.coming(rows)
        assert one
        return await self.save(rows, self.authorities.make(one, rows, START))

    async def take(self, *steps: tuple[Verb, int]) -> None:
        """Take steps."""
        for verb, number in steps:
            rows = await self.rotations.generations()
            assert await self.save(rows, rotation.taken(rows, Step(verb, number), START))
            await self.recall()

    def at(self, number: int) -> Path:
        """Give a generation's directory."""
        return place_of(self.directory, number)


@pytest.fixture
async def db(postgres_store: PostgresStore) -> AsyncIterator[Database]:
    """Give an empty ledger's database, which an authority has claimed."""
    database = await postgres_store.open()
    await database.write(step("insert into meta (key, value) values ($1, $2)", LEDGER_ID, "abc"))
    yield database
    await database.close()


async def server(db: Database, directory: Path, passphrase: Passphrase = PASSPHRASE) -> Here:
    sharing = await open_sharing(directory, passphrase, db)
    assert sharing
    return Here(directory, Generations(directory, DOMAIN, passphrase), Rotations(db), sharing)


@pytest.fixture
async def one(db: Database, tmp_path: Path) -> Here:
    """Give the server that made the authority."""
    create_authority(tmp_path / "one", DOMAIN, FakeClock(), PASSPHRASE)
    here = await server(db, tmp_path / "one")
    assert await here.rotations.save((), here.authorities.first(START))
    await here.sharing.offer(await here.recall())
    return here


@pytest.fixture
async def two(db: Database, one: Here, tmp_path: Path) -> Here:
    """Give a server that joined, and has no root's key."""
    await join(tmp_path / "two", DOMAIN, PASSPHRASE, db)
    here = await server(db, tmp_path / "two")
    await here.recall()
    return here


async def test_a_server_joins_by_the_passphrase_alone(one: Here, two: Here):
    """The same authority, and no root's key."""
    assert two.authorities.current.issuing_der == one.authorities.current.issuing_der
    assert two.authorities.current.root_der == one.authorities.current.root_der
    assert (one.directory / ROOT_KEY).exists()
    assert not (two.directory / ROOT_KEY).exists()
    assert (two.directory / ISSUING_KEY).stat().st_mode & 0o777 == 0o600


async def test_joining_changes_nothing_that_is_there(db: Database, one: Here, tmp_path: Path):
    """A directory that is there is its server's own matter, whatever is in it."""
    (tmp_path / "two").mkdir()
    await join(tmp_path / "two", DOMAIN, PASSPHRASE, db)
    assert list((tmp_path / "two").iterdir()) == []
    assert one.directory.exists()


async def test_nobody_joins_with_another_passphrase_or_another_name(db: Database, one: Here, tmp_path: Path):
    """And nothing is left behind."""
    assert one.directory.exists()
    with pytest.raises(BadInput, match="another passphrase") as caught:
        await join(tmp_path / "two", DOMAIN, Passphrase(b"0123456789abcdef"), db)
    assert "passphrase that the other servers have" in caught.value.hint
    with pytest.raises(BadInput, match=r"trust domain example\.org"):
        await join(tmp_path / "two", TrustDomain("example.net"), PASSPHRASE, db)
    assert not (tmp_path / "two").exists()


async def test_a_false_authority_in_the_database_is_not_joined(db: Database, one: Here, tmp_path: Path):
    """Whoever writes the database can put in an authority of his own, sealed with a passphrase of his own. It does not open."""
    theirs = Passphrase(b"the attacker's own words")
    create_authority(tmp_path / "evil", DOMAIN, FakeClock(), theirs)
    evil = await server(db, tmp_path / "evil", theirs)
    rows = evil.authorities.first(START)
    await db.write(step("update generations set issuer = $1", rows[0].issuer))
    await db.write(*await evil.sharing.steps((), rows))
    with pytest.raises(BadInput, match="another passphrase"):
        await join(tmp_path / "two", DOMAIN, PASSPHRASE, db)
    assert not (tmp_path / "two").exists()
    assert one.directory.exists()


@pytest.mark.parametrize("root", [False, True])
async def test_a_later_generation_travels(one: Here, two: Here, root: bool):
    """It is opened where it was not made, and delivers the same; a new root comes without its key."""
    assert await one.make(root=root)
    await one.take((Verb.PUBLISH, 2), (Verb.SWITCH, 2))
    await two.recall()
    assert two.authorities.current.issuing_der == one.authorities.current.issuing_der
    assert two.authorities.roots == one.authorities.roots
    assert two.authorities.root_crls() == one.authorities.root_crls()
    assert (one.at(2) / ROOT_KEY).exists() == root
    assert not (two.at(2) / ROOT_KEY).exists()


async def test_what_is_retired_has_no_key_anywhere(db: Database, one: Here, two: Here, tmp_path: Path):
    """Nor in the database; whoever joins then gets certificates and lists, and the newest CA with its key."""
    assert await one.make(compromised=True)
    await one.take((Verb.PUBLISH, 2), (Verb.SWITCH, 2))
    await two.recall()
    assert (two.at(1) / ISSUING_KEY).exists()
    await two.take((Verb.RETIRE, 1))
    await one.recall()
    assert not (one.at(1) / ISSUING_KEY).exists()
    assert not (two.at(1) / ISSUING_KEY).exists()
    await join(tmp_path / "three", DOMAIN, PASSPHRASE, db)
    three = await server(db, tmp_path / "three")
    await three.recall()
    assert not (three.at(1) / ISSUING_KEY).exists()
    assert three.authorities.current.issuing_der == one.authorities.current.issuing_der
    assert three.authorities.root_crls() == one.authorities.root_crls()
    assert three.authorities.revoked(START)


async def test_of_two_that_make_one_at_once_the_loser_takes_the_winners(one: Here, two: Here):
    """Its own never counted: neither it nor its key is left."""
    shutil.copy(one.directory / ROOT_KEY, two.directory / ROOT_KEY)
    rows = await one.rotations.generations()
    begun = rotation.begin(rows, START, root=False)
    assert isinstance(begun, tuple)
    assert await one.save(rows, begun)
    made = [(here, here.authorities.make(begun[-1], begun, START)) for here in (one, two)]
    assert [await here.save(begun, after) for here, after in made] == [True, False]
    lost = (two.at(2) / ISSUING_KEY).read_bytes()
    await one.take((Verb.PUBLISH, 2), (Verb.SWITCH, 2))
    await two.recall()
    assert two.authorities.current.issuing_der == one.authorities.current.issuing_der
    assert (two.at(2) / ISSUING_KEY).read_bytes() != lost


async def test_what_the_database_says_does_not_replace_what_counts(db: Database, one: Here, two: Here):
    """A text that was spoilt, or belongs to another generation, keeps a server from nothing that it has already."""
    assert await one.make()
    await one.take((Verb.PUBLISH, 2))
    await two.recall()
    before = {path: path.read_bytes() for path in two.directory.rglob("*.pem")}
    await db.write(
        step("update generation_files set sha256 = 'x' || sha256, sealed = (select sealed from generation_files where generation = 1)")
    )  # fmt: skip
    await one.take((Verb.SWITCH, 2))
    await two.recall()
    assert {path: path.read_bytes() for path in two.directory.rglob("*.pem")} == before
    assert two.authorities.current.issuing_der == one.authorities.current.issuing_der


@pytest.mark.parametrize("spoilt", [b"", b"x" * (MAX_SEALED_BYTES + 1)])
async def test_a_server_that_cannot_open_the_newest_issues_nothing(db: Database, one: Here, two: Here, spoilt: bytes):
    """It says what is wrong, and has left nothing half done."""
    assert await one.make()
    await db.write(step("update generation_files set sealed = $1 where generation = 2", spoilt))
    await one.take((Verb.PUBLISH, 2))
    with pytest.raises(BadInput, match="generation 2 in the database" if len(spoilt) < MAX_SEALED_BYTES else "0002"):
        await two.recall()
    assert not two.at(2).exists()


async def test_a_key_of_a_retired_generation_does_not_come_back(db: Database, one: Here, two: Here):
    """Somebody puts the old text back: nobody takes the key out of it, and at the next start it is gone."""
    old = await GenerationFiles(db).sealed(1)
    assert await one.make()
    await one.take((Verb.PUBLISH, 2), (Verb.SWITCH, 2), (Verb.RETIRE, 1))
    assert old
    await db.write(step("update generation_files set sealed = $1, sha256 = 'old' where generation = 1", old))
    rows = await two.recall()
    assert not (two.at(1) / ISSUING_KEY).exists()
    await two.sharing.offer(rows)
    new = await GenerationFiles(db).sealed(1)
    assert new
    assert ISSUING_KEY in two.sharing._opened(rows[0], old)
    assert ISSUING_KEY not in two.sharing._opened(rows[0], new)


async def test_a_file_that_is_too_large_keeps_a_generation_here_and_stops_nothing(db: Database, one: Here):
    """Neither a start nor a rotation."""
    (one.directory / "large.pem").write_bytes(b"x" * 100_000)
    await db.write(step("delete from generation_files"))
    await one.sharing.offer(await one.rotations.generations())
    assert await GenerationFiles(db).digests() == {}
    assert await one.make()
    await one.take((Verb.PUBLISH, 2))
    assert (await GenerationFiles(db).digests()).keys() == {2}


async def test_what_the_ledger_lacks_is_offered_again(db: Database, one: Here, two: Here, tmp_path: Path):
    """After an upgrade, or where somebody spoilt it: whoever has the files heals it at the next start."""
    assert await one.make()
    await one.take((Verb.PUBLISH, 2))
    table = GenerationFiles(db)
    whole = await table.digests()
    await two.sharing.offer(await two.recall())
    assert await table.digests() == whole
    await db.write(
        step("delete from generation_files where generation = 1"), step("update generation_files set sealed = $1", b"x")
    )
    await two.sharing.offer(await two.rotations.generations())
    assert (await table.digests()).keys() == {1, 2}
    await join(tmp_path / "three", DOMAIN, PASSPHRASE, db)
    three = await server(db, tmp_path / "three")
    assert len(await three.recall()) == 2
    assert issuer_of(three.at(2)) == issuer_of(one.at(2))


async def test_a_generation_with_a_token_or_an_open_key_is_not_in_the_ledger(db: Database, one: Here):
    """What could not travel any more is taken out."""
    (one.directory / "issuing-key.uri").write_text("pkcs11:token=a;object=b")
    await one.sharing.offer(await one.rotations.generations())
    assert await GenerationFiles(db).digests() == {}
    assert not [
        change.args for change in await one.sharing.steps((), await one.rotations.generations()) if len(change.args) > 1
    ]


async def test_nothing_is_shared_without_a_passphrase_or_by_a_file(db: Database, tmp_path: Path):
    """There is nothing that seals, or nobody to share with."""
    assert await open_sharing(tmp_path, None, db) is None
    alone = await SqliteStore(tmp_path / "store.db").open()
    assert await open_sharing(tmp_path, PASSPHRASE, alone) is None
    await alone.close()
    await join(tmp_path / "two", DOMAIN, None, db)
    await join(tmp_path / "two", DOMAIN, PASSPHRASE, db)  # of a ledger that has no generation yet
    assert not (tmp_path / "two").exists()


async def test_a_first_generation_is_never_replaced(one: Here, two: Here):
    """A server whose own authority is another one than the ledger's is told so, and keeps its files."""
    shutil.rmtree(two.directory)
    create_authority(two.directory, DOMAIN, FakeClock(), PASSPHRASE)
    before = issuer_of(two.directory)
    fresh = replace(two, authorities=Generations(two.directory, DOMAIN, PASSPHRASE))
    fresh.sharing._known.clear()
    with pytest.raises(BadInput, match="not the authority that the ledger knows"):
        await fresh.recall()
    assert issuer_of(two.directory) == before != issuer_of(one.directory)
    assert (await fresh.rotations.generations())[0].stage is Stage.ISSUING
