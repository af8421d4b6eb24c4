"""Looking for new comments: the truth, while webhooks are a hint.

One search a cycle and owner tells which repositories have pull requests that changed; only the comments of these are read.
Both are read from a cursor on disk: the forge's own time of the newest thing seen, less an overlap. A
repository that was found to have changed stays marked on disk until its comments were read to the end, so neither a
crash nor a repository that answers with errors loses a comment.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from bridge import commands
from bridge.api import ApiError, RefusedError
from bridge.clock import Clock
from bridge.comments import Comment
from bridge.enrolment import Enrolment
from bridge.gitea import Gitea
from bridge.metrics import Metrics
from bridge.triggers import Cursor, StoreError, Triggers
from pytest_coopcloud.errors import CoopCloudError

__all__ = ["OVERLAP", "Poller"]

#: What is read again each time, in seconds of the forge's clock: its times are whole seconds, and rows become visible late.
OVERLAP = 60.0

_log = logging.getLogger(__name__)


class Poller:
    """Feeds the table of triggers from the forge.

    Args:
        found: Called after a command was written down.
        parallel: Requests to the forge at the same time.
        interval: Seconds between two cycles.
    """

    def __init__(
        self,
        gitea: Gitea,
        triggers: Triggers,
        enrolment: Enrolment,
        *,
        clock: Clock,
        metrics: Metrics,
        found: Callable[[], None],
        parallel: int,
        interval: float,
    ) -> None:
        self._gitea = gitea
        self._triggers = triggers
        self._enrolment = enrolment
        self._clock = clock
        self._metrics = metrics
        self._found = found
        self._slots = asyncio.Semaphore(parallel)
        self._interval = interval
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._searchless: set[str] = set()
        self._last_whole = clock.monotonic()

    @property
    def lag(self) -> float:
        """Seconds since everything had been read."""
        return self._clock.monotonic() - self._last_whole

    @property
    def failing(self) -> list[str]:
        """The repositories whose comments could not be read at the last try."""
        return sorted(self._failures)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for comments until `stopping` is set."""
        while not stopping.is_set():
            began = self._clock.monotonic()
            try:
                await self.cycle()
            except CoopCloudError as error:
                _log.warning("the poll failed", extra={"reason": error.message})
            left = self._interval - (self._clock.monotonic() - began)
            pause = max(left, self._gitea.read.resumes_in, 0.01)
            await self._clock.wait(stopping, pause)
        for task in list(self._reading.values()):
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def cycle(self) -> None:
        """Search once, and begin to read what changed. A repository that is still being read is not waited for.

        Raises:
            ApiError: The forge cannot be asked at all.
            StoreError: Nothing can be written down.
        """
        with self._metrics.poll_seconds.time():
            await self._search_all()
            begun = self._read_behind()
            if begun:
                # A slow repository is waited for no longer than the others take to come round again.
                await asyncio.wait(begun, timeout=self._interval)
        behind = sum(cursor.behind for cursor in self._triggers.cursors().values())
        self._metrics.behind.set(behind)
        if not behind:
            self._last_whole = self._clock.monotonic()

    async def settle(self) -> None:
        """Wait until all reading that was begun has ended."""
        while self._reading:
            await asyncio.wait(list(self._reading.values()))

    async def _search_all(self) -> None:
        failed: ApiError | None = None
        try:
            await self._enrolment.refresh()
        except ApiError as error:
            failed = error
        owners: dict[str, dict[str, str]] = {}
        for key, name in self._enrolment.repositories().items():
            owners.setdefault(key.partition("/")[0], {})[key] = name
        self._metrics.enrolled.set(sum(map(len, owners.values())))
        await self._begin([key for repos in owners.values() for key in repos], list(owners))
        results = await asyncio.gather(
            *(self._slot(self._search, owner, repos) for owner, repos in owners.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, ApiError):
                failed = result
            elif isinstance(result, BaseException):
                raise result
        if failed is not None and len(owners) <= sum(isinstance(result, ApiError) for result in results):
            raise failed

    async def _begin(self, repos: list[str], owners: list[str]) -> None:
        """Give what has no cursor yet one that begins now, by the forge's clock: older comments do not count."""
        known = self._triggers.cursors()
        scopes = [f"owner:{owner}" for owner in owners] + [f"repo:{repo}" for repo in repos]
        if missing := [scope for scope in scopes if scope not in known]:
            now = await self._gitea.date()
            self._triggers.move(Cursor(scope, now, False, now) for scope in missing)

    async def _search(self, owner: str, repos: dict[str, str]) -> None:
        scope = f"owner:{owner}"
        cursor = self._triggers.cursor(scope)
        assert cursor is not None
        if owner in self._searchless:
            self._mark(repos, None)
            return
        try:
            found = await self._gitea.changed_pulls(owner, cursor.since - OVERLAP)
        except RefusedError as error:
            if error.status not in (404, 405, 422):
                raise
            _log.warning(
                "this forge has no search: each repository is asked", extra={"owner": owner, "reason": error.message}
            )
            self._searchless.add(owner)
            self._mark(repos, None)
            return
        changed: dict[str, float] = {}
        for pull in found.pulls:
            changed[pull.repo.lower()] = max(pull.updated_at, changed.get(pull.repo.lower(), 0.0))
        newest = max([cursor.since, *changed.values()])
        # Should the forge's clock have gone back, the cursor goes with it.
        moved = dataclasses.replace(cursor, since=min(newest, found.date), read_at=found.date)
        self._mark({key: repos[key] for key in changed if key in repos}, changed, moved if found.whole else None)

    def _mark(self, repos: dict[str, str], changed: dict[str, float] | None, moved: Cursor | None = None) -> None:
        """Mark repositories as changed, and move the cursor of the search, in one step."""
        cursors = []
        for key in repos:
            cursor = self._triggers.cursor(f"repo:{key}")
            if cursor is None or cursor.behind:
                continue
            if changed is None or changed[key] >= cursor.read_at - OVERLAP:
                cursors.append(dataclasses.replace(cursor, behind=True))
        previous = self._triggers.cursor(moved.scope) if moved is not None else None
        if moved is not None and previous is not None and (cursors or previous.since != moved.since):
            cursors.append(moved)
        self._triggers.move(cursors)

    def _read_behind(self) -> list[asyncio.Task[None]]:
        now = self._clock.monotonic()
        enrolled = self._enrolment.repositories()
        begun = []
        for scope, cursor in self._triggers.cursors().items():
            key = scope.partition(":")[2]
            if not scope.startswith("repo:") or not cursor.behind or key in self._reading:
                continue
            if key not in enrolled:
                # It is no longer enrolled; once it is again, its comments count from then.
                self._triggers.move([dataclasses.replace(cursor, behind=False)])
            elif self._not_before.get(key, 0.0) <= now:
                task = asyncio.create_task(self._slot(self._read, enrolled[key], cursor))
                self._reading[key] = task
                task.add_done_callback(partial(self._done, key))
                begun.append(task)
        return begun

    async def _read(self, repo: str, cursor: Cursor) -> None:
        key = repo.lower()
        try:
            newest = cursor.since
            # The time of an answer before this reading: what is newer than that may not be in it.
            read_at = cursor.read_at if self._gitea.read.date is None else self._gitea.read.date
            async for comment in self._gitea.comments(repo, cursor.since - OVERLAP):
                newest = max(newest, comment.updated_at)
                self.consider(comment, source="poll")
            now = self._gitea.read.date
            self._triggers.move([Cursor(cursor.scope, min(newest, now or newest), False, read_at)])
        except (ApiError, StoreError, ValueError) as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(300.0, self._interval * 2.0 ** min(failures - 1, 6)) * random.uniform(0.7, 1.0)  # noqa: S311
            self._not_before[key] = self._clock.monotonic() + (pause if failures > 1 else 0.0)
            _log.warning("cannot read comments", extra={"repo": repo, "reason": str(error)[:300], "failures": failures})
            return
        self._failures.pop(key, None)
        self._not_before.pop(key, None)

    def consider(self, comment: Comment, *, source: str) -> bool:
        """Write down a comment where it is a command under a pull request; say whether it is new."""
        if comment.pr <= 0 or comment.edited:
            return False
        command = commands.parse(comment.body)
        if command is None:
            return False
        new = self._triggers.add(comment, words=command.words, seen_at=self._clock.time())
        if new:
            self._metrics.comments.labels(source).inc()
            _log.info(
                "saw a command",
                extra={"repo": comment.repo, "pr": comment.pr, "comment": comment.comment_id, "by": source},
            )
            self._found()
        return new

    def _done(self, key: str, _task: asyncio.Task[None]) -> None:
        del self._reading[key]

    async def _slot(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        async with self._slots:
            await work(*args)
