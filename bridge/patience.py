"""When to come back to a row: soon where it is too early, later and later where something goes wrong.

What goes wrong with one row never holds up the others, and each kind of work on a row has a patience of its own.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from bridge.api import ApiError
from bridge.clock import Clock
from bridge.triggers import Trigger

__all__ = ["LaterError", "Patience", "Work"]

#: A row that has gone wrong this often in a row is reported as stuck.
STUCK = 3
LONGEST = 60.0

_log = logging.getLogger(__name__)


class LaterError(Exception):
    """Not now, and nothing is wrong: come back in `delay` seconds."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


class Work(enum.Enum):
    """What is done on a row, each with a patience of its own."""

    ADVANCE = "advance"
    FOLLOW = "follow"
    DELIVER = "deliver"


@dataclass(frozen=True)
class _Later:
    failures: int
    moment: float
    reason: str = ""


class Patience:
    """Does work on rows, several at a time, and remembers which of them wait and why.

    Args:
        parallel: Rows that are worked on at the same time.
        in_doubt: Seconds in which a request with a lost answer must have shown its effect.
    """

    def __init__(self, clock: Clock, *, parallel: int, in_doubt: float) -> None:
        self._clock = clock
        self._slots = asyncio.Semaphore(parallel)
        self._in_doubt = in_doubt
        self._later: dict[tuple[int, Work], _Later] = {}
        self._doubts: dict[tuple[int, Work], float] = {}

    @property
    def stuck(self) -> list[str]:
        """Why rows that have gone wrong again and again do not come further."""
        return [later.reason for later in self._later.values() if later.failures >= STUCK]

    async def each(
        self, what: Work, work: Callable[[Trigger], Coroutine[Any, Any, None]], rows: Iterable[Trigger]
    ) -> None:
        """Do `work` on each of `rows`; return when all of it has ended.

        Raises:
            Exception: What is no trouble with a single row, after the others are done.
        """

        async def one(trigger: Trigger) -> None:
            async with self._slots:
                await self.guard(what, work, trigger)

        for ended in await asyncio.gather(*(one(trigger) for trigger in rows), return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended

    async def guard(self, what: Work, work: Callable[[Trigger], Coroutine[Any, Any, None]], trigger: Trigger) -> None:
        """Do `work` on a row; where it goes wrong, come back to that row later, and to the others now."""
        key = trigger.key, what
        try:
            await work(trigger)
        except LaterError as later:
            self._later[key] = _Later(0, self._clock.monotonic() + later.delay)
        except (ApiError, ValueError) as error:
            failures = self._later[key].failures + 1 if key in self._later else 1
            delay = min(60.0, 0.25 * 2.0 ** min(failures, 10)) * random.uniform(0.6, 1.0)  # noqa: S311
            self._later[key] = _Later(failures, self._clock.monotonic() + delay, str(error)[:300])
            _log.warning(
                "try again later",
                extra={
                    "repo": trigger.repo,
                    "comment": trigger.comment,
                    "work": what.value,
                    "reason": str(error)[:300],
                    "failures": failures,
                },
            )
        else:
            self._later.pop(key, None)

    def is_due(self, trigger: Trigger, what: Work) -> bool:
        """Say whether `what` may be done on a row now."""
        return self.left(trigger, what) <= 0

    def left(self, trigger: Trigger, what: Work) -> float:
        """Return the seconds until `what` may be done on a row."""
        later = self._later.get((trigger.key, what))
        return 0.0 if later is None else later.moment - self._clock.monotonic()

    def doubt(self, trigger: Trigger, what: Work) -> None:
        """Note that the answer to a request was lost just now."""
        self._doubts[trigger.key, what] = self._clock.monotonic()

    def settled(self, trigger: Trigger, what: Work) -> None:
        """Note that the effect of a request is known."""
        self._doubts.pop((trigger.key, what), None)

    def wait_in_doubt(self, trigger: Trigger, what: Work) -> None:
        """Return where a request with a lost answer can have no effect any more.

        Raises:
            LaterError: It still may.
        """
        since = self._doubts.setdefault((trigger.key, what), self._clock.monotonic())
        left = since + self._in_doubt - self._clock.monotonic()
        if left > 0:
            raise LaterError(left)
        self.settled(trigger, what)

    def forget(self, keep: set[int]) -> None:
        """Forget all rows but those with the keys `keep`."""
        for remembered in (self._later, self._doubts):
            for key in [key for key in remembered if key[0] not in keep]:
                del remembered[key]
