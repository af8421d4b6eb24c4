"""One run: it opens, it owns, it records, it closes. Works without pytest.

    with Run.open(options, say=print) as run:
        run.resolve()
        with run.stage(Stage.INSTALL) as record:
            run.deploy(run.head, record)

Whatever happens in between, `close()` takes the app down and proves it; and when this process dies, the reaper does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import requests

from pytest_coopcloud import evidence, janitor
from pytest_coopcloud.app import App
from pytest_coopcloud.cli import RUN_ID_VARIABLE
from pytest_coopcloud.deployers import default_deployer, get_deployer
from pytest_coopcloud.deployers.probes import comparable
from pytest_coopcloud.deployers.protocol import Archive, Deployer, Deployment, Mount, Release, Site
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import AppError, BadInputError, CoopCloudError, DeadlineError, Unverified
from pytest_coopcloud.inventory import STACK_LABEL, Inventory, Kind, take
from pytest_coopcloud.ledger import Ledger, Lock, lock_slot, state_folder
from pytest_coopcloud.meta import Check, RecipeMeta
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.proxy import Gateway, borrow_proxy, parse_gateway, release_proxy, wait_for_proxy
from pytest_coopcloud.proxy import is_proxy_answer as proxys_own
from pytest_coopcloud.redaction import Redactor
from pytest_coopcloud.results import (
    Artifact,
    Cause,
    CauseClass,
    Outcome,
    RunResult,
    Stage,
    StageResult,
    TestOutcome,
    Wait,
    write_result,
)
from pytest_coopcloud.sources import Source, SourceSpec, fetch
from pytest_coopcloud.teardown import Teardown, take_down
from pytest_coopcloud.wait import StackState, all_converged, wait

__all__ = ["Options", "Run", "Skipped", "Unverified"]

#: The file that is planted in volumes.
SENTINEL = ".coopcloud-sentinel"


class Skipped(Exception):
    """A stage that is not run, with the reason."""


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        source: Which recipe, and where from.
        deployer: `swarm`, `abra`, or empty for the default.
        base_domain: What the app's domain ends in.
        gateway: Where the names lead (`host:port`); empty where the proxy of the swarm, or our own, is found.
        ca: A CA to trust at that gateway.
        keep_app: Leave the app at the end.
        reuse_app: The id of a run whose app was kept, to go on with.
        max_runs: How many runs this host may have at once.
        queue_timeout: Seconds to wait for a place.
        run_timeout: Seconds that the run may take.
        janitor_max_age: Seconds after which what a dead run left is taken down at the start of this one.
        tool_images: Images for `restic` and `traefik`, where the user names them.
        screenshots: Whether screenshots are taken.
        command: What repeats the run.
    """

    source: SourceSpec
    deployer: str = ""
    base_domain: str = "ci.localhost"
    gateway: str = ""
    ca: Path | None = None
    keep_app: bool = False
    reuse_app: str = ""
    max_runs: int = 1
    queue_timeout: float = 3600.0
    run_timeout: float = 3600.0
    janitor_max_age: float = 3600.0
    tool_images: Mapping[str, str] = field(default_factory=dict)
    screenshots: bool = True
    command: str = ""


@dataclass
class Run:
    """One execution with one id.

    Attributes:
        options: What the user chose.
        name: Its names.
        folder: `runs/<run id>` below the state directory.
        result: What it found so far; `save()` writes it.
        meta: What the enrolment says; set it before the first stage.
    """

    options: Options
    state: Path
    name: RunName
    ledger: Ledger
    lock: Lock
    result: RunResult
    say: Callable[[str], None]
    docker: Docker = field(init=False)
    gateway: Gateway = field(init=False)
    meta: RecipeMeta = field(default_factory=RecipeMeta)
    redactor: Redactor = field(default_factory=Redactor)
    _source: Source | None = None
    _deployer: Deployer | None = None
    _deployment: Deployment | None = None
    _app: App | None = None
    _before: Inventory = field(default_factory=Inventory)
    _slot: Lock | None = None
    _users: Lock | None = None
    _reaper: subprocess.Popen[bytes] | None = None
    _pipe: int = -1
    _closed: bool = False
    _proxy_ready: bool = False
    _sound: bool = False
    _shots: list[evidence.Shot] = field(default_factory=list)

    # Opening

    @classmethod
    def open(cls, options: Options, *, say: Callable[[str], None]) -> Run:
        """Begin a run: its ledger, its place on the host, its reaper. Nothing exists in Docker yet.

        Raises:
            BadInputError: Something that the user gave cannot be used.
            StateError: The state directory cannot be used.
            LockedError: The host had no place for this run in time.
            EngineError: There is no engine.
        """
        state = state_folder()
        recipe = options.source.name
        if options.reuse_app:
            ledger, lock = _adopt(state, options.reuse_app)
            name = ledger.name
        else:
            name = RunName.new(recipe, base_domain=options.base_domain)
            ledger, lock = Ledger.open(state, name, recipe)
        result = RunResult(
            run_id=name.run_id,
            recipe=recipe,
            domain=name.domain,
            stack=name.stack,
            started_at=time.time(),
            command=options.command,
            src=options.source.src,
            pr=options.source.pr,
            build=int(os.environ["DRONE_BUILD_NUMBER"]) if os.environ.get("DRONE_BUILD_NUMBER", "").isdigit() else None,
            comment=os.environ.get("COMMENT", "") if os.environ.get("COMMENT", "").isdigit() else "",
        )
        run = cls(options=options, state=state, name=name, ledger=ledger, lock=lock, result=result, say=say)
        os.environ[RUN_ID_VARIABLE] = name.run_id
        try:
            run.save()
            run._slot = lock_slot(state / "slots", options.max_runs, timeout=options.queue_timeout, waiting=say)
            _sign(run._slot, name.run_id)
            run._users = Lock(state / "proxy" / "users.lock")
            run._start_reaper()
            run.deadline("start", options.run_timeout)
            run.docker = Docker()
            run.docker.check_swarm()
            run.sweep()
            run._before = take(run.docker)
        except BaseException as error:
            run._abort(error)
            raise
        return run

    def _start_reaper(self) -> None:
        reading, self._pipe = os.pipe()
        held = [self.lock, *(lock for lock in (self._slot, self._users) if lock is not None)]
        environment = {key: value for key, value in os.environ.items() if key != RUN_ID_VARIABLE}
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
        environment["COOPCLOUD_CI_STATE"] = str(self.state)
        descriptors = [str(lock.fd) for lock in held]
        try:
            with (self.folder / "reaper.log").open("ab") as log:
                self._reaper = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py"))),
                        *(str(self.folder), str(os.getpid()), str(reading), *descriptors),
                    ],
                    cwd="/",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[reading, *(lock.fd for lock in held)],
                )
        finally:
            os.close(reading)

    def _tell_reaper(self, message: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self._pipe, message.encode() + b"\n")

    def sweep(self) -> None:
        """Take down what dead runs left (see `janitor`)."""
        for found in janitor.sweep(
            self.docker,
            self.state,
            base_domain=self.name.base_domain,
            max_age=self.options.janitor_max_age,
            except_for=[self.name.run_id],
            say=self.say,
        ):
            self.say(f"took down what an earlier run left: {found}")
            self.result.notes.append(f"took down what run {found.run_id} had left")

    @property
    def folder(self) -> Path:
        """Where the run writes everything down."""
        return self.ledger.folder

    # The recipe

    def resolve(self) -> Source:
        """Fetch the recipe at the commit under test, once.

        Raises:
            BadInputError: There is no such recipe, commit or version.
            SourceError: It could not be fetched.
        """
        if self._source is None:
            self.say(f"fetching {self.options.source}")
            self._source = fetch(self.options.source, mirrors=self.state / "mirrors", workdir=self.folder / "recipe")
            source = self._source
            self.result.source, self.result.ref, self.result.dirty = source.description, source.ref, source.dirty
            self.result.branch = source.branch
            self.result.counts = source.is_default_branch and not source.dirty and not self.result.pr
            for tag in source.rejected:
                self.result.notes.append(f"tag {tag!r} is no version and was left out")
            self.save()
        return self._source

    @property
    def source(self) -> Source:
        """The recipe's checkout and its published versions."""
        return self.resolve()

    @property
    def head(self) -> Release:
        """The state under test."""
        return Release(
            version=self.result.version or "head", path=self.source.path, ref=self.source.ref, published=False
        )

    def published(self, version: str) -> Release:
        """Return a published version, checked out into a folder of its own."""
        found = next(one for one in self.source.versions if str(one) == version)
        path = self.folder / "versions" / version
        if not path.exists():
            path = self.source.checkout_version(found, path)
        return Release(version=version, path=path, ref="", published=True)

    @property
    def deployer(self) -> Deployer:
        """The deployer, made at its first use."""
        if self._deployer is None:
            meta = self.meta
            site = Site(
                docker=self.docker,
                name=self.name,
                recipe=self.result.recipe,
                folder=self.folder,
                state=self.state,
                ledger=self.ledger,
                redactor=self.redactor,
                env={key: self.fill(value) for key, value in meta.extra_env.items()},
                allow=meta.allow,
                progress=self.say,
                log=self.folder / "commands.log",
                secrets={key: self.fill(value) for key, value in meta.secrets.items()},
                extra_domains=tuple(self.fill(domain) for domain in meta.extra_domains),
                tool_images=self.options.tool_images,
                repository=self.source.repository,
            )
            self._deployer = get_deployer(self.options.deployer or default_deployer(), site)
            self.result.deployer, self.result.deployer_version = self._deployer.name, self._deployer.version
        return self._deployer

    def fill(self, text: str) -> str:
        """Fill `{domain}`, `{run_id}` and `{base_domain}` into a value of the enrolment."""
        known = {"domain": self.name.domain, "run_id": self.name.run_id, "base_domain": self.name.base_domain}
        for key, value in known.items():
            text = text.replace(f"{{{key}}}", value)
        return text

    # Stages

    @contextlib.contextmanager
    def stage(self, stage: Stage, variant: str = "") -> Iterator[StageResult]:
        """Run a block as a stage: its times, its outcome, its cause; all written down as they change.

        Raises what the block raises, after it has been recorded.
        """
        record = self.result.stage(stage, variant)
        record.started_at = time.time()
        began = time.monotonic()
        self.ledger.stage = record.title
        self.deadline(record.title, self.meta.stage_timeout)
        self.save()
        try:
            left = self.ledger.run_deadline - time.monotonic()
            with _alarm(max(0.001, min(self.meta.stage_timeout, left)), record.title):
                yield record
        except Skipped as skipped:
            record.outcome, record.reason = Outcome.SKIP, str(skipped)
            raise
        except Unverified as unverified:
            record.outcome = Outcome.UNVERIFIED
            record.cause = self._cause(unverified)
            raise
        except BaseException as error:
            record.outcome = Outcome.FAIL if isinstance(error, Exception) else Outcome.UNVERIFIED
            record.cause = self._cause(error)
            self._sound = False
            if isinstance(error, Exception):
                self.gather(record.title, failed=True)
                record.cause.log = record.cause.log or evidence.last_lines(self.folder, record.cause.summary)
            raise
        else:
            record.outcome = Outcome.PASS
        finally:
            record.duration_seconds = time.monotonic() - began
            self.deadline("between stages", self.meta.stage_timeout)
            self.save()

    def _cause(self, error: BaseException) -> Cause:
        if isinstance(error, CoopCloudError):
            return Cause(kind=error.cause, summary=self.redactor.clean(error.message), hint=error.hint)
        if isinstance(error, AssertionError | requests.RequestException):
            kind = CauseClass.RECIPE
        elif isinstance(error, OSError) or not isinstance(error, Exception):
            kind = CauseClass.INFRASTRUCTURE
        else:
            kind = CauseClass.TEST
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return Cause(kind=kind, summary="the run was interrupted")
        said = str(error).strip() or type(error).__name__
        if kind is CauseClass.TEST:
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {said} ({Path(where.filename).name}:{where.lineno})"
        return Cause(kind=kind, summary=self.redactor.clean(said[:2000]))

    def deadline(self, stage: str, timeout: float) -> None:
        """Say until when a stage must have ended; the reaper enforces it, and the run's own."""
        now = time.monotonic()
        if not self.ledger.run_deadline:
            self.ledger.run_deadline = now + self.options.run_timeout
        # What must be taken down is taken down, also when the run's own time is over.
        teardown = stage == Stage.TEARDOWN.value
        self.ledger.stage_deadline = now + timeout if teardown else min(now + timeout, self.ledger.run_deadline)
        self._tell_reaper(f"deadline {self.ledger.stage_deadline} {stage}")

    @contextlib.contextmanager
    def result_of(self, record: StageResult) -> Iterator[None]:
        """Let what follows a stage fail it: an exception in this block becomes its cause."""
        try:
            yield
        except Exception as error:
            record.outcome, record.cause = Outcome.FAIL, self._cause(error)
            raise
        finally:
            self.save()

    @contextlib.contextmanager
    def step(self, record: StageResult, what: str) -> Iterator[Wait]:
        """Record one thing that a stage does, with how long it took."""
        step = Wait(what=what, duration_seconds=0.0)
        record.steps.append(step)
        began = time.monotonic()
        try:
            yield step
        finally:
            step.duration_seconds = time.monotonic() - began

    # What a stage does

    @property
    def app(self) -> App | None:
        """The app that is live now, if any."""
        return self._app

    @property
    def deployment(self) -> Deployment:
        """What was submitted last."""
        if self._deployment is None:
            raise AppError("no app is deployed", cause=CauseClass.TEST)
        return self._deployment

    def prepare(self, release: Release, env: Mapping[str, str] | None = None) -> str:
        """Check a release and pull its images, before the clock of a stage starts; return the version it names."""
        version = self.deployer.prepare(release, env or {})
        if not release.published and not self.result.version:
            self.result.version = version
        return version

    def ensure_proxy(self) -> None:
        """Find or start the proxy, and make sure that nothing else answers for this run's name."""
        if self._proxy_ready:
            return
        if self.options.gateway:
            self.gateway = parse_gateway(self.options.gateway, self.options.ca)
        else:
            assert self._users is not None
            wanted = self.options.tool_images.get("traefik", "")
            proxy = borrow_proxy(self.docker, self.name.base_domain, self.state / "proxy", self._users, image=wanted)
            self.gateway = proxy.gateway
            self.say(f"apps are reached through {proxy.title} at {proxy.gateway}")
        answer = wait_for_proxy(self.gateway, self.name.domain)
        if not self.options.reuse_app and not proxys_own(answer):
            raise AppError(
                f"before anything is deployed, {self.name.domain} is already answered with {answer.status_code}: "
                f"{answer.text[:120]!r}",
                hint="some other router takes every name; look for HostRegexp among the labels on this swarm",
                cause=CauseClass.INFRASTRUCTURE,
            )
        self._proxy_ready = True

    def deploy(self, release: Release, record: StageResult, env: Mapping[str, str] | None = None) -> App:
        """Deploy a release from nothing, and wait until it is up."""
        self.undeploy(record)
        self.ensure_proxy()
        with self.step(record, f"submit {release.version}"):
            self._deployment = self.deployer.deploy(release, env or {})
        self._note(self._deployment.note)
        return self._until_up(release, record)

    def upgrade(self, release: Release, record: StageResult, env: Mapping[str, str] | None = None) -> App:
        """Move the live app to another release, in place, and wait until it is up."""
        with self.step(record, f"submit {release.version} in place"):
            self._deployment = self.deployer.upgrade(release, env or {})
        self._note(self._deployment.note)
        return self._until_up(release, record)

    def _until_up(self, release: Release, record: StageResult) -> App:
        if self._app is not None:
            self._app.close()
        self._app = App.of(self.docker, self.name, release.version, self.gateway)
        timeout = self.meta.deploy_timeout or self.deployment.timeout
        with self.step(record, "converge") as step:

            def look(state: StackState) -> None:
                step.state = str(state)
                self.say(f"{record.title}: {state}")

            wait(self.docker, self.name.stack, all_converged, timeout=timeout, changed=look)
        with self.step(record, f"answer at {self.meta.health_path}"):
            self._app.responds(self.meta.health_path, self.meta.health_status, timeout=self.meta.health_timeout)
        self._sound = True
        return self._app

    @property
    def head_is_live(self) -> bool:
        """Whether the app that is live is the head as it is, and nothing has failed with it."""
        return (
            self._sound and self._app is not None and self.deployment.release == self.head and not self.deployment.env
        )

    def until_up(self, record: StageResult) -> App:
        """Wait until the live app is up (again)."""
        return self._until_up(self.deployment.release, record)

    def adopt(self, record: StageResult) -> App:
        """Go on with the app that an earlier run has kept."""
        self.ensure_proxy()
        self._deployment = self.deployer.adopt(self.head)
        return self._until_up(self.head, record)

    def specs(self) -> dict[str, Any]:
        """Return what Swarm was told of each service, without what differs between two deployments of the same thing."""
        found = {}
        for raw in self.docker.services(label=f"{STACK_LABEL}={self.name.stack}"):
            template = raw["Spec"]["TaskTemplate"]
            image = self.docker.image(str(template["ContainerSpec"]["Image"])) or {}
            found[raw["Spec"]["Name"]] = comparable(template, (image.get("Config") or {}).get("Healthcheck"))
        return found

    def _note(self, text: str) -> None:
        if text and text not in self.result.notes:
            self.result.notes.append(text)

    def undeploy(self, record: StageResult, *, keep_secrets: bool = False) -> None:
        """Take the live app down with its data, if there is one."""
        if self._deployment is None:
            return
        self.finish_shots()
        with self.step(record, "take down"):
            self.deployer.undeploy(keep_secrets=keep_secrets)
        self._drop_app()

    def _drop_app(self) -> None:
        self._deployment = None
        self._sound = False
        if self._app is not None:
            self._app.close()
            self._app = None

    def check(self, record: StageResult, checks: Sequence[Check] | None = None) -> None:
        """Put the enrolment's questions to the live app.

        Raises:
            AppError: An answer is wrong; all of them are recorded.
        """
        wrong: list[str] = []
        for check in self.meta.checks if checks is None else checks:
            began = time.monotonic()
            said = self._ask(check)
            record.tests.append(
                TestOutcome(
                    name=str(check),
                    outcome=Outcome.FAIL if said else Outcome.PASS,
                    duration_seconds=time.monotonic() - began,
                    message=said,
                )
            )
            if said:
                wrong.append(f"{check}: {said}")
        if wrong:
            raise AppError("; ".join(wrong), hint="see `checks` in the enrolment of the recipe")

    def _ask(self, check: Check) -> str:
        assert self._app is not None
        try:
            answer = self._app.http.get(self._app.url + check.path.lstrip("/"), timeout=30)
        except requests.RequestException as error:
            return str(error)
        if answer.status_code not in check.status:
            return f"answered {answer.status_code}, expected {' or '.join(map(str, check.status))}"
        lowered = answer.text.lower()
        if check.title:
            title = lowered.partition("<title")[2].partition(">")[2].partition("</title")[0].strip()
            if check.title.lower() not in title:
                return f"its title is {title[:80]!r}, expected {check.title!r}"
        if check.contains and check.contains.lower() not in lowered:
            return f"does not contain {check.contains!r}"
        return ""

    def plant(self, *, whole_only: bool) -> list[Mount]:
        """Plant a sentinel in every volume that is backed up, and return where."""
        if not self.meta.sentinels or self._app is None:
            return []
        planted = [mount for mount in self.deployment.mounts if mount.backed_up and (mount.whole or not whole_only)]
        for mount in planted:
            container = self._app.container(mount.service)
            self.docker.put_file(container, f"{mount.path}/{SENTINEL}", self.name.run_id.encode())
        return planted

    def find_planted(self, planted: Sequence[Mount], when: str) -> None:
        """Find the sentinels again.

        Raises:
            AppError: One is gone; the volume is named.
        """
        assert self._app is not None
        lost = []
        for mount in planted:
            mine = next((m for m in self.deployment.mounts if m.volume == mount.volume), None)
            if mine is None:
                lost.append(f"volume {mount.volume} is mounted nowhere any more")
                continue
            content = self.docker.get_file(self._app.container(mine.service), f"{mine.path}/{SENTINEL}")
            if content != self.name.run_id.encode():
                lost.append(f"the file planted in volume {mount.volume} ({mount.path}) is gone")
        if lost:
            raise AppError(
                f"data was lost {when}: {'; '.join(lost)}", hint="does the new version mount the same volumes?"
            )

    def backup(self, record: StageResult) -> Archive:
        """Back the live app up, and check that all that the labels name is in the archive and not empty."""
        with self.step(record, "back up"):
            archive = self.deployer.backup()
        evidence.write_listing(self.folder, archive.paths)
        for wanted in archive.wanted:
            inside = [size for path, size in archive.paths.items() if path.startswith(f"{wanted}/")]
            if wanted not in archive.paths and not inside:
                raise AppError(
                    f"the backup labels name {wanted}, which is not in the archive", hint="did the pre-hook write it?"
                )
            if not any(inside) and not archive.paths.get(wanted):
                raise AppError(f"{wanted} is in the archive, and empty", hint="did the pre-hook write anything?")
        return archive

    def restore(self, archive: Archive, record: StageResult) -> None:
        """Restore an archive into the live app."""
        with self.step(record, "restore"):
            self.deployer.restore(archive)

    # Evidence

    def gather(self, stage: str, *, failed: bool) -> None:
        """Write down what the live app's services logged, and on failure what Swarm says of its tasks."""
        if self._deployment is None:
            return
        with contextlib.suppress(CoopCloudError, OSError):
            for artifact in evidence.gather(self.docker, self.name, self.folder, stage, self.redactor, tasks=failed):
                self.add_artifact(artifact)
        if failed and self._app is not None and self._proxy_ready:
            self.shoot(stage, f"after {stage} failed")
            self.finish_shots()

    def shoot(self, stage: str, title: str) -> None:
        """Begin a screenshot of the front page; it is finished before the app goes."""
        if not self.options.screenshots or self._app is None:
            return
        shot = evidence.begin_shot(self._app, self.folder, stage, title, say=self.say)
        if shot is not None:
            self._shots.append(shot)

    def finish_shots(self) -> None:
        """Wait for the screenshots that are being taken."""
        while self._shots:
            artifact = self._shots.pop().finish()
            if artifact is not None:
                self.add_artifact(artifact)

    def add_artifact(self, artifact: Artifact) -> None:
        """List a file beside the result, once."""
        if artifact.path not in [known.path for known in self.result.artifacts]:
            self.result.artifacts.append(artifact)

    def save(self) -> None:
        """Write `results.json`. Where the disk is full, the reserve is given back; after that the old file stays."""
        for attempt in range(2):
            try:
                write_result(self.result, self.folder)
                return
            except OSError:
                if attempt or not self.ledger.free_reserve():
                    return

    # The end

    def teardown(self) -> Teardown | None:
        """Take everything down and prove it, as the last stage; None where the app is kept."""
        record = self.result.stage(Stage.TEARDOWN)
        if record.outcome is not None:
            return None
        record.started_at = time.time()
        self.ledger.stage = record.title
        self.deadline(record.title, 600)
        self.finish_shots()
        if self._deployment is not None:
            self.gather("end", failed=False)
        if self.options.keep_app and self._deployment is not None:
            record.outcome, record.reason = Outcome.SKIP, "the app is kept (--keep-app)"
            self.ledger.kept = True
            self.ledger.save()
            return None
        if self._deployer is not None:
            with contextlib.suppress(CoopCloudError):
                self._deployer.discard()
        done = take_down(self.docker, self.name)
        self._drop_app()
        left = [str(thing) for thing in done.leaks]
        if self._users is not None:
            release_proxy(self.docker, self._users)
        gone = take(self.docker)
        left += [str(t) for t in gone.new_since(self._before) if _is_ours(t, self.name) and str(t) not in left]
        self.result.leaks = left
        record.duration_seconds = done.duration_seconds
        record.steps.append(Wait(what=f"remove {done.removed} things", duration_seconds=done.duration_seconds))
        record.outcome = Outcome.FAIL if left else Outcome.PASS
        if left:
            record.cause = Cause(kind=CauseClass.INFRASTRUCTURE, summary=f"left behind: {', '.join(left)}")
        self.ledger.clean = not left
        with contextlib.suppress(OSError):
            self.ledger.save()
        return done

    def close(self) -> None:
        """End the run: teardown where that was not done yet, the result, the reaper, the locks. May be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            self.teardown()
        except CoopCloudError as error:
            record = self.result.stage(Stage.TEARDOWN)
            record.outcome, record.cause = Outcome.FAIL, self._cause(error)
            self._finish()
            # The reaper goes on where this ended: it is told nothing, and finds the pipe closed.
            self._let_go(orderly=False)
            return
        self._finish()
        self._let_go(orderly=True)

    def _finish(self) -> None:
        for record in self.result.stages:
            if record.outcome is None:
                record.outcome = Outcome.UNVERIFIED
                why = self.result.died or "the run ended before this stage"
                record.cause = record.cause or Cause(kind=CauseClass.INFRASTRUCTURE, summary=why)
        self.result.finished_at = time.time()
        self.save()
        self.ledger.free_reserve()
        if not self.options.keep_app:
            for name in ("recipe", "versions", "abra"):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def _let_go(self, *, orderly: bool) -> None:
        if orderly:
            self._tell_reaper("done")
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._reaper is not None and orderly:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._reaper.wait(timeout=10)
        for lock in (self._slot, self._users, self.lock):
            if lock is not None:
                lock.close()
        if hasattr(self, "docker"):
            self.docker.close()
        os.environ.pop(RUN_ID_VARIABLE, None)

    def _abort(self, error: BaseException) -> None:
        """End a run that could not begin: nothing was created."""
        self._closed = True
        self.result.died = str(getattr(error, "message", error)).splitlines()[0] if str(error) else type(error).__name__
        self.ledger.clean = True
        with contextlib.suppress(OSError):
            self.ledger.save()
        self._finish()
        self._let_go(orderly=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_ours(thing: Any, name: RunName) -> bool:
    return bool(
        thing.kind is not Kind.TASK and (thing.name.startswith(name.prefix) or thing.name.startswith(name.run_id))
    )


def _adopt(state: Path, run_id: str) -> tuple[Ledger, Lock]:
    """Take over the ledger of a run whose app was kept."""
    folder = state / "runs" / run_id
    if not folder.is_dir():
        raise BadInputError(f"there is no run {run_id[:40]!r} to go on with", hint=f"see {state / 'runs'}")
    ledger = Ledger.read(folder)
    lock = Lock(folder / "lock")
    if not lock.try_exclusive():
        raise BadInputError(f"run {run_id} is still going on", hint="wait for its end")
    if not ledger.kept:
        raise BadInputError(f"run {run_id} did not keep its app", hint="run it again with `--keep-app`")
    ledger.pid, ledger.run_deadline, ledger.kept, ledger.clean = os.getpid(), 0.0, False, False
    ledger.save()
    return ledger, lock


def _sign(slot: Lock, run_id: str) -> None:
    """Say in the lock file who holds it, for those who wait."""
    with contextlib.suppress(OSError):
        os.ftruncate(slot.fd, 0)
        os.pwrite(slot.fd, run_id.encode(), 0)


@contextlib.contextmanager
def _alarm(timeout: float, stage: str) -> Iterator[None]:
    """Raise `DeadlineError` in this block when it takes longer than `timeout` seconds (main thread only)."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise DeadlineError(f"timed out in {stage} after {timeout:g} s", hint="see `stage_timeout` in the enrolment")

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except ValueError:  # not the main thread; the reaper watches alone
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
