"""Wait until a stack is what its services say; end at once where it cannot become that."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .engine import Engine, Events, Service
from .errors import NotConvergedError

__all__ = ["state_of", "wait_converged"]

# A task that never got as far as a container makes no event: look again this often, in seconds.
LOOK_AGAIN = 1.0
# So many tasks that fail in this wait are a loop, not an accident.
LOOP = 3

_DEAD_UPDATES = {"paused", "rollback_started", "rollback_paused", "rollback_completed"}


@dataclass(frozen=True)
class State:
    """How far a stack is: what is still missing, and what cannot heal."""

    missing: tuple[str, ...]
    hopeless: str = ""


def state_of(engine: Engine, stack: str, *, old: frozenset[str] = frozenset()) -> State:
    """Look at every task of a stack; tasks in `old` (ids) failed before and do not count as failures."""
    services = engine.services(stack)
    if not services:
        return State(missing=(f"stack {stack} has no service",))
    missing = []
    for service in services:
        tasks = engine.tasks(service)
        running = sum(1 for task in tasks if _runs(task, service))
        if running < service.replicas:
            last = next((error for error in map(_error, tasks) if error), "")
            missing.append(f"{service.name} {running}/{service.replicas}" + (f", last error: {last}" if last else ""))
        elif service.update_state == "updating":
            missing.append(f"{service.name} is being updated")
        hopeless = _hopeless(service, [task for task in tasks if task["ID"] not in old])
        if hopeless:
            return State(missing=tuple(missing), hopeless=f"{service.name}: {hopeless}")
    return State(missing=tuple(missing))


def wait_converged(engine: Engine, stack: str, *, timeout: float, old: frozenset[str] = frozenset()) -> None:
    """Wait until each service of a stack runs as its spec says, healthy where it has a health check.

    Raises:
        NotConvergedError: It cannot, or `timeout` seconds have passed; the message holds the last state.
    """
    deadline = time.monotonic() + timeout
    with Events() as events:
        while True:
            state = state_of(engine, stack, old=old)
            if state.hopeless:
                raise NotConvergedError(f"stack {stack} cannot come up: {state.hopeless}", hint=_hint(stack))
            if not state.missing:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise NotConvergedError(
                    f"stack {stack} did not converge in {timeout:.0f} s: {'; '.join(state.missing)}", hint=_hint(stack)
                )
            events.wait(min(LOOK_AGAIN, left))


def _hint(stack: str) -> str:
    return f"see `docker stack ps --no-trunc {stack}` and `docker service logs <service>`"


def _runs(task: dict[str, Any], service: Service) -> bool:
    # The old task still runs right after a deploy: only one of the new spec counts.
    return bool(
        task["DesiredState"] == "running"
        and task["Status"]["State"] == "running"
        and _essence(task["Spec"]) == _essence(service.template)
    )


def _essence(template: dict[str, Any]) -> Any:
    # `docker service inspect` fills in defaults that a task does not carry: nothing that is empty or off counts, nor does
    # the grace period, which changes nothing that runs.
    container = {key: value for key, value in template["ContainerSpec"].items() if key != "StopGracePeriod"}
    networks = [network["Target"] for network in template.get("Networks") or []]
    return _bare({"container": container, "networks": networks, "force": template.get("ForceUpdate")})


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bare for key, bare in ((key, _bare(inner)) for key, inner in value.items()) if bare}
    return value


def _error(task: dict[str, Any]) -> str:
    return str(task["Status"].get("Err", ""))


def _hopeless(service: Service, fresh: list[dict[str, Any]]) -> str:
    if service.update_state in _DEAD_UPDATES:
        return f"its update is {service.update_state}: {service.update_message}"
    ended = [task for task in fresh if task["Status"]["State"] in ("failed", "rejected")]
    for task in ended:
        if "No such image" in _error(task) or "invalid mount config" in _error(task):
            return _error(task)
    if len(ended) >= LOOP and not any(_runs(task, service) for task in fresh):
        return f"{len(ended)} tasks have failed, the last one with: {_error(ended[0])}"
    return ""
