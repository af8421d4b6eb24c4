"""What `/api/...` answers: the index as JSON. A whole run is answered as its own `results.json`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dashboard.fleet import Fleet, RecipeRow
from dashboard.store import Row
from pytest_coopcloud.report.words import State
from pytest_coopcloud.results import CauseClass, Stage, Verdict

__all__ = ["Overview", "Problem", "RecipeStatus", "RunSummary", "overview", "recipe_status", "run_summary"]


class _Model(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class StageSummary(_Model):
    """A stage of a run."""

    stage: Stage
    title: str
    state: State
    duration_seconds: float


class RunSummary(_Model):
    """A run, in short. `state` is its verdict as shown: a run that says nothing any more is `unverified`."""

    run_id: str
    recipe: str
    state: State
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
    duration_seconds: float | None
    stages: list[StageSummary]


class RecipeStatus(_Model):
    """A recipe: its newest run, one that is going on, and the verdicts of the last ten, oldest first."""

    recipe: str
    state: State
    latest: RunSummary
    running: RunSummary | None
    trend: list[State]


class RunningRun(_Model):
    """A run that is going on; `run` is null until it has written its first result."""

    recipe: str
    run: RunSummary | None
    build: int | None
    elapsed_seconds: float
    expected_seconds: float


class QueuedBuild(_Model):
    """A build that waits; `expected_start` is in seconds since the epoch."""

    build: int
    recipe: str
    ref: str
    pr: str
    src: str
    expected_start: float


class LostBuild(_Model):
    """A build that ended without a result."""

    build: int
    recipe: str
    status: str
    reason: str


class BrokenRun(_Model):
    """A run whose results cannot be read."""

    run_id: str
    reason: str


class Overview(_Model):
    """What the front page shows. `problems` says what of it may be out of date."""

    recipes: list[RecipeStatus]
    running: list[RunningRun]
    queue: list[QueuedBuild]
    lost: list[LostBuild]
    broken: list[BrokenRun]
    problems: list[str]


class Problem(_Model):
    """Why a question has no answer."""

    detail: str


def run_summary(row: Row, fleet: Fleet) -> RunSummary:
    """Put a run in short."""
    found = {name: getattr(row, name) for name in RunSummary.model_fields if name not in ("state", "stages")}
    stages = [StageSummary.model_validate(stage) for stage in row.stages]
    return RunSummary(**found, state=fleet.state(row), stages=stages)


def recipe_status(row: RecipeRow, fleet: Fleet) -> RecipeStatus:
    """Put a recipe in short."""
    return RecipeStatus(
        recipe=row.recipe,
        state=row.state,
        latest=run_summary(row.latest, fleet),
        running=run_summary(row.running, fleet) if row.running else None,
        trend=[state for _, state in row.trend],
    )


def overview(fleet: Fleet) -> Overview:
    """Say everything at once."""
    now = fleet.clock()
    return Overview(
        recipes=[recipe_status(row, fleet) for row in fleet.rows()],
        running=[
            RunningRun(
                recipe=one.recipe,
                run=run_summary(one.row, fleet) if one.row else None,
                build=one.build.number if one.build else one.row.build if one.row else None,
                elapsed_seconds=one.elapsed,
                expected_seconds=one.expected,
            )
            for one in fleet.running()
        ],
        queue=[
            QueuedBuild(
                build=one.build.number,
                recipe=one.build.recipe,
                ref=one.build.ref,
                pr=one.build.pr,
                src=one.build.src,
                expected_start=now + one.begins_in,
            )
            for one in fleet.queue()
        ],
        lost=[
            LostBuild(build=one.build.number, recipe=one.build.recipe, status=one.build.status, reason=one.reason)
            for one in fleet.lost()
        ],
        broken=[BrokenRun(run_id=one.run_id, reason=one.reason) for one in fleet.store.broken()],
        problems=fleet.problems(),
    )
