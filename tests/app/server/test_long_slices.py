"""A slice with very many revoked certificates: made, sent, read and published while everybody else goes on."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509

from handfast.access.slice import make_slice, parse_slice
from handfast.app.server.callers import Role
from handfast.io import off_loop
from handfast.io.ledger.events import to_micros
from tests.app.sites import Site, site

T = TypeVar("T")
COUNT = 40_000


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a server with very many revoked certificates in its ledger."""
    async with site(tmp_path) as made:
        _fill(tmp_path / "ledger.sqlite", made)
        yield made


def _fill(ledger: Path, made: Site) -> None:
    """Revoke as many, straight into the ledger's table."""
    now, issuer = to_micros(made.clock.now()), made.server.platform.authority.issuer_facts.key_id.hex()
    rows = (
        (f"{at * 7919 + 1:040x}", issuer, now + 10**12 + at, now - at, f"{at * 104729:064x}") for at in range(COUNT)
    )
    with contextlib.closing(sqlite3.connect(ledger)) as db, db:
        db.executemany(
            """insert into certificates (serial, issuer, identity, name, dns, not_before, not_after, requester, state, tbs, der,
            fingerprint, recorded_at, revoked_at, revocation_reason) values (?1, ?2, '', '', '[]', 0, ?3, '', 'revoked', x'', x'',
            ?5, 0, ?4, 'superseded')""",
            rows,
        )


async def least_held(work: Callable[[], Coroutine[None, None, T]]) -> tuple[T, float]:
    """Do the work three times, and give the longest that the loop was held, as a part of all of it: the least, as others use the machine too."""
    held = []
    for _ in range(3):
        doing, turns = asyncio.create_task(work()), [time.monotonic()]
        while not doing.done():
            await asyncio.sleep(0.001)
            turns.append(time.monotonic())
        held.append(max(after - before for before, after in pairwise(turns)) / (turns[-1] - turns[0]))
    return await doing, min(held)


async def test_nobody_waits_while_it_is_made(here: Site):
    """Never for as much as a sixth of the work; and it has all that is revoked, in its list and by fingerprint."""
    slices = here.server.platform.slices
    _, held = await least_held(slices.refresh)
    prepared = slices.current.value
    assert prepared
    slice_ = parse_slice(prepared.body)
    assert slice_.digest == prepared.digest
    assert len(slice_.denied) == len(slices.denied) == COUNT
    assert list(slice_.denied) == sorted(slice_.denied)
    assert slice_.denied[5] in slices.denied
    lists = [x509.load_pem_x509_crl(text.encode()) for text in slice_.crls]
    assert sorted(map(len, lists)) == [0, COUNT]
    assert held < 1 / 6


async def test_nobody_waits_while_it_is_read(here: Site):
    """In a thread, as an agent does; a look-up in it is a look at a few."""
    await here.server.platform.slices.refresh()
    prepared = here.server.platform.slices.current.value
    assert prepared
    slice_, held = await least_held(lambda: off_loop.run(parse_slice, prepared.body, long=True))
    assert held < 1 / 3
    assert slice_.is_long
    assert all(slice_.denies(one) for one in slice_.denied[::997])
    assert not any(slice_.denies(one) for one in ("", "f" * 64, slice_.denied[7][:-1] + "g"))
    assert not make_slice(revision=1, world=slice_.world, roots=(), issuers=()).is_long


async def test_it_is_sent_in_pieces(here: Site, monkeypatch: pytest.MonkeyPatch):
    """The agent gets the same octets, and their length beforehand."""
    agent = await here.being(Role.AGENT)
    await here.server.platform.slices.refresh()
    for most in (1 << 40, off_loop.LONG_BYTES, 999):
        monkeypatch.setattr(off_loop, "LONG_BYTES", most)
        answer = await agent.send("GET", "/v1/agents/self/world")
        prepared = here.server.platform.slices.current.value
        assert prepared
        assert answer.content == prepared.body
        assert int(answer.headers["content-length"]) == len(prepared.body)
        assert answer.headers["etag"] == f'"{prepared.digest}"'
