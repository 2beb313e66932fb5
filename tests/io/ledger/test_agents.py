import asyncio
import hashlib
import secrets
from pathlib import Path

import pytest

from handfast.base.refusal import BadInput
from handfast.io.database import Database, step
from handfast.io.ledger import AgentRecord, SqlLedger
from handfast.io.ledger.enrolment import token_id
from handfast.io.migrations import load
from handfast.io.sqlite import SqliteDatabase
from handfast.trust.joining import Grant
from tests.io.ledger.builders import DAY, HOUR, NOW, ids, intent, invited, issue, joined, revoked
from tests.support.stores import Store

WEB = AgentRecord(name="web-1", serial="0a", joined_at=NOW, last_seen=NOW)


def content(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_a_token_works_once(ledger: SqlLedger):
    """The first use is good; the second is not, whoever comes with it."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token))
    assert await ledger.use_join_token(token, NOW)
    assert await ledger.use_join_token(token, NOW) is None


async def test_one_token_lets_one_of_many_in(ledger: SqlLedger):
    """However many come at the same time, one gets through."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token))
    used = await asyncio.gather(*(ledger.use_join_token(token, NOW) for _ in range(20)))
    assert [grant for grant in used if grant] == [Grant(token_id(token), "")]


async def test_an_expired_or_unknown_token_is_not_good(ledger: SqlLedger):
    """A token ends as its expiry begins; one that was never made is not good either."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token))
    assert await ledger.use_join_token(token, NOW + HOUR) is None
    for stranger in (token + "x", token[:-1], token.upper(), "", "\ud800"):
        assert await ledger.use_join_token(stranger, NOW) is None
    assert await ledger.use_join_token(token, NOW)


async def test_a_token_is_nowhere_in_the_database(ledger: SqlLedger, db: Database, tmp_path: Path):
    """Who steals the database has no token: only SHA-256 is kept, and it is no token itself."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token))
    kept = (
        content(tmp_path)
        if isinstance(db, SqliteDatabase)
        else repr(await db.fetch("select * from join_tokens")).encode()
    )
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert token.encode() not in kept
    assert digest.encode() in kept
    assert await ledger.use_join_token(digest, NOW) is None


@pytest.mark.parametrize("token", ["", "x" * 21, "x" * 257])
async def test_a_weak_token_is_refused(ledger: SqlLedger, token: str):
    """A token too short to be random, or too long to be one, is not taken."""
    with pytest.raises(BadInput):
        await ledger.add_join_token(token, invited(token))


async def test_a_token_is_added_once(ledger: SqlLedger):
    """Adding a used token again does not revive it."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token))
    await ledger.use_join_token(token, NOW)
    with pytest.raises(BadInput) as caught:
        await ledger.add_join_token(token, invited(token, NOW + DAY))
    assert token not in str(caught.value)
    assert await ledger.use_join_token(token, NOW) is None


async def test_expired_tokens_are_forgotten(ledger: SqlLedger):
    """Used or not, in batches; those that still count stay."""
    tokens = [secrets.token_urlsafe(24) for _ in range(5)]
    for number, token in enumerate(tokens):
        await ledger.add_join_token(token, invited(token, NOW + number * HOUR))
    assert await ledger.prune_join_tokens(NOW + 3 * HOUR, limit=2) == 2
    assert [await ledger.prune_join_tokens(NOW + 3 * HOUR) for _ in range(2)] == [1, 0]
    assert await ledger.use_join_token(tokens[4], NOW)


async def test_a_token_says_whom_it_was_made_for(ledger: SqlLedger):
    """The name that the operator gave comes back with the token's id, and the event has the same id."""
    token = secrets.token_urlsafe(24)
    await ledger.add_join_token(token, invited(token, agent="web-1"))
    assert await ledger.use_join_token(token, NOW) == Grant(token_id(token), "web-1")
    ((_, event),) = await ledger.page(kinds={"agent.invited"})
    assert event == invited(token, agent="web-1")


async def test_a_name_is_given_once_unless_a_token_was_made_for_it(ledger: SqlLedger):
    """The first to come is told that it is new, all others that it is not; and none of them changes whose it is."""
    first, late, made = Grant("a", ""), Grant("b", ""), Grant("c", "web-1")
    given = await asyncio.gather(*(ledger.take_agent_name("web-1", first) for _ in range(10)))
    assert sorted(given) == [False] + [True] * 9
    assert await ledger.take_agent_name("web-1", late)
    await ledger.free_agent_name("web-1", late)
    assert await ledger.take_agent_name("web-1", made)
    await ledger.free_agent_name("web-1", first)
    assert await ledger.take_agent_name("web-1", late)
    await ledger.free_agent_name("web-1", made)
    assert not await ledger.take_agent_name("web-1", late)


async def test_a_token_for_another_name_changes_nothing(ledger: SqlLedger):
    """Also where it was made for some name."""
    await ledger.take_agent_name("web-1", Grant("a", ""))
    await ledger.take_agent_name("web-1", Grant("b", "web-2"))
    await ledger.free_agent_name("web-1", Grant("b", "web-2"))
    assert await ledger.take_agent_name("web-1", Grant("c", ""))


async def test_names_from_before_are_given(store: Store):
    """A ledger of an older version knows its agents, those that it forgot, and tokens, which are for new names."""
    older = await store.open(load()[:8])
    await older.write(
        step("insert into agents values ('web-1', '0a', 0, 0, '', '[]')"),
        step(
            "insert into join_tokens (sha256, expires_at) values ($1, $2)", hashlib.sha256(b"t" * 32).hexdigest(), 2**60
        ),
    )
    ledger = await SqlLedger.open(older)
    for number, name in enumerate(("handfast/agent/web-1", "handfast/agent/gone", "handfast/agents/x", "payments")):
        await issue(ledger, f"0{number}", name=name)
    await older.close()
    database = await store.open()
    ledger = await SqlLedger.open(database)
    rows = await database.fetch("select name, taken_by from agent_names order by name")
    assert [tuple(row) for row in rows] == [("gone", ""), ("web-1", "")]
    assert await ledger.use_join_token("t" * 32, NOW) == Grant(token_id("t" * 32), "")
    await database.close()


async def test_an_agent_is_kept_with_its_event(ledger: SqlLedger):
    """A new agent has reported nothing yet."""
    await ledger.add_agent(joined("e1"))
    assert await ledger.agent("web-1") == WEB
    assert await ids(ledger) == ["e1"]
    assert await ledger.agent("web-2") is None


async def test_an_agent_that_joins_again_begins_anew(ledger: SqlLedger):
    """Its certificate is the new one, and what it said before is forgotten."""
    await ledger.add_agent(joined("e1"))
    await ledger.agent_reported("web-1", NOW, "digest", [{"reason": "envoy.died"}])
    await ledger.add_agent(joined("e2", serial="0b", at=NOW + HOUR))
    later = NOW + HOUR
    assert await ledger.agents() == [AgentRecord(name="web-1", serial="0b", joined_at=later, last_seen=later)]


async def test_what_an_agent_says_is_kept(ledger: SqlLedger):
    """Digest, findings and sign of life; each call changes what it is about."""
    await ledger.add_agent(joined("e1"))
    findings = [{"reason": "envoy.died", "evidence": {"code": "1"}, "at": NOW}]
    assert await ledger.agent_reported("web-1", NOW + HOUR, "digest", findings)
    assert await ledger.agent_renewed("web-1", "0b", NOW + 2 * HOUR)
    assert await ledger.agent_seen("web-1", NOW + 3 * HOUR)
    assert await ledger.agent("web-1") == AgentRecord(
        name="web-1",
        serial="0b",
        joined_at=NOW,
        last_seen=NOW + 3 * HOUR,
        acknowledged="digest",
        findings=({"reason": "envoy.died", "evidence": {"code": "1"}, "at": "2026-01-31T12:00:00.123456Z"},),
    )


async def test_a_sign_of_life_never_goes_back(ledger: SqlLedger):
    """A report that was overtaken by a later one does not make the agent look away."""
    await ledger.add_agent(joined("e1"))
    await ledger.agent_seen("web-1", NOW + DAY)
    await ledger.agent_seen("web-1", NOW + HOUR)
    found = await ledger.agent("web-1")
    assert found is not None
    assert found.last_seen == NOW + DAY


async def test_an_unknown_agent_is_told_apart(ledger: SqlLedger):
    """What a stranger says is not kept, and the caller knows."""
    assert await ledger.agent_seen("web-1", NOW) is False
    assert await ledger.agent_renewed("web-1", "0a", NOW) is False
    assert await ledger.agent_reported("web-1", NOW, "digest", []) is False
    assert await ledger.agents() == []


async def test_findings_are_bounded(ledger: SqlLedger):
    """An agent cannot fill the ledger with findings, by number or by size."""
    await ledger.add_agent(joined("e1"))
    for findings in ([{}] * 101, [{"raw": "x" * 65536}]):
        with pytest.raises(BadInput):
            await ledger.agent_reported("web-1", NOW, "digest", findings)


async def test_agents_are_listed_by_name(ledger: SqlLedger):
    """Pages follow each other by the last name."""
    for name in ("c", "a", "b"):
        await ledger.add_agent(joined(f"e{name}", agent=name))
    assert [agent.name for agent in await ledger.agents(limit=2)] == ["a", "b"]
    assert [agent.name for agent in await ledger.agents(limit=2, after="b")] == ["c"]


async def test_an_agent_has_the_end_of_its_certificate_and_whether_it_is_revoked(ledger: SqlLedger):
    """One whose certificate this ledger does not have has neither."""
    for name, serial in (("a", "0a"), ("b", "0b"), ("c", "0c")):
        await ledger.add_agent(joined(f"e{name}", agent=name, serial=serial))
    for serial in ("0a", "0b"):
        await issue(ledger, serial)
    await ledger.revoke(["0b"], NOW, "unspecified", [revoked("0b")])
    ends = intent("0a").not_after
    told = [(agent.name, agent.ends, agent.revoked) for agent in await ledger.agents()]
    assert told == [("a", ends, False), ("b", ends, True), ("c", None, False)]
    assert await ledger.agent("b") == (await ledger.agents())[1]
