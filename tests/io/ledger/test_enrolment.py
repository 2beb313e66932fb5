import asyncio
import hashlib
import secrets
from dataclasses import replace

import pytest

from handfast.base.events import EnrolmentGranted, EnrolmentRevoked
from handfast.base.refusal import BadInput
from handfast.io.database import Database
from handfast.io.ledger import SqlLedger
from handfast.io.ledger.enrolment import token_id
from tests.io.ledger.builders import DAY, HOUR, NOW


def granted(token: str, uses: int = 1, name: str = "sensor") -> EnrolmentGranted:
    return EnrolmentGranted(
        id=f"g-{token_id(token)}", at=NOW, grant=token_id(token), name=name, uses=uses, expires_at=NOW + HOUR,
        requester="uid:0",
    )  # fmt: skip


async def made(ledger: SqlLedger, uses: int = 1, name: str = "sensor") -> str:
    token = secrets.token_urlsafe(24)
    await ledger.add_enrolment_token(token, granted(token, uses, name))
    return token


async def test_a_token_works_as_often_as_it_says(ledger: SqlLedger):
    """Each use takes one; then it is like one that never was."""
    token = await made(ledger, uses=2)
    assert await ledger.enrolment_name(token, NOW) == "sensor"
    assert [await ledger.use_enrolment_token(token, NOW) for _ in range(3)] == [True, True, False]
    assert await ledger.enrolment_name(token, NOW) is None


async def test_many_at_once_get_no_more(ledger: SqlLedger):
    """However many come at the same time, as many get through as the token says."""
    token = await made(ledger, uses=3)
    assert sum(await asyncio.gather(*(ledger.use_enrolment_token(token, NOW) for _ in range(20)))) == 3


async def test_an_expired_or_unknown_token_is_not_good(ledger: SqlLedger):
    """A token ends as its expiry begins; looking at it takes nothing."""
    token = await made(ledger)
    for stranger in (token + "x", token.swapcase(), "", "\ud800", hashlib.sha256(token.encode()).hexdigest()):
        assert await ledger.enrolment_name(stranger, NOW) is None
        assert await ledger.use_enrolment_token(stranger, NOW) is False
    assert await ledger.enrolment_name(token, NOW + HOUR) is None
    assert await ledger.use_enrolment_token(token, NOW + HOUR) is False
    assert await ledger.use_enrolment_token(token, NOW) is True


async def test_only_a_hash_is_kept(db: Database, ledger: SqlLedger):
    """Who reads the database or its events has no token."""
    token = await made(ledger)
    ((kept,),) = await db.fetch("select sha256 from enrolment_tokens")
    assert kept == hashlib.sha256(token.encode()).hexdigest()
    ((_, event),) = await ledger.page(kinds=["enrolment.granted"])
    assert event == granted(token)
    assert token not in repr(event)


async def test_withdrawn_tokens_are_gone(ledger: SqlLedger):
    """All tokens of a name that still worked are taken back, and nobody else's."""
    mine, other, spent = await made(ledger), await made(ledger, name="ledger"), await made(ledger)
    assert await ledger.use_enrolment_token(spent, NOW)
    event = EnrolmentRevoked(id="w1", at=NOW, name="sensor", requester="uid:0")
    assert await ledger.withdraw_enrolment_tokens(event) == 1
    assert await ledger.use_enrolment_token(mine, NOW) is False
    assert await ledger.use_enrolment_token(other, NOW) is True
    assert await ledger.withdraw_enrolment_tokens(replace(event, id="w2")) == 0


@pytest.mark.parametrize("token", ["", "x" * 21, "x" * 257])
async def test_a_weak_token_is_refused(ledger: SqlLedger, token: str):
    """A token too short to be random, or too long to be one, is not taken."""
    with pytest.raises(BadInput):
        await ledger.add_enrolment_token(token, granted(token))


async def test_a_token_is_added_once(ledger: SqlLedger):
    """The same token again could raise its count."""
    token = await made(ledger)
    with pytest.raises(BadInput, match="before"):
        await ledger.add_enrolment_token(token, replace(granted(token, uses=9), id="again"))


async def test_expired_tokens_are_forgotten(ledger: SqlLedger, db: Database):
    """Pruning takes those that expired, a bounded number at once."""
    for _ in range(3):
        await made(ledger)
    assert await ledger.prune_enrolment_tokens(NOW) == 0
    assert await ledger.prune_enrolment_tokens(NOW + DAY, limit=2) == 2
    assert await ledger.prune_enrolment_tokens(NOW + DAY) == 1
    assert await db.fetch("select 1 from enrolment_tokens") == []
