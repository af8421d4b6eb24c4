"""A folder of `results.json`, as an index in memory that follows it.

The index remembers of each run what lists and badges need (`Row`). Everything else is read from the run's file when it is
asked for, as a `RunResult`: there is no second model of a result.

Nothing in the folder is trusted: it is written by runs that execute foreign code. A file that cannot be read, or that
says what no run says, is a `Broken` run, listed with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import stat
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_coopcloud.ledger import LEDGER_FILE, LOCK_FILE, Ledger, Lock, StateError
from pytest_coopcloud.naming import RECIPE_NAME, RUN_ID
from pytest_coopcloud.report.words import State, headline, printable, stage_state, verdict_state
from pytest_coopcloud.results import (
    RESULTS_FILE,
    BrokenResultError,
    CauseClass,
    RunResult,
    Stage,
    Verdict,
    read_result,
)

__all__ = ["Broken", "Row", "Store"]

_CACHED = 32
_SENTENCE = 200

Fingerprint = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class StageRow:
    """What the index remembers of a stage."""

    stage: Stage
    title: str
    state: State
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """What the index remembers of a run.

    Attributes:
        headline: Its verdict in a few words.
        summary: Why it did not pass, in one sentence.
        changed_at: When its file was written.
    """

    run_id: str
    recipe: str
    verdict: Verdict
    level: int
    headline: str
    summary: str
    cause: CauseClass | None
    version: str
    ref: str
    src: str
    pr: str
    counts: bool
    build: int | None
    started_at: float
    finished_at: float | None
    stages: tuple[StageRow, ...]
    changed_at: float

    @property
    def finished(self) -> bool:
        """Whether the run has ended by itself."""
        return self.finished_at is not None

    @property
    def duration_seconds(self) -> float | None:
        """How long it took; None while it goes on."""
        return None if self.finished_at is None else max(self.finished_at - self.started_at, 0.0)


@dataclass(frozen=True, slots=True)
class Broken:
    """A run whose `results.json` cannot be used, and why."""

    run_id: str
    reason: str
    changed_at: float


class Store:
    """The runs below a folder.

    Attributes:
        version: Rises with each change; `wait` waits for the next.
        ready: Whether the folder has been read once.
        unfinished: Run ids whose folder may still change: running, or without a result yet.

    Example:
        >>> store = Store(Path("/var/lib/coopcloud-ci/runs"))
        >>> store.refresh_now()
        >>> [row.run_id for row in store.newest()]
        []
    """

    def __init__(self, runs: Path, *, silent_after: float = 5400.0, clock: Callable[[], float] = time.time) -> None:
        self.runs = runs
        self._root = str(runs)
        self.silent_after = silent_after
        self.clock = clock
        self.version = 0
        self.ready = False
        self.problem = ""
        self.unfinished: frozenset[str] = frozenset()
        self.indexed_at = 0.0
        self._seen: dict[str, Fingerprint] = {}
        self._rows: dict[str, Row] = {}
        self._broken: dict[str, Broken] = {}
        self._recipes: dict[str, list[Row]] = {}
        self._revisions: dict[str, int] = {}
        self._builds: dict[int, str] = {}
        self._results: OrderedDict[tuple[str, Fingerprint], RunResult] = OrderedDict()
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()

    # Questions.

    def recipes(self) -> list[str]:
        """Name the recipes that have a run, in order."""
        return sorted(self._recipes)

    def revision(self, recipe: str) -> int:
        """Return a number that changes with any run of `recipe`."""
        return self._revisions.get(recipe, 0)

    def of_recipe(self, recipe: str) -> list[Row]:
        """List the runs of a recipe, newest first."""
        return self._recipes.get(recipe, [])

    def row(self, run_id: str) -> Row | None:
        """Return what the index knows of a run."""
        return self._rows.get(run_id)

    def of_build(self, number: int) -> Row | None:
        """Return the run of a Drone build."""
        return self._rows.get(self._builds.get(number, ""))

    def broken(self) -> list[Broken]:
        """List the runs that cannot be read, newest first."""
        return sorted(self._broken.values(), key=lambda one: -one.changed_at)

    def broken_run(self, run_id: str) -> Broken | None:
        """Return why a run cannot be read, where it cannot."""
        return self._broken.get(run_id)

    def running(self) -> list[Row]:
        """List the runs that are going on, oldest first."""
        rows = (self._rows[run_id] for run_id in self.unfinished if run_id in self._rows)
        return sorted((row for row in rows if not self.silent(row)), key=lambda row: row.started_at)

    def silent(self, row: Row) -> bool:
        """Whether a run that has not ended has said nothing for too long to be called running."""
        return not row.finished and self.clock() - row.changed_at > self.silent_after

    def state(self, row: Row) -> State:
        """Say how a run looks now."""
        return State.UNVERIFIED if self.silent(row) else verdict_state(row.verdict)

    def newest(self) -> list[Row]:
        """List all runs, newest first."""
        return sorted(self._rows.values(), key=lambda row: -row.started_at)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, run_id: str) -> RunResult:
        """Read a whole result from its file; the last few are remembered.

        Raises:
            FileNotFoundError: There is no such run.
            BrokenResultError: It cannot be read.
        """
        if not RUN_ID.fullmatch(run_id):
            raise FileNotFoundError(run_id)
        fingerprint = self._fingerprint(run_id)
        if fingerprint is None:
            raise FileNotFoundError(run_id)
        key = (run_id, fingerprint)
        found = self._results.get(key)
        if found is None:
            found = _read(self.runs / run_id)
            self._results[key] = found
            while len(self._results) > _CACHED:
                self._results.popitem(last=False)
        return found

    # Following the folder.

    async def wait(self, version: int) -> int:
        """Wait until the index is newer than `version`, and return its version."""
        while self.version <= version:
            await self._changed.wait()
        return self.version

    async def refresh(self, names: Iterable[str] | None = None) -> None:
        """Compare the folders `names`, or all, with the index, and read what is new."""
        async with self._lock:
            found = await asyncio.to_thread(self._look, names)
            self._apply(*found)

    def refresh_now(self) -> None:
        """Do what `refresh` does, without an event loop."""
        self._apply(*self._look(None))

    def _look(
        self, names: Iterable[str] | None
    ) -> tuple[dict[str, tuple[Fingerprint, Row | Broken]], set[str], set[str], str]:
        """Return what is new, which runs are gone, which have no result yet, and what is wrong with the folder."""
        new: dict[str, tuple[Fingerprint, Row | Broken]] = {}
        gone: set[str] = set()
        empty: set[str] = set()
        if names is None:
            try:
                present = {name for name in os.listdir(self.runs) if RUN_ID.fullmatch(name)}  # noqa: PTH208 - names only
            except OSError as error:
                # What was known stays: the folder may come back with its disk.
                return new, gone, empty, f"the folder of results cannot be read: {error.strerror}"
            gone = set(self._seen) - present
        else:
            present = {name for name in names if RUN_ID.fullmatch(name)}
        for name in present:
            fingerprint = self._fingerprint(name)
            if fingerprint is None:
                gone.add(name)
                if self._fresh(self.runs / name):
                    empty.add(name)
            elif self._seen.get(name) != fingerprint:
                new[name] = (fingerprint, self._index(name, fingerprint[0] / 1e9))
        if names is not None:
            empty |= self.unfinished - present - set(self._rows)
        return new, gone, empty, ""

    def _fingerprint(self, name: str) -> Fingerprint | None:
        try:
            # Asked of every run at each comparison, so without a `Path` for each.
            folder = f"{self._root}/{name}"
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                return None
            found = os.lstat(f"{folder}/{RESULTS_FILE}")
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _fresh(self, folder: Path) -> bool:
        with contextlib.suppress(OSError):
            return self.clock() - folder.lstat().st_mtime < self.silent_after
        return False

    def _index(self, name: str, changed_at: float) -> Row | Broken:
        try:
            return _row(_read(self.runs / name), changed_at)
        except (BrokenResultError, OSError, RecursionError) as error:
            reason = f"{RESULTS_FILE}: {error.strerror}" if isinstance(error, OSError) else str(error)
            return Broken(name, printable(reason)[:_SENTENCE], changed_at)

    def _apply(
        self, new: dict[str, tuple[Fingerprint, Row | Broken]], gone: set[str], empty: set[str], problem: str
    ) -> None:
        touched: set[str] = set()
        gone = gone & set(self._seen)
        for name in gone | set(new):
            self._seen.pop(name, None)
            self._broken.pop(name, None)
            old = self._rows.pop(name, None)
            if old is not None:
                touched.add(old.recipe)
                if old.build is not None and self._builds.get(old.build) == name:
                    del self._builds[old.build]
        for name, (fingerprint, found) in new.items():
            self._seen[name] = fingerprint
            if isinstance(found, Broken):
                self._broken[name] = found
                continue
            self._rows[name] = found
            touched.add(found.recipe)
            if found.build is not None:
                self._builds[found.build] = name
        changed = bool(new or gone or problem != self.problem or not self.ready)
        if touched:
            self._regroup(touched, new, gone)
        self.unfinished = frozenset(
            empty | {row.run_id for row in self._rows.values() if not row.finished and not self.silent(row)}
        )
        self.ready, self.problem, self.indexed_at = True, problem, self.clock()
        if changed:
            self.version += 1
            event, self._changed = self._changed, asyncio.Event()
            event.set()

    def _regroup(self, touched: set[str], new: Iterable[str], gone: set[str]) -> None:
        stale = set(new) | gone
        fresh: dict[str, list[Row]] = {recipe: [] for recipe in touched}
        for name in new:
            row = self._rows.get(name)
            if row is not None:
                fresh[row.recipe].append(row)
        for recipe in touched:
            rows = [row for row in self._recipes.get(recipe, []) if row.run_id not in stale] + fresh[recipe]
            rows.sort(key=lambda row: -row.started_at)
            self._revisions[recipe] = self._revisions.get(recipe, 0) + 1
            if rows:
                self._recipes[recipe] = rows
            else:
                self._recipes.pop(recipe, None)

    # Retention.

    def expired(self, *, keep_runs: int, keep_days: float) -> list[str]:
        """Name the runs that are over the limits, oldest first; a limit of 0 is none.

        The last finished run of a recipe stays, the last one that counts for its badge as well, and any that goes on.
        """
        old: list[Row] = []
        horizon = self.clock() - keep_days * 86400
        for rows in self._recipes.values():
            finished = [row for row in rows if row.finished]
            safe = {row.run_id for row in finished[:1]}
            safe |= {row.run_id for row in [row for row in finished if row.counts][:1]}
            for position, row in enumerate(finished):
                too_many = keep_runs and position >= keep_runs
                too_old = keep_days and (row.finished_at or 0.0) < horizon
                if row.run_id not in safe and (too_many or too_old):
                    old.append(row)
        old.sort(key=lambda row: row.started_at)
        names = [row.run_id for row in old]
        if keep_days:
            names += [one.run_id for one in self._broken.values() if one.changed_at < horizon]
        return names

    async def prune(self, *, keep_runs: int, keep_days: float) -> list[str]:
        """Remove the folders of the runs that are over the limits, and return their names.

        A folder whose lock is held, or whose ledger still names something that is to be taken down, stays.
        """
        names = await asyncio.to_thread(
            lambda: [name for name in self.expired(keep_runs=keep_runs, keep_days=keep_days) if self._remove(name)]
        )
        if names:
            await self.refresh(names)
        return names

    def _remove(self, name: str) -> bool:
        folder = self.runs / name
        try:
            if (folder / LEDGER_FILE).exists() and not Ledger.read(folder).clean:
                return False
            with Lock(folder / LOCK_FILE) as lock:
                if not lock.try_exclusive():
                    return False
                # Works on descriptors, and follows no link out of the folder.
                shutil.rmtree(folder)
        except (OSError, StateError):
            return False
        return True


def _read(folder: Path) -> RunResult:
    path = folder / RESULTS_FILE
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BrokenResultError(f"{RESULTS_FILE} is no plain file")
    result = read_result(path)
    if result.run_id != folder.name:
        raise BrokenResultError(f"{RESULTS_FILE} is of the run {result.run_id[:40]!r}")
    if not RECIPE_NAME.fullmatch(result.recipe):
        raise BrokenResultError(f"{result.recipe[:80]!r} is no recipe name")
    numbers = [result.started_at, result.finished_at or 0.0]
    for record in result.stages:
        numbers += [record.started_at or 0.0, record.duration_seconds]
        numbers += [step.duration_seconds for step in record.steps] + [test.duration_seconds for test in record.tests]
    if not all(math.isfinite(number) and abs(number) < 1e11 for number in numbers):
        raise BrokenResultError(f"{RESULTS_FILE} holds a time that is none")
    return result


def _row(result: RunResult, changed_at: float) -> Row:
    first = result.first_cause
    return Row(
        run_id=result.run_id,
        recipe=sys.intern(result.recipe),
        verdict=result.verdict,
        level=result.level,
        headline=sys.intern(printable(headline(result))[:_SENTENCE]),
        summary=printable(first[1].summary if first else result.died or ", ".join(result.leaks[:5]))[:_SENTENCE],
        cause=first[1].kind if first else None,
        version=printable(result.version)[:80],
        ref=result.ref[:64],
        src=sys.intern(printable(result.src)[:200]),
        pr=printable(result.pr)[:20],
        counts=result.counts,
        build=result.build,
        started_at=result.started_at,
        finished_at=result.finished_at,
        stages=tuple(
            StageRow(
                stage=record.stage,
                title=sys.intern(printable(record.title)[:80]),
                state=stage_state(record, result),
                duration_seconds=record.duration_seconds,
            )
            for record in result.stages[:40]
        ),
        changed_at=changed_at,
    )
