"""What a run has in Docker: the labels it is known by, and what is left of it.

Every label and every filter of a list stands here. Everything that can carry labels carries `RUN_LABEL`; everything that a
stack makes carries the engine's own `com.docker.stack.namespace`; everything has a name that begins with the stack's.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.ledger import state_folder
from pytest_coopcloud.naming import RunName

__all__ = [
    "BACKUP_BOT_LABEL",
    "PROXY_LABEL",
    "RUN_LABEL",
    "STACK_LABEL",
    "STATE_LABEL",
    "TOOL_LABEL",
    "Inventory",
    "Kind",
    "Thing",
    "owned",
    "run_labels",
    "state_label",
    "take",
]

#: The run that a thing belongs to.
RUN_LABEL = "coopcloud.pytest.run"
#: The state directory whose ledger knows it.
STATE_LABEL = "coopcloud.pytest.state"
#: Our own proxy, which several runs may share.
PROXY_LABEL = "coopcloud.pytest.proxy"
#: An image that holds a tool of ours (`restic`, `traefik`) and needs no registry.
TOOL_LABEL = "coopcloud.pytest.tool"
#: The service that backs other apps up, where apps are backed up through abra.
BACKUP_BOT_LABEL = "coop-cloud.backupbot.enabled=true"
#: The stack that a thing belongs to; set by the engine's own stack code.
STACK_LABEL = "com.docker.stack.namespace"


class Kind(enum.Enum):
    """What a run may own, in the order in which it is taken down."""

    SERVICE = "service"
    TASK = "task"
    CONTAINER = "container"
    NETWORK = "network"
    CONFIG = "config"
    SECRET = "secret"
    VOLUME = "volume"


@dataclass(frozen=True, order=True)
class Thing:
    """One object in Docker.

    Attributes:
        kind: What it is.
        name: Its name, for people.
        id: What the engine knows it by.
        labels: Its labels.
    """

    kind: Kind = field(compare=False)
    name: str
    id: str
    labels: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def label(self, key: str) -> str:
        """Return the value of a label, empty where it has none."""
        return dict(self.labels).get(key, "")

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}"


@dataclass(frozen=True)
class Inventory:
    """What Docker held at one moment."""

    things: tuple[Thing, ...] = ()

    def of(self, kind: Kind) -> list[Thing]:
        """Return what there is of one kind."""
        return [thing for thing in self.things if thing.kind is kind]

    def new_since(self, before: Inventory) -> list[Thing]:
        """Return what is here and was not there before."""
        known = {(thing.kind, thing.id) for thing in before.things}
        return [thing for thing in self.things if (thing.kind, thing.id) not in known]

    def __bool__(self) -> bool:
        return bool(self.things)


def state_label(state: Path) -> str:
    """Return what tells the objects of one state directory from those of another on the same engine."""
    return hashlib.sha256(str(state.absolute()).encode()).hexdigest()[:12]


def run_labels(run_id: str, state: Path | None = None) -> dict[str, str]:
    """Return the labels that everything of a run carries."""
    return {RUN_LABEL: run_id, STATE_LABEL: state_label(state or state_folder())}


def _label(raw: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    return tuple((raw or {}).items())


def _things(docker: Docker, kind: Kind, filters: Mapping[str, Any]) -> list[Thing]:
    if kind is Kind.SERVICE:
        return [
            Thing(kind, raw["Spec"]["Name"], raw["ID"], _label(raw["Spec"].get("Labels")))
            for raw in docker.services(**filters)
        ]
    if kind is Kind.TASK:
        return [
            Thing(kind, f"{raw['ID']} of {raw.get('ServiceID', '?')}", raw["ID"], _label(_container_labels(raw)))
            for raw in docker.tasks(**filters)
        ]
    if kind is Kind.CONTAINER:
        return [
            Thing(
                kind,
                raw["Names"][0].lstrip("/") if raw.get("Names") else raw["Id"][:12],
                raw["Id"],
                _label(raw["Labels"]),
            )
            for raw in docker.containers(**filters)
        ]
    if kind is Kind.NETWORK:
        return [Thing(kind, raw["Name"], raw["Id"], _label(raw.get("Labels"))) for raw in docker.networks(**filters)]
    if kind is Kind.CONFIG:
        return [
            Thing(kind, raw["Spec"]["Name"], raw["ID"], _label(raw["Spec"].get("Labels")))
            for raw in docker.configs(**filters)
        ]
    if kind is Kind.SECRET:
        return [
            Thing(kind, raw["Spec"]["Name"], raw["ID"], _label(raw["Spec"].get("Labels")))
            for raw in docker.secrets(**filters)
        ]
    return [Thing(kind, raw["Name"], raw["Name"], _label(raw.get("Labels"))) for raw in docker.volumes(**filters)]


def _container_labels(task: Mapping[str, Any]) -> Mapping[str, Any]:
    return ((task.get("Spec") or {}).get("ContainerSpec") or {}).get("Labels") or {}


def take(docker: Docker, kinds: Iterable[Kind] = tuple(Kind)) -> Inventory:
    """Take the inventory of everything that the engine holds."""
    return Inventory(tuple(thing for kind in kinds for thing in _things(docker, kind, {})))


def owned(docker: Docker, name: RunName, kinds: Iterable[Kind] = tuple(Kind)) -> Inventory:
    """Take the inventory of one run: by its label, by its stack's label, and by the names that begin with its stack's.

    Tasks are found by their stack's label alone: they have no name of their own.
    """
    found: dict[tuple[Kind, str], Thing] = {}
    for kind in kinds:
        queries: list[dict[str, Any]] = [
            {"label": f"{RUN_LABEL}={name.run_id}"},
            {"label": f"{STACK_LABEL}={name.stack}"},
        ]
        if kind is not Kind.TASK:
            queries.append({"name": name.prefix})
        for query in queries:
            for thing in _things(docker, kind, query):
                by_name = "name" in query
                if not by_name or thing.name.startswith(name.prefix):
                    found[kind, thing.id] = thing
    return Inventory(tuple(found.values()))
