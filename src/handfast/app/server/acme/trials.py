"""Tries challenges in the background, and keeps how each came out.

Decides how many are tried at once. A trial that is lost with its server is begun anew when somebody asks for its order.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from handfast.app.server.platform import Platform
from handfast.base.events import AcmeValidationFailed
from handfast.base.refusal import HandfastError, Refusal
from handfast.io.ids import new_event_id
from handfast.trust.acme.accounts import Account
from handfast.trust.acme.orders import Challenge, Order, begin, conclude, find
from handfast.trust.acme.problems import AcmeError, Problem, problem_of

AT_ONCE = 32
MOST_WAITING = 512

_log = structlog.get_logger("handfast")


@dataclass(frozen=True, slots=True)
class _Trial:
    """One challenge that is tried."""

    account: Account
    order: Order
    place: int
    challenge: Challenge

    @property
    def name(self) -> str:
        return self.order.authorizations[self.place].name


class Trials:
    """The trials under way on this server."""

    def __init__(self, platform: Platform) -> None:
        """Try nothing yet."""
        self._platform = platform
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, account: Account, order: Order, place: int, challenge: Challenge) -> Order | Problem:
        """Begin to try a challenge, unless it is tried or decided already; give its order."""
        if len(self._tasks) >= MOST_WAITING:
            return Problem(AcmeError.RATE_LIMITED, "too many challenges are being tried; come back in a while")
        now = self._platform.clock.now()
        outcome = await self._platform.ledger.change_acme_order(
            order.id, lambda one: begin(one, place, challenge.kind, now)
        )
        if outcome is None or isinstance(outcome, Problem):
            return outcome or Problem(AcmeError.MALFORMED, "there is no such order", status=404)
        after, ours = outcome
        if ours:
            task = asyncio.create_task(self._run(_Trial(account, after, place, find(after, place, challenge.kind))))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return after

    async def close(self) -> None:
        """Stop trying. What was being tried begins anew, later or on another server."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, trial: _Trial) -> None:
        try:
            async with self._slots:
                await self._try(trial)
        except HandfastError as error:  # the trial counts as lost, and is begun anew when somebody asks
            _log.error("acme.trial-lost", order=trial.order.id, error=str(error))

    async def _try(self, trial: _Trial) -> None:
        challenge = trial.challenge
        refusal = await self._platform.acme.lookout.prove(
            challenge.kind, trial.name, challenge.token, trial.account.key.thumbprint
        )
        failure, now = problem_of(refusal, trial.name) if refusal else None, self._platform.clock.now()
        events = [self._failed(trial, refusal)] if refusal else []
        await self._platform.ledger.change_acme_order(
            trial.order.id, lambda one: conclude(one, trial.place, challenge, failure, now), lambda _: events
        )

    def _failed(self, trial: _Trial, refusal: Refusal) -> AcmeValidationFailed:
        return AcmeValidationFailed(
            id=new_event_id(),
            at=self._platform.clock.now(),
            account=trial.account.id,
            order=trial.order.id,
            dns=trial.name,
            challenge=trial.challenge.kind.value,
            reason=refusal.reason,
            evidence=dict(refusal.evidence),
        )
