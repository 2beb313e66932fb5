"""The time of this machine. The one place that asks for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class SystemClock:
    """The `Clock` of real life. Its wall time may jump; its sleep does not."""

    def now(self) -> datetime:
        """Give the time, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
