"""The one door to time, so that tests need not wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What time it is, and waiting for an event."""

    def time(self) -> float:
        """Return the seconds since the epoch. May jump: only for what is written down, never for durations."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back: for durations within one process."""
        ...

    async def wait(self, event: asyncio.Event, timeout: float) -> bool:
        """Wait until `event` is set, `timeout` seconds at most; say whether it was."""
        ...


class SystemClock:
    """The machine's own clock."""

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, timeout: float) -> bool:
        """Wait until `event` is set, `timeout` seconds at most; say whether it was."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await event.wait()
        return event.is_set()
