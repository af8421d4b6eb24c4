"""All recipes, and what is going on, from the index and Drone's builds together."""

from __future__ import annotations

import enum
import heapq
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dashboard.builds import Build, Drone
from dashboard.store import Row, Store
from pytest_coopcloud.report.words import State
from pytest_coopcloud.results import CauseClass, Verdict

__all__ = ["Fleet", "History", "Lost", "Queued", "RecipeRow", "Running", "Sort", "select"]

TREND = 10
_GUESS = 180.0
_LOST_DAYS = 7
_LOST = 20
#: A run writes its first result a moment after its build began.
_SETTLE = 60.0


class Sort(enum.Enum):
    """The order of the front page."""

    ATTENTION = "attention"
    NAME = "name"
    NEWEST = "newest"
    LEVEL = "level"
    SLOWEST = "slowest"

    @property
    def word(self) -> str:
        """What the page calls it."""
        return _SORTS[self]


_SORTS = {
    Sort.ATTENTION: "what needs you first",
    Sort.NAME: "name",
    Sort.NEWEST: "newest first",
    Sort.LEVEL: "lowest level first",
    Sort.SLOWEST: "slowest first",
}

_URGENCY = {State.FAIL: 0, State.UNVERIFIED: 1, State.RUNNING: 2, State.PASS: 3}


@dataclass(frozen=True, slots=True)
class RecipeRow:
    """A recipe on the front page.

    Attributes:
        latest: Its newest run that has ended; the newest of all where none has.
        state: How that run looks.
        running: A run that is going on.
        trend: Its last runs that have ended, oldest first.
    """

    recipe: str
    latest: Row
    state: State
    running: Row | None
    trend: tuple[tuple[Row, State], ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A run that is going on: how far it is, and how long it should take. Without a `row`, its result is to come."""

    recipe: str
    row: Row | None
    build: Build | None
    elapsed: float
    expected: float

    @property
    def share(self) -> float:
        """How much of the expected time is over, 0 to 1."""
        return min(self.elapsed / self.expected, 1.0) if self.expected else 0.0


@dataclass(frozen=True, slots=True)
class Queued:
    """A build that waits, and when it should begin (seconds from now)."""

    build: Build
    begins_in: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A build that ended without a result, and the words for it."""

    build: Build
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """What the runs of one recipe say together.

    Attributes:
        flaky: Commits that both passed and did not.
        repeated: Commits that were tested more than once.
        mean_seconds: The mean time of the runs that passed; None without one.
    """

    runs: int
    passed: int
    flaky: int
    repeated: int
    mean_seconds: float | None

    @property
    def flake_rate(self) -> float | None:
        """Which share of the commits that were tested more than once did not say the same each time."""
        return self.flaky / self.repeated if self.repeated else None


class Fleet:
    """The front page's questions. Without Drone (`None`) there is no queue, and nothing is lost."""

    def __init__(self, store: Store, drone: Drone | None, *, runners: int, clock: Callable[[], float]) -> None:
        self.store = store
        self.drone = drone
        self.runners = runners
        self.clock = clock

    @property
    def version(self) -> tuple[int, int]:
        """What changes with anything that the page shows."""
        return self.store.version, self.drone.version if self.drone else 0

    def row(self, recipe: str) -> RecipeRow | None:
        """Return a recipe's row; None where it has no run."""
        rows = self.store.of_recipe(recipe)
        if not rows:
            return None
        running = next((row for row in rows if self.state(row) is State.RUNNING), None)
        ended = [row for row in rows if self.state(row) is not State.RUNNING]
        latest = ended[0] if ended else rows[0]
        trend = tuple((row, self.state(row)) for row in reversed(ended[:TREND]))
        return RecipeRow(recipe, latest, self.state(latest), running, trend)

    def state(self, row: Row) -> State:
        """Say how a run looks now: one whose build has ended is not running, whatever its file says."""
        state = self.store.state(row)
        if state is State.RUNNING and self.drone and row.build is not None:
            build = next((one for one in self.drone.builds if one.number == row.build), None)
            if build and build.final and self.clock() - build.finished_at > _SETTLE:
                return State.UNVERIFIED
        return state

    def rows(self) -> list[RecipeRow]:
        """List all recipes, by name."""
        return [row for name in self.store.recipes() if (row := self.row(name))]

    def running(self) -> list[Running]:
        """List what is going on, oldest first."""
        now = self.clock()
        builds = {build.number: build for build in self._builds()}
        found = [
            Running(row.recipe, row, builds.get(row.build or 0), max(now - row.started_at, 0.0), self.usual(row.recipe))
            for row in self.store.running()
            if self.state(row) is State.RUNNING
        ]
        for build in reversed(self._builds()):
            if build.started and self.store.of_build(build.number) is None:
                began = build.started_at or build.created_at or now
                found.append(Running(build.recipe, None, build, max(now - began, 0.0), self.usual(build.recipe)))
        return found

    def queue(self) -> list[Queued]:
        """List the builds that wait, first come first, with their expected starts."""
        waiting = [build for build in reversed(self._builds()) if not build.final and not build.started]
        waiting = [build for build in waiting if self.store.of_build(build.number) is None]
        free = [max(one.expected - one.elapsed, 0.0) for one in self.running()][: self.runners]
        free += [0.0] * (self.runners - len(free))
        heapq.heapify(free)
        queue = []
        for build in waiting:
            begins_in = heapq.heappop(free)
            heapq.heappush(free, begins_in + self.usual(build.recipe))
            queue.append(Queued(build, begins_in))
        return queue

    def lost(self) -> list[Lost]:
        """List the builds of the last days that ended and left no result, newest first."""
        horizon = self.clock() - _LOST_DAYS * 86400
        found = []
        for build in self._builds():
            ended = build.finished_at or build.created_at
            if (
                build.final
                and ended > horizon
                and self.store.of_build(build.number) is None
                and build.status != "skipped"
            ):
                found.append(Lost(build, _lost_words(build)))
        return found[:_LOST]

    def problems(self) -> list[str]:
        """Say what of the page may be out of date, and why."""
        found = [self.store.problem] if self.store.problem else []
        if self.drone and self.drone.problem:
            found.append(f"{self.drone.problem}. The queue may be out of date; the results below are not.")
        return found

    def usual(self, recipe: str) -> float:
        """Say how long a run of the recipe takes: the median of its last runs, else of all recipes' last runs."""
        known = _durations(self.store.of_recipe(recipe))
        if not known:
            known = [length for name in self.store.recipes() for length in _durations(self.store.of_recipe(name)[:1])]
        return statistics.median(known) if known else _GUESS

    def history(self, recipe: str) -> History:
        """Add up the runs of a recipe."""
        rows = [row for row in self.store.of_recipe(recipe) if row.finished]
        passed = [row for row in rows if row.verdict is Verdict.PASSED]
        verdicts: dict[str, list[Verdict]] = {}
        for row in rows:
            # What the infrastructure did says nothing of the recipe's own flakiness.
            if row.ref and row.cause is not CauseClass.INFRASTRUCTURE:
                verdicts.setdefault(row.ref, []).append(row.verdict)
        repeated = [found for found in verdicts.values() if len(found) > 1]
        return History(
            runs=len(rows),
            passed=len(passed),
            flaky=sum(len(set(found)) > 1 for found in repeated),
            repeated=len(repeated),
            mean_seconds=statistics.fmean(row.duration_seconds or 0.0 for row in passed) if passed else None,
        )

    def _builds(self) -> tuple[Build, ...]:
        return self.drone.builds if self.drone else ()


def select(rows: Iterable[RecipeRow], *, words: str, state: State | None, sort: Sort) -> list[RecipeRow]:
    """Keep the rows that match, in the order asked for."""
    found = [
        row
        for row in rows
        if all(word in row.recipe for word in words.lower().split())
        and (state is None or row.state is state or (state is State.RUNNING and row.running is not None))
    ]
    keys: dict[Sort, Callable[[RecipeRow], tuple[float, ...]]] = {
        Sort.ATTENTION: lambda row: (_URGENCY.get(row.state, 9), -row.latest.started_at),
        Sort.NAME: lambda _: (),
        Sort.NEWEST: lambda row: (-(row.running or row.latest).started_at,),
        Sort.LEVEL: lambda row: (row.latest.level, -row.latest.started_at),
        Sort.SLOWEST: lambda row: (-(row.latest.duration_seconds or 0.0),),
    }
    return sorted(found, key=keys[sort])


def _durations(rows: Iterable[Row]) -> list[float]:
    return [row.duration_seconds or 0.0 for row in rows if row.verdict is Verdict.PASSED][:TREND]


def _lost_words(build: Build) -> str:
    words = {
        "killed": "cancelled or out of time before its run wrote a result",
        "error": "Drone could not start it",
        "failure": "it failed before its run wrote a result",
        "success": "it ended, and its run wrote no result here",
        "declined": "it was declined",
    }
    return f"{words.get(build.status, build.status)}{': ' + build.error if build.error else ''}"
