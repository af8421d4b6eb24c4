"""backup-bot-two, as far as a trial speaks to it without abra: what is in its archive, and what of ours must go from it.

abra asks it to back up and restore (`abra.py`). It works in its own container on the server's own repository, and goes on
there when the run that asked is dead: then a restore would write into volumes that are removed at the same time.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import Unverified
from pytest_coopcloud.inventory import BACKUP_BOT_LABEL
from pytest_coopcloud.naming import RunName

__all__ = ["BackupBot", "asked_of_the_bot", "was_asked"]

#: Kills every process in the container whose environment names the app (`SERVICE=<domain>`), and says how many.
_STOP = """
killed=0
for file in /proc/[0-9]*/environ; do
  pid=${file#/proc/}; pid=${pid%/environ}
  if tr '\\0' '\\n' <"$file" 2>/dev/null | grep -qx "SERVICE=$1"; then kill -9 "$pid" 2>/dev/null && killed=$((killed + 1)); fi
done
echo "$killed"
"""


def asked_of_the_bot(name: RunName) -> str:
    """Return the entry of the ledger which says that the bot was asked to work for a run."""
    return f"backup {name.stack}"


def was_asked(owned: list[str], name: RunName) -> bool:
    """Tell from a ledger whether the bot was asked to work for a run."""
    return asked_of_the_bot(name) in owned


@dataclass(frozen=True)
class BackupBot:
    """The one that runs on this server.

    Attributes:
        docker: The engine.
        container: Its container.
    """

    docker: Docker
    container: str

    @classmethod
    def find(cls, docker: Docker) -> BackupBot:
        """Find it.

        Raises:
            Unverified: There is none; the hint says how to deploy it.
        """
        services = docker.services(label=BACKUP_BOT_LABEL) or [
            raw
            for raw in docker.services()
            if "backup-bot-two" in str(raw["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])
        ]
        for raw in sorted(services, key=lambda one: str(one["Spec"]["Name"])):
            label = f"com.docker.swarm.service.name={raw['Spec']['Name']}"
            running = docker.containers(label=label, status="running")
            if running:
                return cls(docker, str(max(running, key=lambda one: one["Created"])["Id"]))
        what = f"backup-bot-two ({services[0]['Spec']['Name']}) does not run" if services else "no backup-bot-two runs"
        raise Unverified(
            f"{what} on this server, so abra cannot back up",
            hint="deploy it once: `abra app new backup-bot-two`, `abra app secret generate --all <its domain>`, "
            "`abra app deploy <its domain>`",
        )

    def listing(self, snapshot: str) -> dict[str, int]:
        """Return every path in a snapshot with its size in bytes."""
        found: dict[str, int] = {}
        for line in self._restic("--no-lock", "ls", "--json", snapshot).splitlines():
            entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if entry.get("struct_type") == "node":
                found[str(entry["path"])] = int(entry.get("size") or 0)
        return found

    def snapshots(self, name: RunName) -> list[str]:
        """Return the snapshots that name this run's app, oldest first."""
        for line in self._restic("--no-lock", "snapshots", "--json").splitlines():
            if line.startswith("["):
                mine = [
                    one
                    for one in json.loads(line)
                    if any(text in json.dumps(one) for text in (f'"{name.domain}', name.prefix, f'"{name.stack}'))
                ]
                return [str(one["id"]) for one in sorted(mine, key=lambda one: str(one["time"]))]
        return []

    def stop(self, name: RunName) -> str:
        """End whatever it still does for this run's app, and return how many processes that were."""
        return self.docker.exec(self.container, ["sh", "-c", _STOP, "sh", name.domain]).output.strip()

    def forget(self, name: RunName) -> None:
        """Have the snapshots of this run's app forgotten; the repository is the server's own.

        Raises:
            Unverified: They cannot be.
        """
        snapshots = self.snapshots(name)
        if snapshots:
            # Locks of processes that are dead, and no others.
            self._restic("unlock")
            self._restic("forget", *snapshots)

    def _restic(self, *argv: str) -> str:
        """Run restic with the bot's own repository and password, and return what it printed.

        Raises:
            Unverified: It cannot; then nobody knows what is in the archive.
        """
        done = self.docker.exec(self.container, ["restic", *argv])
        if done.exit_code != 0:
            raise Unverified(
                f"the archive cannot be read: `{shlex.join(['restic', *argv])}` in backup-bot-two ended with "
                f"{done.exit_code}: {done.output.strip()[-500:]}",
                hint="its container must have restic, and RESTIC_REPOSITORY in its environment",
            )
        return done.output
