from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handfast.access.authority import ForeignAuthority
from handfast.access.world_file import parse_world
from handfast.base.windows import to_unix
from handfast.io import standing_files
from handfast.io.standing_files import LATER_S, SOON_S, StandingFiles
from handfast.trust.standing import Standing, Word
from tests.support.clock import FakeClock
from tests.support.partners import partner, roots_pem

ACME, OTHER = partner("Acme"), partner("Other")
ONE, TWO = "1" * 64, "2" * 64


def authorities(
    name: str = "acme", responder: str = "http://127.0.0.1:1/", of: Any = ACME
) -> dict[str, ForeignAuthority]:
    entry = {
        "roots_pem": roots_pem(of),
        "hosts": ["a.test"],
        "identities": [{"match": {"common_name": "*"}, "identity": "acme/{common_name}"}],
        "revocation": {"ocsp": responder},
    }
    host = {"listen": 8443, "routes": [{"path": "/", "upstream": "http://a", "allow": []}]}
    plain = {"trust_domain": "example.org", "authorities": {name: entry}, "hosts": {"a.test": host}}
    return dict(parse_world(json.dumps(plain)).authorities)


HERE = authorities()


class Agent:
    """An agent's files, and what it learns."""

    def __init__(self, directory: Path, clock: FakeClock) -> None:
        self.directory, self.clock = directory, clock
        self.files = self.anew()

    def anew(self) -> StandingFiles:
        """Begin anew, as after a kill."""
        self.files = StandingFiles(self.directory / "agent" / "standings", self.clock)
        self.files.follow(HERE)
        return self.files

    def said(self, word: str, life: int = 600) -> Standing:
        now = to_unix(self.clock.now())
        return Standing(Word(word), now, now + life, now + 60)

    async def keep(self, word: str, certificate: str = ONE, life: int = 600) -> Standing:
        said = self.said(word, life)
        await self.files.record(HERE["acme"], certificate).keep(said)
        return said

    async def recall(self, certificate: str = ONE, of: ForeignAuthority | None = None) -> Standing | None:
        return await self.files.record(of or HERE["acme"], certificate).recall()

    @property
    def path(self) -> Path:
        (found,) = (self.directory / "agent" / "standings").iterdir()
        return found

    async def written(self) -> dict[str, list[object]]:
        """Wait until what was kept is on the disk, and give it."""
        await self.clock.advance(SOON_S)
        async with asyncio.timeout(5):
            while any(shelf.written < shelf.version for shelf in self.files._shelves.values()):
                await asyncio.sleep(0.001)
            for shelf in self.files._shelves.values():
                async with shelf.writing:
                    pass
        return json.loads(self.path.read_bytes())


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path, FakeClock())


async def test_what_was_learned_is_there_after_a_kill(agent: Agent):
    """As it was, in a file that only its owner reads; another certificate is not known."""
    said = await agent.keep("good")
    assert (await agent.written())[ONE] == ["good", said.since, said.until, said.renew]
    assert agent.path.stat().st_mode & 0o777 == 0o600
    assert agent.path.parent.stat().st_mode & 0o777 == 0o700
    agent.anew()
    assert await agent.recall() == said
    assert await agent.recall(TWO) is None


async def test_no_restart_brings_a_good_back(agent: Agent):
    """Whoever takes it back is on the disk before anybody hears it, so that a kill at any moment forgets nothing of it."""
    await agent.keep("good")
    await agent.written()
    revoked = await agent.keep("revoked")
    assert json.loads(agent.path.read_bytes())[ONE][0] == "revoked"
    agent.anew()
    assert await agent.recall() == revoked
    await agent.keep("good", TWO)
    await agent.written()
    await agent.keep("unknown", TWO)
    assert TWO not in json.loads(agent.path.read_bytes())
    agent.anew()
    assert await agent.recall(TWO) is None


async def test_what_counts_no_more_is_not_recalled(agent: Agent):
    """A good has an end, and does not begin in the future; a revocation has neither."""
    good, revoked = await agent.keep("good", life=600), await agent.keep("revoked", TWO)
    await agent.files.close()
    began = agent.clock.now()
    for later, known in (
        (599, [good, revoked]),
        (600, [None, revoked]),
        (-1, [None, revoked]),
        (10**8, [None, revoked]),
    ):
        agent.clock.set(began + timedelta(seconds=later))
        agent.anew()
        assert [await agent.recall(), await agent.recall(TWO)] == known


async def test_it_belongs_to_the_authority_its_cas_and_its_responder(agent: Agent):
    """Whoever replaces one of them begins with nothing, and the file is gone."""
    await agent.keep("good")
    await agent.files.close()
    for changed in (authorities(responder="http://127.0.0.1:2/"), authorities(of=OTHER), authorities("other")):
        (other,) = changed.values()
        agent.anew()
        assert await agent.recall(of=other) is None
    assert await agent.recall()
    agent.files.follow(changed)
    assert list((agent.directory / "agent" / "standings").iterdir()) == []
    assert await agent.recall() is None


def wide(path: Path) -> None:
    path.chmod(0o644)


def large(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" " * standing_files.MOST_OCTETS)


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


FUTURE = 2**50


@pytest.mark.parametrize(
    "spoil",
    [
        wide, large, text(""), text("[]"), text("[" * 100_000), text('{"1": 2}'),
        text(json.dumps({ONE: ["good", 0, FUTURE, 0]})), text(json.dumps({ONE: ["good", -1, 2**39, 0]})),
        text(json.dumps({ONE: ["fine", 0, 2**39, 0]})), text(json.dumps({ONE: ["good", 0, 2**39]})),
        text(json.dumps({ONE: ["good", 0.5, 2**39, 0]})), text(json.dumps({ONE: ["good", 0, 2**39, 0], "../x": ["good", 0, 2**39, 0]})),
    ],
)  # fmt: skip
async def test_a_file_that_is_not_ours_says_nothing(agent: Agent, spoil: Callable[[Path], None]):
    """One that others could write, that is too large or damaged, or has times that nobody wrote: all of it is asked for again."""
    await agent.keep("good")
    await agent.files.close()
    spoil(agent.path)
    agent.anew()
    assert await agent.recall() is None
    await agent.keep("good")
    await agent.written()
    agent.anew()
    assert await agent.recall()


async def test_it_is_bounded(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    """The oldest goes first; a file with more than that is none of ours."""
    monkeypatch.setattr(standing_files, "MOST_KEPT", 3)
    names = [f"{number:064x}" for number in range(5)]
    for name in names:
        await agent.keep("good", name)
    await agent.keep("good", names[2])
    assert list(await agent.written()) == [names[3], names[4], names[2]]
    monkeypatch.setattr(standing_files, "MOST_KEPT", 2)
    agent.anew()
    assert await agent.recall(names[3]) is None


async def test_the_largest_file_can_be_read_again(agent: Agent):
    """As many as are kept, with the longest words and times."""
    shelf = await agent.files._shelf(HERE["acme"])
    long = 2**40 - 1
    shelf.held.update({f"{number:064x}": Standing(Word.REVOKED, long, long, long) for number in range(10_000)})
    await agent.keep("revoked", f"{10_000:064x}")
    agent.anew()
    assert await agent.recall(f"{9_999:064x}")
    assert await agent.recall(f"{0:064x}") is None


async def test_many_words_are_few_writes(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    """New ones share one a second, those that say the same again one in half a minute, and revocations at once share what comes together."""
    writes: list[int] = []
    replace = standing_files._replace

    def counted(path: Path, content: bytes) -> None:
        writes.append(len(content))
        replace(path, content)

    monkeypatch.setattr(standing_files, "_replace", counted)
    names = [f"{number:064x}" for number in range(50)]
    for name in names:
        await agent.keep("good", name)
    assert len(await agent.written()) == 50
    assert len(writes) == 1
    for name in names:
        await agent.keep("good", name)
    await agent.clock.advance(LATER_S - 1)
    assert len(writes) == 1
    await agent.clock.advance(1)
    await agent.written()
    assert len(writes) == 2
    await asyncio.gather(*(agent.keep("revoked", name) for name in names))
    assert len(writes) <= 4
    assert {word for word, *_ in json.loads(agent.path.read_bytes()).values()} == {"revoked"}


async def test_a_disk_that_fails_stops_nobody_and_keeps_nothing_old(agent: Agent, monkeypatch: pytest.MonkeyPatch):
    """A revocation that cannot be written takes the file with it, as that says "good"."""
    await agent.keep("good")
    await agent.written()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("os.replace", full)
    monkeypatch.setattr(Path, "replace", full)
    await agent.keep("revoked")
    assert list((agent.directory / "agent" / "standings").iterdir()) == []
    assert (await agent.recall()).word is Word.REVOKED  # type: ignore[union-attr]
    agent.anew()
    assert await agent.recall() is None
