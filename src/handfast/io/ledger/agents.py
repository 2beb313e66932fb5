"""Agents, their names, and the tokens they join with.

Decides that a token works once, and only before it expires: one statement takes it, so two agents with one token can never
both succeed. So it is with names: one statement gives a name that was never given, so of two tokens one is the first. Refuses to
decide who may join: `handfast.trust.joining` does. Keeps a token's SHA-256 alone; a token is random and long, so a slow hash would
add nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from handfast.base.events import AgentInvited, AgentJoined
from handfast.base.refusal import BadInput
from handfast.io.database import Conflict, Row, step
from handfast.io.encoding import decode, encode, from_plain
from handfast.io.ledger.enrolment import token_id
from handfast.io.ledger.events import MAX_BATCH, bounded, from_micros, to_micros
from handfast.io.ledger.staples import StapleEnds
from handfast.io.records import CertificateState
from handfast.trust.joining import Grant

SHORTEST_TOKEN, LONGEST_TOKEN = 22, 256
MAX_FINDINGS = 100
MAX_FINDINGS_BYTES = 64 * 1024
_SEEN = "last_seen = case when last_seen < $2 then $2 else last_seen end"
_SELECT = """select agents.name, agents.serial, joined_at, last_seen, acknowledged, findings, not_after, state
    from agents left join certificates on certificates.serial = agents.serial"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """One agent.

    ``serial`` is its certificate's, and ``ends`` when that ends (None where this ledger does not have it); ``acknowledged`` is
    the digest of the slice that it runs, empty at first; ``findings`` are JSON objects as the agent wrote them.
    """

    name: str
    serial: str
    joined_at: datetime
    last_seen: datetime
    acknowledged: str = ""
    findings: tuple[dict[str, Any], ...] = ()
    ends: datetime | None = None
    revoked: bool = False


class Agents(StapleEnds):
    """The agents, what they staple, and the join tokens."""

    async def add_join_token(self, token: str, event: AgentInvited) -> None:
        """Let ``token`` be used once, for the name and until the time that the event says. It is not kept, its SHA-256 is.

        Raises:
            BadInput: it is shorter than 22 characters (128 bits in base64), longer than 256, or was added before.
        """
        if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
            raise BadInput(f"a join token has {SHORTEST_TOKEN} to {LONGEST_TOKEN} characters", hint="make it random")
        sql = "insert into join_tokens (sha256, agent, expires_at) values ($1, $2, $3)"
        try:
            await self._commit(step(sql, _hash(token), event.agent, to_micros(event.expires_at)), events=[event])
        except Conflict as conflict:
            raise BadInput("the join token was added before", hint="make a new one") from conflict

    async def use_join_token(self, token: str, now: datetime) -> Grant | None:
        """Use ``token`` up, and give what it was made for. Unknown, used and expired are one answer: a stranger learns nothing."""
        sql = """update join_tokens set used_at = $2 where sha256 = $1 and used_at is null and expires_at > $2
            returning agent"""
        results = await self._db.write(step(sql, _hash(token), to_micros(now)))
        return Grant(token_id(token), results[0].rows[0][0]) if results[0].rows else None

    async def take_agent_name(self, agent: str, grant: Grant) -> bool:
        """Give a name, and tell whether it was given before. Then it changes hands only where the token was made for it."""
        sql = "insert into agent_names (name, taken_by) values ($1, $2) on conflict (name) do nothing"
        steps = [step(sql, agent, grant.id)]
        if grant.agent == agent:
            steps.append(step("update agent_names set taken_by = $2 where name = $1", agent, grant.id))
        results = await self._db.write(*steps)
        return results[0].count == 0

    async def free_agent_name(self, agent: str, grant: Grant) -> None:
        """Take back a name for which a token was used, and nothing came of it; not one that another token has taken since."""
        await self._db.write(step("delete from agent_names where name = $1 and taken_by = $2", agent, grant.id))

    async def prune_join_tokens(self, before: datetime, limit: int = MAX_BATCH) -> int:
        """Forget at most ``limit`` tokens that expired before ``before``, used or not, and give how many.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = """delete from join_tokens where sha256 in
            (select sha256 from join_tokens where expires_at < $1 order by expires_at limit $2)"""
        results = await self._db.write(step(sql, to_micros(before), bounded(limit)))
        return results[0].count

    async def add_agent(self, event: AgentJoined) -> None:
        """Keep a new agent, or one that joined again under its name, with its event."""
        sql = """insert into agents (name, serial, joined_at, last_seen, acknowledged, findings)
            values ($1, $2, $3, $3, '', '[]')
            on conflict (name) do update set serial = excluded.serial, joined_at = excluded.joined_at,
            last_seen = excluded.last_seen, acknowledged = '', findings = '[]'"""
        await self._commit(step(sql, event.agent, event.serial, to_micros(event.at)), events=[event])

    async def agent_seen(self, name: str, at: datetime) -> bool:
        """Keep that an agent was heard of, and tell whether it is known. Time never goes back."""
        sql = f"update agents set {_SEEN} where name = $1"  # noqa: S608 - words of ours
        results = await self._db.write(step(sql, name, to_micros(at)))
        return results[0].count == 1

    async def agent_renewed(self, name: str, serial: str, at: datetime) -> bool:
        """Keep the serial of an agent's new certificate, and tell whether the agent is known."""
        sql = f"update agents set {_SEEN}, serial = $3 where name = $1"  # noqa: S608 - words of ours
        results = await self._db.write(step(sql, name, to_micros(at), serial))
        return results[0].count == 1

    async def agent_reported(
        self, name: str, at: datetime, acknowledged: str, findings: Sequence[Mapping[str, Any]]
    ) -> bool:
        """Keep the digest that an agent runs and its findings as they are now; tell whether the agent is known.

        Raises:
            BadInput: there are more than 100 findings, they are longer than 64 KiB, or cannot be written as JSON.
        """
        said = encode(findings)
        if len(findings) > MAX_FINDINGS or len(said) > MAX_FINDINGS_BYTES:
            raise BadInput(f"more than {MAX_FINDINGS} findings, or {MAX_FINDINGS_BYTES} bytes of them", key="findings")
        sql = f"update agents set {_SEEN}, acknowledged = $3, findings = $4 where name = $1"  # noqa: S608 - words of ours
        results = await self._db.write(step(sql, name, to_micros(at), acknowledged, said.decode()))
        return results[0].count == 1

    async def agent_known(self, name: str) -> bool:
        """Tell whether there is an agent of this name."""
        return await self._db.one("select 1 from agents where name = $1", name) is not None

    async def agent(self, name: str) -> AgentRecord | None:
        """Give the agent of this name."""
        row = await self._db.one(f"{_SELECT} where agents.name = $1", name)
        return _agent(row) if row else None

    async def agents(self, limit: int = MAX_BATCH, after: str = "") -> list[AgentRecord]:
        """Give the agents by name, those after ``after``.

        Raises:
            BadInput: the limit is not from 1 to 1000.
        """
        sql = f"{_SELECT} where agents.name > $1 order by agents.name limit $2"
        return [_agent(row) for row in await self._db.fetch(sql, after, bounded(limit))]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _agent(row: Row) -> AgentRecord:
    name, serial, joined_at, last_seen, acknowledged, findings, ends, state = row
    return AgentRecord(
        name=name,
        serial=serial,
        joined_at=from_micros(joined_at),
        last_seen=from_micros(last_seen),
        acknowledged=acknowledged,
        findings=from_plain(tuple[dict[str, Any], ...], decode(findings.encode())),
        ends=None if ends is None else from_micros(ends),
        revoked=state == CertificateState.REVOKED.value,
    )
