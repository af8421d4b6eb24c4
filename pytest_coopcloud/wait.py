"""Wait for a stack, on the engine's events, and give up at once when it cannot heal any more.

Swarm sends events for services and containers and none for tasks (moby/moby has no such event type), so an image that is
missing or a task that is rejected is seen at the next tick; a tick comes soon after each event and rarely without one.

Example:
    >>> wait(docker, name.stack, all_converged, timeout=300)        # doctest: +SKIP
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import WaitError
from pytest_coopcloud.inventory import STACK_LABEL
from pytest_coopcloud.results import CauseClass

__all__ = ["ServiceState", "StackState", "all_converged", "any_failed", "read_state", "wait"]

#: A container that has ended this often, while nothing else in the stack was still on its way, is in a loop.
EXIT_LOOP = 3
#: Seconds between two looks: soon after an event, and at the latest.
SOON, LATE = 0.05, 0.5

_LOST = ("failed", "rejected", "orphaned")
_INFRASTRUCTURE = (
    "no space left on device",
    "cannot allocate memory",
    "no suitable node",
    "could not find an available ip",
)


@dataclass(frozen=True)
class Failure:
    """A task that ended badly, in the engine's words."""

    task: str
    slot: str
    state: str
    error: str
    exit_code: int | None


@dataclass(frozen=True)
class ServiceState:
    """One service at one moment.

    Attributes:
        name: Its name within the stack.
        wanted: How many tasks it should have.
        ready: How many of them run as the service now says, and are healthy where they have a health check.
        update: The state of its last update; empty where there was none.
        update_message: What the engine says about it.
        failures: Tasks of the service as it is now that ended badly.
        stage: What its newest task is doing (`preparing`, `starting`, ...).
        given_up: Why Swarm does not start it again; empty while it does, or need not.
    """

    name: str
    wanted: int
    ready: int
    update: str = ""
    update_message: str = ""
    failures: tuple[Failure, ...] = ()
    stage: str = ""
    given_up: str = ""

    @property
    def settled(self) -> bool:
        """Whether it has all its tasks and no update is going on."""
        return self.ready >= self.wanted and self.update in ("", "completed", "rollback_completed")

    def __str__(self) -> str:
        return f"{self.name} {self.ready}/{self.wanted}" + (f" {self.stage}" if not self.settled and self.stage else "")


@dataclass(frozen=True)
class StackState:
    """A stack at one moment."""

    services: tuple[ServiceState, ...] = field(default=())

    def __str__(self) -> str:
        ready = sum(service.settled for service in self.services)
        waiting = ", ".join(str(service) for service in self.services if not service.settled)
        return f"{ready}/{len(self.services)} services ready" + (f" (waiting for {waiting})" if waiting else "")


def read_state(docker: Docker, stack: str) -> StackState:
    """Look at a stack once."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    for task in docker.tasks(label=f"{STACK_LABEL}={stack}"):
        tasks.setdefault(task["ServiceID"], []).append(task)
    services = docker.services(label=f"{STACK_LABEL}={stack}")
    return StackState(tuple(_service_state(raw, tasks.get(raw["ID"], []), stack) for raw in services))


def _service_state(raw: dict[str, Any], tasks: list[dict[str, Any]], stack: str) -> ServiceState:
    spec = raw["Spec"]
    mode = spec.get("Mode") or {}
    job = "ReplicatedJob" in mode or "GlobalJob" in mode
    current = [task for task in tasks if _same_spec(task, spec)]
    # Of a slot only the newest task counts: the others are its history.
    newest: dict[str, dict[str, Any]] = {}
    for task in sorted(current, key=lambda task: str(task["CreatedAt"])):
        newest[_slot(task)] = task
    good = "complete" if job else "running"
    ready = sum(
        task["Status"]["State"] == good and (job or task["DesiredState"] == "running") for task in newest.values()
    )
    # A new task of the current spec with the old one still running beside it: the update has not settled.
    stale = [
        task
        for task in tasks
        if not _same_spec(task, spec) and task["Status"]["State"] == "running" and task["DesiredState"] == "running"
    ]
    update = raw.get("UpdateStatus") or {}
    last = max(newest.values(), key=lambda task: str(task["CreatedAt"]), default=None)
    return ServiceState(
        name=str(spec["Name"]).removeprefix(f"{stack}_"),
        wanted=_wanted(mode, len(newest)),
        ready=0 if stale else ready,
        update=str(update.get("State") or ""),
        update_message=str(update.get("Message") or ""),
        failures=tuple(
            _failure(task) for task in sorted(current, key=lambda task: str(task["CreatedAt"])) if _lost(task, job=job)
        ),
        stage=str(last["Status"]["State"]) if last else "",
        given_up="" if job or last is None else _given_up(last, spec["TaskTemplate"].get("RestartPolicy") or {}),
    )


def _given_up(task: dict[str, Any], policy: dict[str, Any]) -> str:
    """Say why the newest task of a service has no successor: it ended, and the restart policy has it so."""
    state, condition = task["Status"]["State"], policy.get("Condition", "any")
    ended_well = state == "complete"
    if not (ended_well or state == "failed") or condition == "any" or (condition == "on-failure" and not ended_well):
        return ""
    code = (task["Status"].get("ContainerStatus") or {}).get("ExitCode") or 0
    return (
        f"its task ended with exit code {code} and is not started again (restart policy {condition}); a container that "
        "never got healthy and was stopped for it ends so too"
    )


def _same_spec(task: dict[str, Any], spec: dict[str, Any]) -> bool:
    ours, theirs = task.get("Spec") or {}, spec.get("TaskTemplate") or {}
    same = ours.get("ContainerSpec") == theirs.get("ContainerSpec")
    return same and (ours.get("ForceUpdate") or 0) == (theirs.get("ForceUpdate") or 0)


def _slot(task: dict[str, Any]) -> str:
    return str(task.get("Slot") or task.get("NodeID") or task["ID"])


def _wanted(mode: dict[str, Any], seen: int) -> int:
    if "Replicated" in mode:
        return int(mode["Replicated"].get("Replicas", 1))
    if "ReplicatedJob" in mode:
        return int(mode["ReplicatedJob"].get("TotalCompletions") or 1)
    return max(seen, 1)


def _lost(task: dict[str, Any], *, job: bool) -> bool:
    state = task["Status"]["State"]
    return state in _LOST or (state == "complete" and not job and task["DesiredState"] != "remove")


def _failure(task: dict[str, Any]) -> Failure:
    status = task["Status"]
    code = (status.get("ContainerStatus") or {}).get("ExitCode")
    return Failure(
        task=task["ID"],
        slot=_slot(task),
        state=status["State"],
        error=str(status.get("Err") or status.get("Message") or status["State"]),
        exit_code=int(code) if code is not None else None,
    )


def all_converged(state: StackState) -> bool:
    """Tell whether every service has its tasks, healthy, and no update is going on."""
    return bool(state.services) and all(service.settled for service in state.services)


def any_failed(state: StackState) -> str:
    """Say why a stack cannot become ready any more; empty while it still can."""
    for service in state.services:
        if service.update in ("rollback_started", "rollback_paused", "rollback_completed"):
            why = _newest_error(service) or service.update_message
            return f"the update of service {service.name} was rolled back: {why}"
        if service.update == "paused":
            return f"the update of service {service.name} is paused: {_newest_error(service) or service.update_message}"
        for failure in service.failures:
            if failure.state == "rejected" or "No such image" in failure.error:
                return f"service {service.name}: task {failure.state}: {failure.error}"
    for service in state.services:
        if service.given_up:
            return f"service {service.name}: {service.given_up}"
    on_the_way = [service for service in state.services if not service.settled]
    for service in on_the_way:
        # A container may end and be started again until what it needs is up; alone, it is in a loop.
        others = [other for other in on_the_way if other is not service and len(other.failures) < EXIT_LOOP]
        by_slot: dict[str, int] = {}
        for failure in service.failures:
            by_slot[failure.slot] = by_slot.get(failure.slot, 0) + 1
        most = max(by_slot.values(), default=0)
        if most >= EXIT_LOOP and (not others or most >= 3 * EXIT_LOOP):
            return f"service {service.name} exits in a loop ({most} times): {_newest_error(service)}"
    return ""


def _newest_error(service: ServiceState) -> str:
    return service.failures[-1].error if service.failures else ""


def cause_of(message: str) -> CauseClass:
    """Class an engine's message: a full disk or an empty address pool is never the recipe's fault."""
    lowered = message.lower()
    return CauseClass.INFRASTRUCTURE if any(word in lowered for word in _INFRASTRUCTURE) else CauseClass.RECIPE


def wait(
    docker: Docker,
    stack: str,
    ready: Callable[[StackState], bool],
    *,
    timeout: float,
    failed: Callable[[StackState], str] = any_failed,
    changed: Callable[[StackState], None] = lambda state: None,
) -> StackState:
    """Wait until a stack is ready, and return the state that was.

    Args:
        docker: The engine.
        stack: The stack's name.
        ready: Says when the wait is over, for example `all_converged`.
        timeout: Seconds to wait.
        failed: Says why it cannot become ready any more; empty while it can.
        changed: Called with each new state.

    Raises:
        WaitError: It cannot become ready, or it took too long; with the last state and the task's own error.
        EngineError: The engine does not answer.
    """
    deadline = time.monotonic() + timeout
    woken: queue.SimpleQueue[object] = queue.SimpleQueue()
    with docker.events(
        lambda event: woken.put(event) if _concerns(event, stack) else None, type=["service", "container"]
    ):
        last: StackState | None = None
        pause = SOON
        while True:
            state = read_state(docker, stack)
            if state != last:
                changed(state)
                last, pause = state, SOON
            why = failed(state)
            if why:
                raise WaitError(
                    f"{stack} cannot become ready: {why}", cause=cause_of(why), hint="see the logs of the run"
                )
            if ready(state):
                return state
            left = deadline - time.monotonic()
            if left <= 0:
                errors = [f"{s.name}: {_newest_error(s)}" for s in state.services if s.failures]
                text = f"{stack} did not converge in {timeout:g} s: {state}" + (
                    f"; {'; '.join(errors)}" if errors else ""
                )
                raise WaitError(
                    text, cause=cause_of(text), hint="see the logs of the run; `--keep-app` keeps it to look around"
                )
            try:
                woken.get(timeout=min(pause, left))
                pause = SOON
            except queue.Empty:
                pause = min(pause * 2, LATE)


def _concerns(event: dict[str, Any], stack: str) -> bool:
    if not event:
        return True
    if str(event.get("Action", "")).startswith("exec_"):
        return False  # health probes, one a second
    attributes = (event.get("Actor") or {}).get("Attributes") or {}
    return attributes.get(STACK_LABEL) == stack or str(attributes.get("name", "")).startswith(f"{stack}_")
