"""Whether what Envoy acknowledged is in force: Envoy acknowledges a listener before its workers serve it.

Each listener that is added or changed goes to each worker, and Envoy counts both. So it is in force once as many have arrived
as were handed out. One that was replaced before it was ready never arrives; for that there is a bound in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handfast.base.refusal import Unavailable
from handfast.io.envoy_admin import EnvoyAdmin
from handfast.io.ports import Clock

LOOK_EVERY_S = 0.01
LONGEST_WAIT_S = 1.0

_MANAGER = "listener_manager"
WARMING, STARTED = f"{_MANAGER}.total_listeners_warming", f"{_MANAGER}.workers_started"
ADDED, CHANGED = f"{_MANAGER}.listener_added", f"{_MANAGER}.listener_modified"
CREATED, NOT_CREATED = f"{_MANAGER}.listener_create_success", f"{_MANAGER}.listener_create_failure"
WORKERS = "server.concurrency"
_ALL = (WARMING, STARTED, ADDED, CHANGED, CREATED, NOT_CREATED, WORKERS)


@dataclass(frozen=True, slots=True)
class Listeners:
    """Envoy's counts: ``handed`` to workers and ``arrived`` there, each one a listener and worker; ``ready`` with none in preparation."""

    handed: int = 0
    arrived: int = 0
    ready: bool = False

    @staticmethod
    def of(stats: Mapping[str, int]) -> Listeners:
        """Read them."""
        return Listeners(
            handed=(stats.get(ADDED, 0) + stats.get(CHANGED, 0)) * stats.get(WORKERS, 0),
            arrived=stats.get(CREATED, 0) + stats.get(NOT_CREATED, 0),
            ready=stats.get(STARTED) == 1 and not stats.get(WARMING),
        )

    def has_all_since(self, before: Listeners) -> bool:
        """Tell whether all that was handed out since then has arrived. Counts that shrank are those of a new Envoy."""
        if self.handed < before.handed:
            before = Listeners()
        return self.ready and self.arrived - before.arrived >= self.handed - before.handed


class InForce:
    """Waits until what was acknowledged last is in force."""

    def __init__(self, admin: EnvoyAdmin, clock: Clock) -> None:
        """Ask ``admin``."""
        self._admin, self._clock = admin, clock
        self._before = Listeners()

    async def wait(self) -> None:
        """Wait until workers have what was handed to them, at most a second longer than Envoy prepares listeners."""
        waited = 0.0
        while True:
            seen = await self._look()
            waited = waited + LOOK_EVERY_S if seen.ready else 0.0
            if seen.has_all_since(self._before) or waited > LONGEST_WAIT_S:
                self._before = seen
                return
            await self._clock.sleep(LOOK_EVERY_S)

    async def _look(self) -> Listeners:
        try:
            return Listeners.of(await self._admin.stats(rf"^({'|'.join(_ALL)})$"))
        except Unavailable:
            return Listeners()
