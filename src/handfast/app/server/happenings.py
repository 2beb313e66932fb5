"""Endpoints for events, and for the explanation of a refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from handfast.access.decide import Request as Asked
from handfast.access.decide import Visitor
from handfast.access.explain import Explanation, as_json, as_text, explain
from handfast.access.world_file import parse_world
from handfast.app.server.callers import OPERATORS, Caller
from handfast.app.server.certificates import NEWEST, bounded_number
from handfast.app.server.endpoints import Endpoint
from handfast.app.server.messages import EventList, ExplanationAnswer
from handfast.app.server.platform import Platform
from handfast.base.events import Event, RequestDenied
from handfast.base.reasons import Reason
from handfast.base.refusal import BadInput, Refusal, Refused
from handfast.base.spiffe import SpiffeId
from handfast.doctor.report import story
from handfast.io.encoding import to_plain

PAGE = 500
LONGEST_WAIT = 55
_REVISION = re.compile(r"[0-9]{1,18}")
_POLICY = frozenset(
    {Reason.POLICY_DENIED, Reason.POLICY_NO_MATCH, Reason.CLIENT_NO_CERTIFICATE, Reason.REQUEST_NO_ROUTE}
)


@dataclass(frozen=True, slots=True)
class Happenings:
    """The endpoints that tell what happened, and why."""

    platform: Platform

    def endpoints(self) -> Sequence[Endpoint]:
        """Give the operations."""
        return (
            Endpoint(
                method="GET", path="/v1/events", handler=self.list_events, roles=OPERATORS, answer=EventList,
                query=("after", "limit", "kind", "wait", "last"),
            ),
            Endpoint(
                method="GET", path="/v1/explanations/{id}", handler=self.explain, roles=OPERATORS, answer=ExplanationAnswer
            ),
        )  # fmt: skip

    async def list_events(self, _: Caller, request: Request, __: None) -> EventList:
        """Give events after a number, or the ``last`` few; with ``wait`` (seconds), as soon as there is one."""
        query, ledger = request.query_params, self.platform.ledger
        limit = max(bounded_number(query.get("limit"), "limit", PAGE, PAGE), 1)
        wait = bounded_number(query.get("wait"), "wait", 0, LONGEST_WAIT)
        kinds = query.getlist("kind")
        if last := bounded_number(query.get("last"), "last", 0, PAGE):
            newest = await ledger.recent(last, kinds)
            return _list(newest[::-1], ledger.event_head.value)
        after = bounded_number(query.get("after"), "after", 0, NEWEST)
        head = ledger.event_head.value  # before the page, so that what comes in between is not slept through
        page = await ledger.page(after, limit, kinds)
        if not page and wait:
            await ledger.event_head.wait_for_change(head, wait)
            page = await ledger.page(after, limit, kinds)
        return _list(page, after)

    async def explain(self, _: Caller, request: Request, __: None) -> ExplanationAnswer:
        """Explain a refusal, by the request id that the client got, or by an event's id."""
        event = await self.platform.ledger.event(request.path_params["id"][:128])
        if event is None:
            raise Refused(Refusal(Reason.NOT_FOUND, {"id": request.path_params["id"][:128]}))
        replay = await self._replay(event) if isinstance(event, RequestDenied) else None
        text = "\n".join([*story(event), *(["", as_text(replay, own=self.platform.trust_domain)] if replay else [])])
        return ExplanationAnswer(
            text=text, event=_plain(event), decision=as_json(replay, own=self.platform.trust_domain) if replay else None
        )

    async def _replay(self, event: RequestDenied) -> Explanation | None:
        """Decide again, against the revision that decided. Nothing, where what an agent wrote of it leads to none."""
        if event.reason not in _POLICY or not _REVISION.fullmatch(event.revision):
            return None
        try:
            visitor: Visitor = SpiffeId.parse(event.identity) if event.identity else None
        except BadInput:
            return None
        revision = await self.platform.ledger.revision(int(event.revision))
        host = parse_world(revision.document).hosts.get(event.host) if revision else None
        return explain(host, visitor, Asked(event.method, event.path)) if host else None


def _list(page: Sequence[tuple[int, Event]], otherwise: int) -> EventList:
    return EventList(
        events=[{"seq": seq, **_plain(event)} for seq, event in page], next=page[-1][0] if page else otherwise
    )


def _plain(event: Event) -> dict[str, Any]:
    """Give an event as JSON values, with what its reason means."""
    plain: dict[str, Any] = to_plain(event)
    reason = getattr(event, "reason", None)
    meaning = {"summary": reason.summary, "side": reason.side.value, "hint": reason.hint} if reason else {}
    return {"kind": event.kind, **plain, **meaning}
