"""The questions put to every recipe, as pytest items `recipes/<name>::install` and so on.

Each item is a stage. What a stage needs it makes: a run of `restore` alone backs up first, and a stage after a failed one
begins from nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_coopcloud import evidence
from pytest_coopcloud.deployers.protocol import Archive, Mount, Release
from pytest_coopcloud.errors import AppError, CoopCloudError
from pytest_coopcloud.fixtures import RecipeUnderTest
from pytest_coopcloud.results import Cause, CauseClass, Outcome, Stage, StageResult, TestOutcome
from pytest_coopcloud.run import Run, Skipped, Unverified

__all__ = ["UNVERIFIED", "RecipeCollector", "StageItem", "Trial"]

#: What a report of pytest carries when it could not be verified.
UNVERIFIED = ("coopcloud", "unverified")


@dataclass
class Trial:
    """A run under pytest: the run, the recipe as tests see it, and the hooks of its enrolment.

    Attributes:
        run: The run.
        recipe: What hooks and fixtures get.
        hook: Asks the hooks of this recipe alone.
        tests: How many tests of its own the recipe has here.
        over: Whether the run has ended.
    """

    run: Run
    recipe: RecipeUnderTest
    hook: Any
    tests: int = 0
    over: bool = False
    archive: Archive | None = None
    _planted: Any = None
    _sentinels: list[Mount] = field(default_factory=list)

    def ask(self, stage: Stage, variant: str, question: Callable[[StageResult], None]) -> None:
        """Run a stage: skip it where the enrolment says so, call the hooks around it, record it."""
        reason = self.run.meta.skip.get(stage, "")
        with self.run.stage(stage, variant) as record:
            if reason:
                raise Skipped(reason)
            self.hook.pytest_coopcloud_before_stage(recipe=self.recipe, stage=record)
            question(record)
            record.version_after = self.run.app.version if self.run.app else ""
            if self.run.app is not None:
                record.images_after = self.run.app.images()
                self.run.gather(record.title, failed=False)
        with self.run.result_of(record):
            self.hook.pytest_coopcloud_after_stage(recipe=self.recipe, stage=record)

    # The recipe's own tests: pytest runs them one by one, and together they are the stage `recipe`.

    @property
    def record(self) -> StageResult:
        """The record of the stage `recipe`, which tests of the recipe belong to."""
        return self.run.result.stage(Stage.RECIPE)

    def begin(self, test: str) -> None:
        """Note that a test of the recipe begins, or (where empty) that none is running any more."""
        self.run.ledger.stage = test or self.run.ledger.stage
        if test:
            self.run.deadline(test, self.run.meta.stage_timeout)
            self.record.started_at = self.record.started_at or time.time()

    def record_test(self, test: str, report: pytest.TestReport) -> None:
        """Record how a test of the recipe ended."""
        record, run = self.record, self.run
        outcome = Outcome.PASS if report.passed else Outcome.SKIP if report.skipped else Outcome.FAIL
        if UNVERIFIED in report.user_properties:
            outcome = Outcome.UNVERIFIED
        message = "" if report.passed else run.redactor.clean(_crash(report))
        record.tests.append(
            TestOutcome(name=test, outcome=outcome, duration_seconds=report.duration, message=message[:2000])
        )
        record.duration_seconds = time.time() - (record.started_at or time.time())
        if outcome is Outcome.UNVERIFIED and record.outcome is not Outcome.FAIL:
            record.outcome = outcome
        if outcome is Outcome.FAIL:
            record.outcome = Outcome.FAIL
            if record.cause is None:
                record.cause = Cause(
                    kind=CauseClass.RECIPE, summary=f"{test}: {message.splitlines()[0] if message else ''}"
                )
                run.gather(record.title, failed=True)
                record.cause.log = evidence.last_lines(run.folder, record.cause.summary)
        run.save()

    # The stages

    def install(self, record: StageResult) -> None:
        """Deploy the head from nothing."""
        if self.run.options.reuse_app:
            self.run.adopt(record)
        else:
            self._deploy_head(record)
        self.run.shoot(record.title, "the front page after install")
        self.run.check(record)

    def upgrade(self, record: StageResult) -> None:
        """Deploy a published version, plant data, move to the head in place, find the data."""
        run = self.run
        self._head_must_install()
        if not record.variant and not run.source.versions:
            raise Skipped("no published version to upgrade from")
        version = record.variant or str(run.source.versions[-1])
        published = run.published(version)
        record.version_before = version
        if published.ref and published.ref == run.head.ref and not run.source.dirty:
            self._vacuous(f"the published version {version} is this very commit")
        try:
            run.prepare(published)
            app = run.deploy(published, record)
        except CoopCloudError as error:
            run.gather(record.title, failed=True)
            raise Unverified(
                f"the published version {version} does not install, so the upgrade from it was not tested: {error.message}",
                hint=error.hint,
                cause=error.cause,
            ) from error
        record.images_before = app.images()
        before = run.specs()
        self._plant(whole_only=False)
        run.prepare(run.head)
        app = run.upgrade(run.head, record)
        if run.specs() == before:
            self._vacuous(f"version {version} and the head deploy the very same services")
        self._verify("by the upgrade")
        run.check(record)

    def backup(self, record: StageResult) -> None:
        """Back the head up, with data planted."""
        run = self.run
        self.ensure_head(record)
        if not run.deployment.backed_up:
            raise Skipped("the recipe has no backup labels")
        record.version_before = run.deployment.release.version
        self._plant(whole_only=True)
        self.archive = run.backup(record)
        sizes = sum(self.archive.paths.values())
        record.reason = f"{len(self.archive.paths)} paths, {sizes / 1e6:.1f} MB"

    def restore(self, record: StageResult) -> None:
        """Delete the volumes, deploy anew, restore from the archive alone, find the planted data."""
        run = self.run
        if self.archive is None:
            before = run.result.stage(Stage.BACKUP)
            if before.outcome is Outcome.SKIP and before.selected:
                raise Skipped(before.reason)
            if before.outcome in (Outcome.FAIL, Outcome.UNVERIFIED):
                raise Unverified("there is no backup to restore from: the stage backup did not pass")
            self.ensure_head(record)
            if not run.deployment.backed_up:
                raise Skipped("the recipe has no backup labels")
            self._plant(whole_only=True)
            self.archive = run.backup(record)
        run.undeploy(record, keep_secrets=True)
        run.deploy(run.head, record)
        run.restore(self.archive, record)
        run.until_up(record)
        self._verify("by backup and restore")
        run.check(record)

    def own_tests(self, record: StageResult) -> None:
        """Have the head up for the recipe's own tests, which follow."""
        if not self.tests:
            raise Skipped("the recipe has no tests of its own")
        self.ensure_head(record)

    # What they share

    def release(self, version: str) -> Release:
        """Return the head, or a published version by its name.

        Raises:
            AppError: There is no such version; the message names those there are.
        """
        if version == "head":
            return self.run.head
        known = [str(one) for one in self.run.source.versions]
        if version not in known:
            raise AppError(
                f"{version!r} is no published version",
                hint=f"there are {', '.join(known) or 'none'}",
                cause=CauseClass.TEST,
            )
        return self.run.published(version)

    def _deploy_head(self, record: StageResult) -> None:
        self.run.prepare(self.run.head)
        self.run.deploy(self.run.head, record)

    def ensure_head(self, record: StageResult) -> None:
        """Have the head live and sound: the app that is there where it is, else a new one."""
        if self.run.head_is_live:
            return
        self._head_must_install()
        self._deploy_head(record)

    def _head_must_install(self) -> None:
        if self.run.result.stage(Stage.INSTALL).outcome in (Outcome.FAIL, Outcome.UNVERIFIED):
            raise Unverified("the head does not install, so this was not tested", cause=CauseClass.RECIPE)

    def _vacuous(self, why: str) -> None:
        if not self.run.meta.vacuous_upgrade:
            raise AppError(
                f"vacuous upgrade: {why}",
                hint='test a commit that changes something, or declare `vacuous_upgrade="reason"` in the enrolment',
            )

    def _plant(self, *, whole_only: bool) -> None:
        self._sentinels = self.run.plant(whole_only=whole_only)
        self._planted = self.hook.pytest_coopcloud_plant(recipe=self.recipe, app=self.run.app)

    def _verify(self, when: str) -> None:
        self.run.find_planted(self._sentinels, when)
        if self._planted is not None:
            self.hook.pytest_coopcloud_verify(recipe=self.recipe, app=self.run.app, planted=self._planted)


def _crash(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longreprtext or "")


class RecipeCollector(pytest.Collector):
    """`recipes/<name>`: the stages of the recipe under test."""

    def __init__(self, *, trial: Trial | None, plan: Sequence[tuple[Stage, str]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial = trial
        self.plan = plan

    def collect(self) -> Iterator[pytest.Item]:
        """Yield one item a stage."""
        for stage, variant in self.plan:
            title = f"{stage.value}[{variant}]" if variant else stage.value
            yield StageItem.from_parent(self, name=title, trial=self.trial, stage=stage, variant=variant)


class StageItem(pytest.Item):
    """One stage."""

    def __init__(self, *, trial: Trial | None, stage: Stage, variant: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial, self.stage, self.variant = trial, stage, variant

    def runtest(self) -> None:
        """Run the stage."""
        assert self.trial is not None
        if self.stage is Stage.TEARDOWN:
            self._teardown()
            return
        questions = {
            Stage.INSTALL: self.trial.install,
            Stage.UPGRADE: self.trial.upgrade,
            Stage.BACKUP: self.trial.backup,
            Stage.RESTORE: self.trial.restore,
            Stage.RECIPE: self.trial.own_tests,
        }
        try:
            self.trial.ask(self.stage, self.variant, questions[self.stage])
        except Skipped as skipped:
            pytest.skip(str(skipped))

    def _teardown(self) -> None:
        assert self.trial is not None
        run = self.trial.run
        run.teardown()
        if run.ledger.kept:
            pytest.skip("the app is kept (--keep-app)")
        if run.result.leaks:
            raise CoopCloudError(
                f"left behind: {', '.join(run.result.leaks)}", hint="see `coopcloud-ci janitor --dry-run`"
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what happened and what to do next; a traceback only where the fault is in a test."""
        if isinstance(excinfo.value, CoopCloudError):
            assert self.trial is not None
            return self.trial.run.redactor.clean(str(excinfo.value))
        return super().repr_failure(excinfo, style)

    def _traceback_filter(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        """Keep the frames of the recipe's own code: between them and pytest's are a thousand lines that help nobody."""
        others = ("/pluggy/", "/_pytest/", "/pytest_coopcloud/")
        kept = excinfo.traceback.filter(lambda entry: not any(part in str(entry.path) for part in others))
        return kept or excinfo.traceback[-1:]

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Say what this is, for the heading of a failure."""
        return self.path, None, f"{self.parent.name if self.parent else ''}::{self.name}"
