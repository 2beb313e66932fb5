"""The audit chain of a server: sealed as events come, and shown so that whoever asks can check it for himself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from starlette.requests import Request

from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.certificates import NEWEST, bounded_number
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.inventory_messages import ChainAnswer, ChainEntry, ChainLink, ChainStatement
from handfast.app.server.platform import Platform
from handfast.io import audit
from handfast.io.audit import PAGE
from handfast.trust.audit import Statement

REST_S = 0.2


async def keep_sealed(platform: Platform) -> None:
    """Link events as they come, for ever. It rests first, so that many go as one, and whom an event concerns need not wait for the disk."""
    async for _ in platform.ledger.event_head.subscribe():
        await platform.clock.sleep(REST_S)
        await audit.seal_all(platform.ledger, platform.clock.now())


@dataclass(frozen=True, slots=True)
class Audit:
    """The endpoints of the audit chain."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="GET", path="/v1/audit/chain", handler=self.chain, roles=OPERATORS, answer=ChainAnswer,
                query=("after", "after_seq", "limit"),
            ),
            Endpoint(
                method="POST", path="/v1/audit/checkpoints", handler=self.checkpoint, roles=OPERATORS,
                answer=ChainStatement, status=201,
            ),
        )  # fmt: skip

    async def chain(self, _: Caller, request: Request, __: None) -> ChainAnswer:
        """Give links after a number, with the events after another up to the last that they bind."""
        query, ledger = request.query_params, self.platform.ledger
        after = bounded_number(query.get("after"), "after", 0, NEWEST)
        after_seq = bounded_number(query.get("after_seq"), "after_seq", 0, NEWEST)
        limit = max(bounded_number(query.get("limit"), "limit", PAGE, PAGE), 1)
        if after == 0:
            await audit.seal_all(ledger, self.platform.clock.now())
        anchor, page = await ledger.chain_anchor(), await ledger.chain_page(after, after_seq, limit)
        return ChainAnswer(
            anchor=_statement(anchor) if anchor else None,
            links=[ChainLink(**asdict(one)) for one in page.links],
            entries=[ChainEntry(**asdict(one)) for one in page.entries],
            unsealed=await ledger.unsealed(),
        )

    async def checkpoint(self, _: Caller, __: Request, ___: None) -> ChainStatement:
        """Sign where the audit chain ends now."""
        platform = self.platform
        return _statement(await audit.checkpoint(platform.ledger, platform.authority, platform.clock.now()))


def _statement(said: Statement) -> ChainStatement:
    return ChainStatement(**{**asdict(said), "purpose": said.purpose.value})
