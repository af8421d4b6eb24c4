"""What a run found: one model, one file, `results.json`.

The run writes it at each change of a stage; the bridge's comment, the dashboard and the badge read it, also while the run
goes on. Every key of that file stands here and nowhere else.

The schema: `schema_version` rises when a key changes its meaning or goes away. A reader ignores keys that it does not
know, and refuses a file with a newer `schema_version` (`NewerSchemaError`).

Example:
    >>> result = RunResult(run_id="hell-0a1b2c", recipe="hello", started_at=0.0)
    >>> result.stage(Stage.INSTALL).outcome = Outcome.PASS
    >>> result.level, result.verdict.value
    (1, 'running')
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

__all__ = [
    "LADDER",
    "RESULTS_FILE",
    "SCHEMA_VERSION",
    "Artifact",
    "BrokenResultError",
    "Cause",
    "CauseClass",
    "NewerSchemaError",
    "Outcome",
    "RunResult",
    "ServiceImage",
    "Stage",
    "StageResult",
    "TestOutcome",
    "Verdict",
    "Wait",
    "read_result",
    "write_result",
]

SCHEMA_VERSION = 1
RESULTS_FILE = "results.json"
RESULTS_LIMIT = 8 * 1024 * 1024


class Stage(enum.Enum):
    """A stage, in the order in which a run goes through them."""

    INSTALL = "install"
    UPGRADE = "upgrade"
    BACKUP = "backup"
    RESTORE = "restore"
    RECIPE = "recipe"
    TEARDOWN = "teardown"


class Outcome(enum.Enum):
    """How a stage ended. `UNVERIFIED`: it should have run, and did not."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    UNVERIFIED = "unverified"


class Verdict(enum.Enum):
    """What a run says of its recipe. `PASSED` only with no `FAIL` and no `UNVERIFIED`."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"


class CauseClass(enum.Enum):
    """Whose fault a failure is."""

    RECIPE = "recipe"
    TEST = "test"
    INFRASTRUCTURE = "infrastructure"


#: The rungs of the ladder that `RunResult.level` counts.
LADDER: tuple[tuple[Stage, ...], ...] = (
    (Stage.INSTALL,),
    (Stage.UPGRADE,),
    (Stage.BACKUP, Stage.RESTORE),
    (Stage.RECIPE,),
    (Stage.TEARDOWN,),
)


class _Model(BaseModel):
    # "Readers ignore keys they do not know": an older dashboard reads a newer plugin's file.
    model_config = ConfigDict(extra="ignore", validate_assignment=True)


class Cause(_Model):
    """Why a stage did not pass.

    Attributes:
        kind: Whose fault it is.
        summary: One sentence, with the values.
        hint: What to do next; may be empty.
        log: At most 10 lines of the log that show it, secrets blotted out.
    """

    kind: CauseClass
    summary: str
    hint: str = ""
    log: list[str] = Field(default_factory=list)


class Wait(_Model):
    """Something the run waited for: what, how long, and the last state it saw."""

    what: str
    duration_seconds: float
    state: str = ""


class ServiceImage(_Model):
    """What one service ran: the image as the recipe names it, and the digest (or image id) that ran."""

    service: str
    image: str
    digest: str = ""


class TestOutcome(_Model):
    """One test of the stage `recipe`, or one check of any stage."""

    __test__ = False

    name: str
    outcome: Outcome
    duration_seconds: float = 0.0
    message: str = ""


class Artifact(_Model):
    """A file beside `results.json`.

    Attributes:
        path: Relative to the run's folder, with `/`.
        kind: `log`, `ps`, `screenshot`, `report`, `junit` or `text`.
        stage: The stage it shows; empty for the whole run.
        title: What it is, for people.
    """

    path: str
    kind: str
    stage: str = ""
    title: str = ""


class StageResult(_Model):
    """How one stage went.

    Attributes:
        stage: Which.
        variant: What tells several of one stage apart: the published version that an upgrade begins from; else empty.
        outcome: None while it has not ended.
        started_at: Seconds since the epoch; None before it began.
        duration_seconds: How long it took, or has taken at the last writing.
        reason: Why it was skipped, or what is left to say of a pass.
        cause: Why it did not pass.
        version_before: The version that the app had when the stage began.
        version_after: The version that the app had when it ended.
        selected: Whether it was asked for; a stage that was left out by the user counts on no ladder.
        steps: What was done, in order, with its duration.
    """

    stage: Stage
    variant: str = ""
    selected: bool = True
    outcome: Outcome | None = None
    started_at: float | None = None
    duration_seconds: float = 0.0
    reason: str = ""
    cause: Cause | None = None
    version_before: str = ""
    version_after: str = ""
    images_before: list[ServiceImage] = Field(default_factory=list)
    images_after: list[ServiceImage] = Field(default_factory=list)
    steps: list[Wait] = Field(default_factory=list)
    tests: list[TestOutcome] = Field(default_factory=list)

    @property
    def title(self) -> str:
        """The stage's name, with its variant in brackets."""
        return f"{self.stage.value}[{self.variant}]" if self.variant else self.stage.value

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started_at is not None and self.outcome is None


class RunResult(_Model):
    """A run: what was tested, and how each stage went.

    Attributes:
        run_id: See `naming.RunName`.
        recipe: The recipe's name.
        source: Where the checkout came from: a path, or a URL without credentials.
        ref: The commit under test, 40 or 64 hex digits; empty for a folder outside git.
        dirty: Whether the working tree had changes that no commit holds.
        version: The version label of the head.
        src: The repository (`owner/name`) that the pull request is opened against; empty without one.
        pr: The pull request's number; empty without one.
        branch: The branch the head is on, where known.
        counts: Whether the run says something about the recipe as published (default branch), and not of a pull request.
        deployer: `swarm` or `abra`.
        deployer_version: What the deployer says of itself.
        enrolment: The conftest that was used, or `generic`.
        build: The number of the Drone build; None outside Drone.
        comment: The id of the comment that asked for the run; empty without one.
        command: What repeats this run on a laptop.
        leaks: What the run left behind, by kind and name.
        died: Why the run ended before its end (`run was killed in deploy`, `timed out in upgrade`); empty otherwise.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    recipe: str
    source: str = ""
    ref: str = ""
    dirty: bool = False
    version: str = ""
    src: str = ""
    pr: str = ""
    branch: str = ""
    counts: bool = False
    domain: str = ""
    stack: str = ""
    deployer: str = ""
    deployer_version: str = ""
    enrolment: str = "generic"
    build: int | None = None
    comment: str = ""
    command: str = ""
    plugin_version: str = ""
    started_at: float
    finished_at: float | None = None
    stages: list[StageResult] = Field(default_factory=list)
    leaks: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    artifacts: list[Artifact] = Field(default_factory=list)
    died: str = ""

    def stage(self, stage: Stage, variant: str = "") -> StageResult:
        """Return the record of `stage`, made where there is none yet, in the order of the stages."""
        for found in self.stages:
            if found.stage is stage and found.variant == variant:
                return found
        made = StageResult(stage=stage, variant=variant)
        order = list(Stage)
        position = sum(order.index(other.stage) <= order.index(stage) for other in self.stages)
        self.stages.insert(position, made)
        return made

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """What the run says: `running` until it has ended."""
        if self.finished_at is None:
            return Verdict.RUNNING
        outcomes = [found.outcome for found in self.stages]
        if Outcome.FAIL in outcomes or self.leaks:
            return Verdict.FAILED
        if self.died or Outcome.UNVERIFIED in outcomes or None in outcomes:
            return Verdict.UNVERIFIED
        if all(found.stage is Stage.TEARDOWN for found in self.stages):
            # A run that ended before its first stage has tested nothing, however clean it left the place.
            return Verdict.UNVERIFIED
        return Verdict.PASSED

    @computed_field  # type: ignore[prop-decorator]
    @property
    def level(self) -> int:
        """How many rungs of `LADDER`, from the first, have passed without a gap; a skip is no gap (see `skipped`)."""
        climbed = 0
        for rung in LADDER:
            found = [record for record in self.stages if record.stage in rung]
            if {record.stage for record in found} != set(rung):
                break
            if any(not one.selected or one.outcome not in (Outcome.PASS, Outcome.SKIP) for one in found):
                break
            climbed += 1
        return climbed

    @property
    def skipped(self) -> list[str]:
        """What the level was reached without: `upgrade: no published version`."""
        return [f"{s.title}: {s.reason}" for s in self.stages if s.outcome is Outcome.SKIP]

    @property
    def first_cause(self) -> tuple[StageResult, Cause] | None:
        """The first stage that did not pass, with why; failures before what is unverified."""
        for wanted in (Outcome.FAIL, Outcome.UNVERIFIED):
            for record in self.stages:
                if record.outcome is wanted and record.cause is not None:
                    return record, record.cause
        return None

    @property
    def current(self) -> StageResult | None:
        """The stage that is running now, if any."""
        return next((record for record in self.stages if record.running), None)

    @property
    def duration_seconds(self) -> float | None:
        """How long the run took; None while it goes on."""
        return None if self.finished_at is None else self.finished_at - self.started_at

    def expect(self, stages: Iterable[tuple[Stage, str]]) -> None:
        """Make a record for each stage that should run, so that one which does not is seen as missing."""
        for stage, variant in stages:
            self.stage(stage, variant)


class BrokenResultError(ValueError):
    """A `results.json` that cannot be read: cut short, no JSON, not of this shape, or too large."""


class NewerSchemaError(BrokenResultError):
    """A `results.json` written by a newer plugin, with a schema that this one does not know."""


def write_result(result: RunResult, folder: Path) -> Path:
    """Write `results.json` into `folder`; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: The disk is full, or the folder is gone. The old file is still there and whole.
    """
    path = folder / RESULTS_FILE
    temporary = folder / f".{RESULTS_FILE}.{os.getpid()}"
    text = result.model_dump_json(indent=1)
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path


def read_result(path: Path) -> RunResult:
    """Read a `results.json`.

    Raises:
        NewerSchemaError: A newer plugin wrote it.
        BrokenResultError: It cannot be read; the message says why.
        FileNotFoundError: There is none.
    """
    if path.stat().st_size > RESULTS_LIMIT:
        raise BrokenResultError(f"{path.name} has {path.stat().st_size} bytes, {RESULTS_LIMIT} are allowed")
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BrokenResultError(f"{path.name} is no JSON: {error}") from error
    if not isinstance(raw, dict):
        raise BrokenResultError(f"{path.name} holds no object")
    version = raw.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerSchemaError(f"{path.name} has schema {version}, known here is {SCHEMA_VERSION}")
    try:
        return RunResult.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BrokenResultError(f"{path.name}: {where}: {first['msg']}") from error
