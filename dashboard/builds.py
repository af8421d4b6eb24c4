"""Drone's builds: what is queued, and what never reached a result. Read only.

Drone's statuses are `skipped, blocked, declined, waiting_on_dependencies, pending, running, success, failure, killed,
error`. A word that is not known is not final.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from pytest_coopcloud.naming import RECIPE_NAME
from pytest_coopcloud.report.words import printable

__all__ = ["Build", "Drone"]

_log = logging.getLogger(__name__)

_PAGE = 100
_PAGES = 10
_LIMIT = 4 * 1024 * 1024
_FINAL = frozenset({"skipped", "declined", "success", "failure", "killed", "error"})
_STARTED = frozenset({"running"})


@dataclass(frozen=True, slots=True)
class Build:
    """A build of the CI repository.

    Attributes:
        status: Drone's word.
        recipe: Which recipe it tests; empty where Drone kept no parameters (a broken `.drone.yml`).
    """

    number: int
    status: str
    recipe: str
    ref: str
    pr: str
    src: str
    error: str
    created_at: float
    started_at: float
    finished_at: float

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status in _FINAL

    @property
    def started(self) -> bool:
        """Whether a runner has taken it."""
        return self.status in _STARTED


class Drone:
    """The builds of one repository, as last seen.

    Attributes:
        builds: Newest first.
        problem: Why they are not up to date; empty while they are.
        version: Rises with each change.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        repository: str,
        *,
        interval: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._path = f"/api/repos/{repository}/builds"
        self._interval = interval
        self._clock = clock
        self.builds: tuple[Build, ...] = ()
        self.problem = "Drone was not asked yet"
        self.version = 0
        self.seen_at = 0.0
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """Ask again and again until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._interval)

    async def refresh(self) -> None:
        """Ask once. An answer that cannot be used leaves the builds as they were, and says why."""
        try:
            builds, problem = tuple(await self._fetch()), ""
            self.seen_at = self._clock()
        except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
            builds, problem = (
                self.builds,
                f"Drone does not answer: {printable(str(error) or type(error).__name__)[:200]}",
            )
            if not self.problem:
                _log.warning("%s", problem)
        if builds != self.builds or problem != self.problem:
            self.builds, self.problem = builds, problem
            self.version += 1
            event, self._changed = self._changed, asyncio.Event()
            event.set()

    async def wait(self, version: int) -> int:
        """Wait until the builds are newer than `version`."""
        while self.version <= version:
            await self._changed.wait()
        return self.version

    async def _fetch(self) -> list[Build]:
        found: dict[int, Build] = {}
        for page in range(1, _PAGES + 1):
            rows = await self._page(page)
            for raw in rows:
                build = _build(raw)
                if build is not None:
                    found[build.number] = build
            # Older pages matter only while the queue reaches into them.
            if len(rows) < _PAGE or all(build.final for build in list(found.values())[-len(rows) :]):
                break
        return [found[number] for number in sorted(found, reverse=True)]

    async def _page(self, page: int) -> list[dict[str, Any]]:
        async with self._client.stream("GET", self._path, params={"page": page, "per_page": _PAGE}) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _LIMIT:
                    raise ValueError(f"more than {_LIMIT} bytes")
        rows = httpx.Response(200, content=bytes(body)).json()
        if not isinstance(rows, list):
            raise ValueError("no list of builds")
        return [row for row in rows if isinstance(row, dict)]


def _build(raw: dict[str, Any]) -> Build | None:
    params = raw.get("params")
    if not isinstance(params, dict):
        params = {}
    number = raw.get("number")
    # What is neither a custom build nor one whose event is unknown is a push to the CI repository itself.
    if not isinstance(number, int) or raw.get("event", "custom") != "custom":
        return None
    recipe = _text(params.get("RECIPE"))
    return Build(
        number=number,
        status=_text(raw.get("status")),
        recipe=recipe if RECIPE_NAME.fullmatch(recipe) else "",
        ref=_text(params.get("REF")),
        pr=_text(params.get("PR")),
        src=_text(params.get("SRC")),
        error=_text(raw.get("error")),
        created_at=_time(raw.get("created")),
        started_at=_time(raw.get("started")),
        finished_at=_time(raw.get("finished")),
    )


def _text(value: object) -> str:
    return printable(value)[:200] if isinstance(value, str) else ""


def _time(value: object) -> float:
    return float(value) if isinstance(value, int) and 0 <= value < 10**11 else 0.0
