"""The trial under pytest: collects the stages, keeps the order, fills the result, ends the run, says the verdict."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.junitxml import xml_key
from _pytest.terminal import TerminalReporter

from pytest_coopcloud.errors import BadInputError, CoopCloudError
from pytest_coopcloud.fixtures import RecipeUnderTest
from pytest_coopcloud.lifecycle import UNVERIFIED, RecipeCollector, StageItem, Trial
from pytest_coopcloud.meta import RecipeMeta, bad_enrolment, check_meta
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.plugin import DISTRIBUTED, TRIAL
from pytest_coopcloud.progress import Progress
from pytest_coopcloud.report import render_report
from pytest_coopcloud.results import Artifact, Outcome, RunResult, Stage, StageResult
from pytest_coopcloud.run import Options, Run, Unverified
from pytest_coopcloud.sources import Source, SourceSpec, fetch

__all__ = ["TrialPlugin"]

MARKS = {Outcome.PASS: "✓", Outcome.FAIL: "✗", Outcome.SKIP: "-", Outcome.UNVERIFIED: "?"}
COLOURS = {Outcome.PASS: "green", Outcome.FAIL: "red", Outcome.SKIP: "yellow", Outcome.UNVERIFIED: "red"}
REPORT_FILE = "report.html"
JUNIT_FILE = "junit.xml"


class TrialPlugin:
    """Everything that happens between `--recipe` and the verdict."""

    def __init__(self, config: pytest.Config, recipe: str) -> None:
        self.config = config
        self.options = read_options(config, recipe)
        self.stages = _stages(config)
        self.progress = Progress(quiet=bool(config.option.collectonly) or config.option.verbose < 0)
        self.trial: Trial | None = None
        self.source: Source | None = None
        self.enrolment: Path | None = None
        self._died = ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._parent = os.getppid()
        self._signals: dict[int, Any] = {}
        self._own: set[str] = set()
        self._variants: list[str] = []

    # Collection

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Begin the run, fetch the recipe, and collect its tests instead of what lies around."""
        try:
            if session.config.option.collectonly:
                self._scratch = tempfile.TemporaryDirectory(prefix="coopcloud-collect-")
                where = Path(self._scratch.name)
                self.source = fetch(self.options.source, mirrors=where / "mirrors", workdir=where / "recipe")
            else:
                self._guard_signals()
                run = Run.open(self.options, say=self.progress.say)
                self.trial = Trial(run=run, recipe=_preview(run.name, self.options.source.name), hook=None)
                session.config.stash[TRIAL] = self.trial
                run.result.plugin_version = importlib.metadata.version("pytest-coopcloud")
                self._place_junit(run)
                self.source = run.resolve()
            self._variants = _variants(self.config, [str(version) for version in self.source.versions])
        except CoopCloudError as error:
            self._end()
            raise pytest.UsageError(str(error)) from None
        self.progress.clear()
        self.enrolment = self._find_enrolment()
        folders = [self.enrolment] if self.enrolment else []
        tests = self._own_folder() / "tests"
        if self.source.trusted and tests.is_dir() and tests not in folders:
            folders.append(tests)
        if not self._asked_for_files():
            session.config.args = [str(folder) for folder in folders]

    def _place_junit(self, run: Run) -> None:
        """Have pytest write its JUnit file into the run's folder, where the user names no other place."""
        junit = self.config.stash.get(xml_key, None)
        if junit is not None and self.config.option.xmlpath == os.devnull:
            junit.logfile = str(run.folder / JUNIT_FILE)

    def _asked_for_files(self) -> bool:
        return self.config.args_source is pytest.Config.ArgsSource.ARGS

    def _own_folder(self) -> Path:
        """Return the recipe's own folder: where it lies, so that paths in reports are the maintainer's."""
        assert self.source is not None
        return self.source.origin or self.source.path

    def _find_enrolment(self) -> Path | None:
        """Return the folder whose conftest enrols the recipe."""
        assert self.source is not None
        for root in dict.fromkeys((self.config.rootpath, self.config.invocation_params.dir)):
            folder = root / "recipes" / self.source.name
            if (folder / "conftest.py").is_file():
                return folder
        own = self._own_folder() / "tests"
        if self.source.trusted and (own / "conftest.py").is_file():
            return own
        return None

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Put the stages in front of what the session collects."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed and self.source is not None:
            name = self.source.name
            made = RecipeCollector.from_parent(
                collector, name=f"recipes/{name}", nodeid=f"recipes/{name}", trial=self.trial, plan=self._plan()
            )
            report.result = [made, *report.result]
        return report

    def _plan(self) -> list[tuple[Stage, str]]:
        assert self.source is not None
        plan: list[tuple[Stage, str]] = []
        for stage in Stage:
            plan += [(stage, variant) for variant in self._variants] if stage is Stage.UPGRADE else [(stage, "")]
        return plan

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the order: stages, the recipe's own tests, teardown. Leave out the stages that were not asked for."""
        stages = [item for item in items if isinstance(item, StageItem)]
        others = [item for item in items if not isinstance(item, StageItem)]
        left_out: list[pytest.Item] = [item for item in stages if item.stage not in self.stages]
        if Stage.RECIPE not in self.stages:
            left_out += others
            others = []
        kept = [item for item in stages if item.stage in self.stages]
        if left_out:
            self.config.hook.pytest_deselected(items=left_out)
        ending = [item for item in kept if item.stage is Stage.TEARDOWN]
        items[:] = [*(item for item in kept if item.stage is not Stage.TEARDOWN), *others, *ending]
        self._own = {item.nodeid for item in others}
        if self.trial is None:
            return
        self.trial.tests = len(others)
        chosen = {(item.stage, item.variant) for item in kept}
        for stage, variant in self._plan():
            record = self.trial.run.result.stage(stage, variant)
            if (stage, variant) not in chosen and stage is not Stage.TEARDOWN:
                record.selected, record.outcome, record.reason = False, Outcome.SKIP, "not selected"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Ask the enrolment, before anything is created."""
        if self.source is None:
            return
        where = self.enrolment / "conftest.py" if self.enrolment else self.config.rootpath
        hook = session.gethookproxy(where)
        run = self.trial.run if self.trial else None
        name = run.name if run else RunName.new(self.source.name, base_domain=self.options.base_domain, token="0" * 6)
        recipe = RecipeUnderTest(
            name=self.source.name,
            path=self.source.path,
            ref=self.source.ref,
            versions=tuple(str(version) for version in self.source.versions),
            run_id=name.run_id,
            domain=name.domain,
            base_domain=name.base_domain,
        )
        try:
            try:
                given = hook.pytest_coopcloud_recipe_meta(recipe=recipe) if self.enrolment else None
                meta = RecipeMeta() if given is None else check_meta(given, where)
            except (ValueError, TypeError) as error:
                raise bad_enrolment(error, where) from error
        except CoopCloudError as error:
            raise pytest.UsageError(str(error)) from None
        if self.trial is not None and run is not None:
            run.meta = meta
            run.result.enrolment = str(where) if self.enrolment else "generic"
            self.trial.recipe, self.trial.hook = recipe, hook
            run.save()

    # While it runs

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep the result current around the recipe's own tests; take the living line away after each item."""
        if self.trial is not None:
            self.trial.begin(item.nodeid if item.nodeid in self._own else "")
        try:
            return (yield)
        finally:
            self.progress.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Mark what could not be verified; record the recipe's own tests."""
        report = yield
        self.progress.clear()
        if call.excinfo is not None and isinstance(call.excinfo.value, Unverified):
            report.user_properties.append(UNVERIFIED)
        if self.trial is not None and item.nodeid in self._own and (report.when == "call" or not report.passed):
            self.trial.record_test(item.nodeid, report)
        return report

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> Any:
        """Show `unverified` as what it is."""
        if report.failed and UNVERIFIED in getattr(report, "user_properties", []):
            return "unverified", "U", ("UNVERIFIED", {"red": True})
        return None

    # Signals: the runner, the kernel or a person ends the run

    def _guard_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
                self._signals[number] = signal.signal(number, self._on_signal)
        if signal.SIGHUP in self._signals and sys.platform == "linux":
            # The runner's shell may be killed and leave us as an orphan: then we are told with SIGTERM.
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != self._parent:
                self._on_signal(signal.SIGTERM, None)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        orphan = os.getppid() != self._parent
        self._died = (
            "the run's parent process ended" if orphan else f"the run was ended by {signal.Signals(number).name}"
        )
        for known in (*self._signals, signal.SIGINT):
            signal.signal(known, signal.SIG_IGN)
        raise KeyboardInterrupt(self._died)

    # The end

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Remember why the run ends."""
        self._died = self._died or "the run was interrupted"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Take the app down whatever has happened, and let a verdict that is not `passed` show in the exit code."""
        self._end()
        if self.trial is not None:
            result = self.trial.run.result
            bad = result.leaks or any(s.outcome in (Outcome.FAIL, Outcome.UNVERIFIED) for s in result.stages)
            if bad and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return (yield)

    def _end(self) -> None:
        """End the run, once, whoever asks; no signal interrupts it any more."""
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        trial = self.trial
        if trial is None or trial.over:
            self._restore_signals()
            return
        trial.over = True
        for number in (*self._signals, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        run = trial.run
        try:
            trial.begin("")
            run.result.died = run.result.died or self._died
            self.progress.say("taking down")
            run.close()
            self._write_report(run)
        finally:
            self.progress.clear()
            self._restore_signals()

    def _restore_signals(self) -> None:
        while self._signals:
            number, before = self._signals.popitem()
            signal.signal(number, before)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _write_report(self, run: Run) -> None:
        run.add_artifact(Artifact(path=REPORT_FILE, kind="report", title="the whole run on one page"))
        if self.config.stash.get(xml_key, None) is not None and self.config.option.xmlpath == os.devnull:
            run.add_artifact(Artifact(path=JUNIT_FILE, kind="junit", title="JUnit"))
        with contextlib.suppress(OSError):
            (run.folder / REPORT_FILE).write_text(render_report(run.result, run.folder), encoding="utf-8")
        run.save()

    # What people read

    def pytest_report_header(self) -> list[str]:
        """Say what is tested."""
        lines = [f"recipe: {self.options.source}"]
        if self.config.stash.get(DISTRIBUTED, False):
            lines.append("recipe: one app of a run is live at a time, so this runs in one process (-n is ignored)")
        return lines

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """Print the table of stages, and the verdict as the last thing."""
        self._end()
        self.progress.close()
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if self.trial is None or reporter is None:
            return
        run = self.trial.run
        # Whoever read this may be gone; a run does not end badly for that.
        with contextlib.suppress(OSError):
            write_summary(reporter, run.result, run.folder)
            for line in keep_lines(run) if run.ledger.kept else ():
                reporter.write_line(line)


def write_summary(reporter: TerminalReporter, result: RunResult, folder: Path) -> None:
    """Write the table of stages and the verdict."""
    commit = f" at {result.ref[:10]}" if result.ref else ""
    commit += " with uncommitted changes" if result.dirty else ""
    reporter.section(f"{result.recipe} {result.version}".strip(), sep="=", bold=True)
    reporter.write_line(
        f"run {result.run_id}{commit}, deployer {result.deployer or '(none)'}, enrolment {result.enrolment}"
    )
    width = max([len(record.title) for record in result.stages] or [8])
    for record in result.stages:
        outcome = record.outcome or Outcome.UNVERIFIED
        reporter.write(f"  {MARKS[outcome]} ", **{COLOURS[outcome]: True})
        reporter.write(f"{record.title:<{width}}  ")
        reporter.write(f"{outcome.value:<10}", **{COLOURS[outcome]: True})
        reporter.write_line(f" {record.duration_seconds:6.1f} s  {_remark(record)}")
    for leak in result.leaks:
        reporter.write_line(f"  left behind: {leak}", red=True)
    reporter.write_line(f"report: {folder / REPORT_FILE}")
    passed = result.verdict.value == "passed"
    took = f" in {result.duration_seconds:.0f} s" if result.duration_seconds is not None else ""
    without = f" (without {'; '.join(result.skipped)})" if passed and result.skipped else ""
    reporter.write_line(
        f"verdict: {result.verdict.value}, level {result.level} of 5{took}{without}",
        bold=True,
        green=passed,
        red=not passed,
    )


def _remark(record: StageResult) -> str:
    if record.cause is not None:
        return f"{record.cause.kind.value}: {record.cause.summary.splitlines()[0][:160]}"
    if record.reason:
        return record.reason
    if record.version_before and record.version_after:
        return f"{record.version_before} → {record.version_after}"
    return record.version_after


def keep_lines(run: Run) -> list[str]:
    """Say how to look inside an app that was kept, how to go on with it, and how to take it down."""
    service = f"{run.name.prefix}app"
    return [
        f"kept: {run.name.stack} at https://{run.name.domain}/ through {run.gateway}",
        f"take it down: coopcloud-ci teardown {run.name.run_id}",
        f"look inside: docker exec -it $(docker ps -qf label=com.docker.swarm.service.name={service}) sh",
        f"go on: pytest --recipe={shlex.quote(run.options.source.text)} --reuse-app={run.name.run_id}",
    ]


# Options


def read_options(config: pytest.Config, recipe: str) -> Options:
    """Read what the user chose: the option, else the environment variable, else the default.

    Raises:
        UsageError: A value cannot be used.
    """

    def choose(option: str, variable: str = "", default: str = "") -> str:
        given = config.getoption(option)
        return os.environ.get(variable, "") or default if given is None else str(given)

    try:
        spec = SourceSpec.parse(
            recipe,
            ref=choose("recipe_ref", "REF"),
            src=choose("recipe_src", "SRC"),
            pr=choose("recipe_pr", "PR"),
            environ=os.environ,
            cwd=config.invocation_params.dir,
        )
        images = {
            tool: image
            for tool, image in (
                ("traefik", choose("traefik_image", "COOPCLOUD_TRAEFIK_IMAGE")),
                ("restic", choose("restic_image", "COOPCLOUD_RESTIC_IMAGE")),
            )
            if image
        }
        ca = choose("gateway_ca", "COOPCLOUD_GATEWAY_CA")
        command = " ".join(["pytest", *(shlex.quote(argument) for argument in config.invocation_params.args)])
        options = Options(
            source=spec,
            deployer=choose("deployer", "COOPCLOUD_DEPLOYER", str(config.getini("deployer"))),
            base_domain=choose("base_domain", "COOPCLOUD_BASE_DOMAIN", "ci.localhost"),
            gateway=choose("gateway", "COOPCLOUD_GATEWAY"),
            ca=Path(ca).absolute() if ca else None,
            keep_app=bool(config.getoption("keep_app")),
            reuse_app=choose("reuse_app"),
            max_runs=_number(choose("max_runs", "MAX_TESTS", "1"), "--max-runs", least=1),
            queue_timeout=float(choose("queue_timeout", default="3600")),
            run_timeout=float(choose("run_timeout", "COOPCLOUD_RUN_TIMEOUT", "3600")),
            janitor_max_age=float(os.environ.get("CCCI_JANITOR_MAX_AGE", "") or 3600.0),
            tool_images=images,
            screenshots=not config.getoption("no_screenshots"),
            command=command,
        )
        RunName.new(spec.name, base_domain=options.base_domain)
        return options
    except CoopCloudError as error:
        raise pytest.UsageError(str(error)) from None
    except ValueError as error:
        raise pytest.UsageError(f"{error}: give a number") from None


def _number(text: str, option: str, *, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise BadInputError(f"{option} is {text!r}", hint=f"give a whole number from {least}")
    return int(text)


def _stages(config: pytest.Config) -> set[Stage]:
    text = str(config.getoption("stages") or os.environ.get("STAGES", ""))
    if not text:
        return set(Stage)
    known = {stage.value: stage for stage in Stage}
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise pytest.UsageError(
            f"--stages: there is no stage {wrong[0] if wrong else text!r}; take of {', '.join(known)}"
        )
    return {known[name] for name in names} | {Stage.TEARDOWN}


def _variants(config: pytest.Config, versions: Sequence[str]) -> list[str]:
    """Return the published versions that `--upgrade-from` names; `` for the newest one."""
    text = str(config.getoption("upgrade_from") or os.environ.get("COOPCLOUD_UPGRADE_FROM", "") or "last:1")
    if text == "last:1":
        return [""]
    if text == "all":
        return list(versions) or [""]
    if text.startswith("last:"):
        return list(versions[-_number(text.removeprefix("last:"), "--upgrade-from=last:N", least=1) :]) or [""]
    if text not in versions:
        near = ", ".join(versions) or "(none)"
        raise pytest.UsageError(f"--upgrade-from: {text!r} is no published version; there are {near}")
    return [text]


def _preview(name: RunName, recipe: str) -> RecipeUnderTest:
    return RecipeUnderTest(
        name=recipe,
        path=Path(),
        ref="",
        versions=(),
        run_id=name.run_id,
        domain=name.domain,
        base_domain=name.base_domain,
    )
