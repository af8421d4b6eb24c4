"""Take down what a run owns, in an order that leaks nothing, and prove it.

The fixture that created it, the reaper and the janitor all come here. The order, and why (forge facts measured on a real
engine; moby/moby#37338, moby/swarmkit#3230):

1. services; nothing starts any more,
2. containers, killed: their data is thrown away, so nobody waits for a `stop_grace_period`,
3. wait until no task and no container is left; a network that goes before its tasks leaks their addresses,
4. networks, configs, secrets and volumes, side by side,
5. the inventory: what is left is named.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import Inventory, Kind, Thing, owned
from pytest_coopcloud.naming import RunName

__all__ = ["Teardown", "take_down"]

#: Seconds after which a teardown that still finds something gives up and names it.
TEARDOWN_TIMEOUT = 120.0
#: The engine has no event for the end of a task; so that is asked for, this often (seconds).
_TASK_TICK = 0.1

_ENDS = ("destroy", "remove", "die", "disconnect")
_DATA = (Kind.NETWORK, Kind.CONFIG, Kind.SECRET, Kind.VOLUME)


@dataclass(frozen=True)
class Teardown:
    """How a teardown went.

    Attributes:
        leaks: What is left.
        duration_seconds: How long it took.
        removed: How many things it removed.
    """

    leaks: tuple[Thing, ...]
    duration_seconds: float
    removed: int


def take_down(
    docker: Docker,
    name: RunName,
    *,
    timeout: float = TEARDOWN_TIMEOUT,
    spare: Callable[[Thing], bool] = lambda thing: False,
) -> Teardown:
    """Remove everything that a run owns, and wait until it is gone.

    Idempotent: it may begin anywhere, as often as needed, also while another one is at it.

    Args:
        docker: The engine.
        name: The run's names.
        timeout: Seconds until what is left is given up, and named in the answer.
        spare: What is not to be touched although it is the run's own.

    Raises:
        EngineError: The engine does not answer.
    """
    began = time.monotonic()
    deadline = began + timeout
    removed: set[tuple[Kind, str]] = set()
    woken: queue.SimpleQueue[object] = queue.SimpleQueue()

    def ours(*kinds: Kind) -> list[Thing]:
        return [thing for thing in owned(docker, name, kinds).things if not spare(thing)]

    def remove(things: list[Thing]) -> None:
        for thing, gone in zip(things, pool.map(lambda t: docker.remove(t.kind.value, t.id), things), strict=True):
            if gone:
                removed.add((thing.kind, thing.id))

    def until_gone(*kinds: Kind) -> list[Thing]:
        """Remove what is left of these kinds until nothing is, or the time is over."""
        while left := ours(*kinds):
            remove([thing for thing in left if thing.kind is not Kind.TASK])
            left = ours(*kinds)
            if not left or time.monotonic() > deadline:
                return left
            _drain(woken, _TASK_TICK)
        return []

    with (
        ThreadPoolExecutor(max_workers=8, thread_name_prefix="teardown") as pool,
        docker.events(lambda event: woken.put(event) if not event or event.get("Action") in _ENDS else None),
    ):
        # Anonymous volumes have no name to find them by later; their containers do.
        left = until_gone(Kind.SERVICE)
        left += until_gone(Kind.CONTAINER, Kind.TASK)
        left += until_gone(*_DATA)
        left = list(owned(docker, name).things)
    leaks = tuple(thing for thing in left if not spare(thing))
    return Teardown(leaks=leaks, duration_seconds=time.monotonic() - began, removed=len(removed))


def nothing_left(docker: Docker, name: RunName) -> Inventory:
    """Return what is left of a run; an empty inventory is the proof that nothing is."""
    return owned(docker, name)


def _drain(woken: queue.SimpleQueue[object], seconds: float) -> None:
    """Wait for the next event, at most so long, and take all that came with it."""
    try:
        woken.get(timeout=seconds)
        while True:
            woken.get_nowait()
    except queue.Empty:
        return
