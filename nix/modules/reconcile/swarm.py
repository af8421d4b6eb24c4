"""The engine's swarm, of one node, and the overlay network that the proxy and the apps share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from .command import run
from .engine import Engine
from .errors import CommandError, EngineStateError, ReconcileError
from .records import Outcome, Record, one_at_a_time, write_record
from .settings import required

__all__ = ["reconcile_swarm"]

NAME = "swarm"


def reconcile_swarm(environment: Mapping[str, str]) -> Record:
    """Make the swarm and the network where they are missing.

    Raises:
        EngineStateError: They are there in a form that only a person should change.
    """
    state_dir = Path(required(environment, "RECONCILE_STATE_DIR"))
    with one_at_a_time(state_dir, lambda text: _say(text)):
        try:
            changed = _swarm(required(environment, "RECONCILE_ADVERTISE"))
            changed = (
                _network(required(environment, "RECONCILE_NETWORK"), required(environment, "RECONCILE_SUBNET"))
                or changed
            )
        except ReconcileError as error:
            write_record(state_dir, NAME, Record(Outcome.FAILED, reason=error.reason))
            raise
        record = Record(Outcome.CONVERGED, changed=changed)
        write_record(state_dir, NAME, record)
    _say("converged" if changed else "as wished, nothing changed")
    return record


def _swarm(advertise: str) -> bool:
    info = json.loads(run(["docker", "info", "--format", "{{json .Swarm}}"]))
    state = info["LocalNodeState"]
    if state == "active" and info["ControlAvailable"]:
        return False
    if state == "inactive":
        _say("initialising the swarm")
        run(["docker", "swarm", "init", "--advertise-addr", advertise])
        return True
    raise EngineStateError(
        f"the engine's swarm is {state}, manager: {info['ControlAvailable']}",
        hint="docs/runbook.md, `swarm`: look at `docker info`; `docker swarm leave --force` loses every service and secret",
    )


def _network(name: str, subnet: str) -> bool:
    network = Engine().network(name)
    if network is None:
        _say(f"creating the overlay network {name} ({subnet})")
        try:
            run(["docker", "network", "create", "--driver", "overlay", "--attachable", "--subnet", subnet, name])
        except CommandError as error:
            raise EngineStateError(
                f"the network {name} cannot be made: {error.reason}", hint="`docker network ls`"
            ) from None
        return True
    wrong = []
    if network["Driver"] != "overlay":
        wrong.append(f"its driver is {network['Driver']}")
    if not network["Attachable"]:
        wrong.append("it is not attachable")
    there = [config.get("Subnet") for config in network["IPAM"]["Config"] or []]
    if subnet not in there:
        wrong.append(f"its addresses are {', '.join(map(str, there)) or 'none'} and not {subnet}")
    if wrong:
        raise EngineStateError(
            f"the network {name} is not as wished: {'; '.join(wrong)}",
            hint="docs/runbook.md, `overlay`: every app hangs on it, so it is made anew by hand",
        )
    return False


def _say(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)
