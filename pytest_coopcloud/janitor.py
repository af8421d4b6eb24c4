"""Take down what dead runs left: what the reaper does at once, and the janitor later, for what even the reaper missed.

A run is dead when its lock is free; whoever takes it down holds the lock meanwhile. What has no ledger here is touched only
when it carries our labels (with the name of this state directory) or a name of our scheme under the base domain, and is old
enough. Nothing else is ever removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_coopcloud.backupbot import BackupBot, was_asked
from pytest_coopcloud.cli import RUN_ID_VARIABLE
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import BadNameError, CoopCloudError, EngineError
from pytest_coopcloud.inventory import RUN_LABEL, STATE_LABEL, Thing, state_label, take
from pytest_coopcloud.ledger import LOCK_FILE, Ledger, Lock, StateError, ledgers
from pytest_coopcloud.naming import RUN_ID, RunName
from pytest_coopcloud.proxy import release_proxy
from pytest_coopcloud.reaper import DIED_FILE
from pytest_coopcloud.results import (
    RESULTS_FILE,
    BrokenResultError,
    Cause,
    CauseClass,
    Outcome,
    RunResult,
    Stage,
    StageResult,
    read_result,
    write_result,
)
from pytest_coopcloud.teardown import Teardown, take_down

__all__ = ["Found", "finish_result", "kill_processes", "reap", "sweep"]

#: Seconds between two tries while the engine is away: the first, and the longest.
RETRY_FIRST, RETRY_LONGEST = 0.5, 10.0
#: Seconds after which a reaper gives up an engine that stays away; the janitor of the next run goes on.
RETRY_FOR = 3600.0


@dataclass(frozen=True)
class Found:
    """A dead run, or what is left of one.

    Attributes:
        run_id: The run.
        why: Why it is ours to take.
        things: What it still has.
        taken: What became of it; None for a dry run.
    """

    run_id: str
    why: str
    things: tuple[Thing, ...]
    taken: Teardown | None = None

    def __str__(self) -> str:
        what = ", ".join(str(thing) for thing in self.things) or "nothing in Docker"
        return f"{self.run_id}: {self.why}: {what}"


def reap(folder: Path, *, say: Callable[[str], None]) -> Teardown:
    """Take down the app of a run that is dead, whose lock the caller holds, and complete its result.

    Retries while the engine is away.

    Raises:
        StateError: The ledger cannot be read.
        EngineError: The engine stayed away for an hour.
    """
    ledger = Ledger.read(folder)
    killed = kill_processes(ledger.run_id)
    if killed:
        say(f"killed {killed} processes that outlived the run")
    began, pause = time.monotonic(), RETRY_FIRST
    while True:
        try:
            with contextlib.closing(Docker()) as docker, _without_the_bot(docker, ledger):
                result = take_down(docker, ledger.name)
            break
        except EngineError as error:
            if time.monotonic() - began > RETRY_FOR:
                raise
            say(f"the engine is away, trying again in {pause:g} s: {error.message}")
            time.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)
    say(f"took down {result.removed} things in {result.duration_seconds:.2f} s, {len(result.leaks)} left")
    ledger.free_reserve()
    ledger.clean = not result.leaks
    with contextlib.suppress(OSError):
        ledger.save()
    finish_result(folder, ledger, result)
    return result


@contextlib.contextmanager
def _without_the_bot(docker: Docker, ledger: Ledger) -> Iterator[None]:
    """Have backup-bot-two end its work for a run before this block, where it had any, and forget its snapshots after."""
    bot = None
    if was_asked(ledger.owned, ledger.name):
        with contextlib.suppress(CoopCloudError):
            bot = BackupBot.find(docker)
            bot.stop(ledger.name)
    yield
    if bot is not None:
        with contextlib.suppress(CoopCloudError):
            bot.forget(ledger.name)


def kill_processes(run_id: str) -> int:
    """Kill every process that carries the run's id in its environment, and return how many there were.

    A `docker stack deploy` or a `git` that outlives its run would go on creating things.
    """
    wanted = f"{RUN_ID_VARIABLE}={run_id}".encode()
    killed = 0
    for entry in Path("/proc").iterdir() if Path("/proc/self/environ").exists() else ():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed


def finish_result(folder: Path, ledger: Ledger, teardown: Teardown | None) -> None:
    """Complete the result of a run that did not end by itself: what had not passed by then is unverified."""
    try:
        result = read_result(folder / RESULTS_FILE)
    except (BrokenResultError, OSError):
        result = RunResult(run_id=ledger.run_id, recipe=ledger.recipe, started_at=ledger.created_at)
    if result.finished_at is not None:
        return
    stage = result.current.title if result.current else ledger.stage or "the beginning"
    died = ""
    with contextlib.suppress(OSError):
        died = (folder / DIED_FILE).read_text().strip()
    result.died = died or f"run was killed in {stage}"
    cause = Cause(kind=CauseClass.INFRASTRUCTURE, summary=result.died)
    for record in result.stages:
        if record.outcome is None and record.stage is not Stage.TEARDOWN:
            _unverified(record, cause)
    if teardown is not None:
        record = result.stage(Stage.TEARDOWN)
        record.started_at = record.started_at or time.time() - teardown.duration_seconds
        record.duration_seconds = teardown.duration_seconds
        result.leaks = [str(thing) for thing in teardown.leaks]
        record.outcome = Outcome.FAIL if result.leaks else Outcome.PASS
        record.reason = "by the reaper, after the run had died"
        if result.leaks:
            record.cause = Cause(kind=CauseClass.INFRASTRUCTURE, summary=f"left behind: {', '.join(result.leaks)}")
    result.finished_at = time.time()
    with contextlib.suppress(OSError):
        write_result(result, folder)


def _unverified(record: StageResult, cause: Cause) -> None:
    if record.started_at is not None:
        record.duration_seconds = time.time() - record.started_at
    record.outcome, record.cause = Outcome.UNVERIFIED, cause


def sweep(
    docker: Docker,
    state: Path,
    *,
    base_domain: str,
    max_age: float,
    dry_run: bool = False,
    except_for: Iterable[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> list[Found]:
    """Take down every dead run that is older than `max_age` seconds, and return what was found.

    Args:
        docker: The engine.
        state: The state directory.
        base_domain: What names of our scheme end in.
        max_age: Seconds since a run (or an object without a ledger) was made.
        dry_run: Only say what would be taken.
        except_for: Run ids to leave alone.
        say: Called with a line for each thing done.
    """
    found: list[Found] = []
    spared = set(except_for)
    known: set[str] = set()
    for folder in ledgers(state):
        known.add(folder.name)
        try:
            ledger = Ledger.read(folder)
        except StateError as error:
            say(f"{folder.name}: left alone: {error.message}")
            continue
        if ledger.clean or folder.name in spared or time.time() - ledger.created_at < max_age:
            continue
        with Lock(folder / LOCK_FILE) as lock:
            if not lock.try_exclusive():
                continue  # it lives, or somebody is taking it down
            ledger = Ledger.read(folder)
            if ledger.clean or (ledger.kept and time.time() - ledger.created_at < max(max_age, KEPT_FOR)):
                continue
            found.append(_take(docker, folder, ledger.name, "its run is dead", dry_run=dry_run, say=say))
    for name, things, why in _orphans(docker, state, base_domain, max_age, known | spared):
        taken = None if dry_run else take_down(docker, name)
        found.append(Found(name.run_id, why, tuple(things), taken))
    if not dry_run:
        with Lock(state / "proxy" / "users.lock") as users:
            release_proxy(docker, users)
    return found


#: An app that was kept on purpose stays a day at least.
KEPT_FOR = 86400.0


def _take(docker: Docker, folder: Path, name: RunName, why: str, *, dry_run: bool, say: Callable[[str], None]) -> Found:
    from pytest_coopcloud.inventory import owned

    things = owned(docker, name).things
    return Found(name.run_id, why, things, None if dry_run else reap(folder, say=say))


def _orphans(
    docker: Docker, state: Path, base_domain: str, max_age: float, known: set[str]
) -> list[tuple[RunName, list[Thing], str]]:
    """Find what carries our labels or a name of our scheme, and has no ledger here."""
    scheme = re.compile(rf"({RUN_ID.pattern})_{re.escape(base_domain.replace('.', '_'))}_")
    mine = state_label(state)
    groups: dict[str, list[Thing]] = {}
    foreign: set[str] = set()
    why: dict[str, str] = {}
    for thing in take(docker).things:
        labelled = thing.label(RUN_LABEL)
        named = scheme.match(thing.name)
        run_id = labelled or (named.group(1) if named else "")
        if not run_id or run_id in known:
            continue
        if labelled and thing.label(STATE_LABEL) not in ("", mine):
            foreign.add(run_id)  # of another state directory on this engine, which knows whether it lives
            continue
        groups.setdefault(run_id, []).append(thing)
        why.setdefault(
            run_id,
            "carries our label, and no ledger knows it" if labelled else "has a name of ours, and no ledger knows it",
        )
    found = []
    for run_id, things in groups.items():
        if run_id in foreign or (max_age > 0 and _age(docker, things) < max_age):
            continue
        with contextlib.suppress(BadNameError):
            found.append((RunName(run_id, base_domain), things, why[run_id]))
    return found


def _age(docker: Docker, things: Iterable[Thing]) -> float:
    """Return how old the youngest of these things is, in seconds; 0 where that cannot be told."""
    ages = []
    for thing in things:
        try:
            raw: dict[str, Any] = _inspect(docker, thing)
        except (CoopCloudError, json.JSONDecodeError):
            return 0.0
        text = str(raw.get("CreatedAt") or raw.get("Created") or "")
        try:
            made = datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
        except ValueError:
            return 0.0
        ages.append(time.time() - made.timestamp())
    return min(ages, default=0.0)


def _inspect(docker: Docker, thing: Thing) -> dict[str, Any]:
    return docker.inspect(thing.kind.value, thing.id)
