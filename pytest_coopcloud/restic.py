"""restic in a container: the archive that the built-in deployer backs up into, in the layout of backup-bot-two.

The repository is a volume of the run, made new for it, so no lock of a killed one is ever met. Files stand in the archive
where they stand on the host: `/var/lib/docker/volumes/<volume>/_data/...`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.errors import CLIError, EngineError
from pytest_coopcloud.inventory import run_labels
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.results import CauseClass

__all__ = ["Restic", "data_path"]

#: Seconds that one command of restic may take.
RESTIC_TIMEOUT = 600.0


def data_path(volume: str) -> str:
    """Return where the content of a volume stands, on the host and in the archive."""
    return f"/var/lib/docker/volumes/{volume}/_data"


@dataclass
class Restic:
    """One repository and the commands on it.

    Attributes:
        docker: The engine.
        name: The run's names.
        image: An image with restic as its entrypoint.
    """

    docker: Docker
    name: RunName
    image: str

    def __post_init__(self) -> None:
        self._password = secrets.token_hex(16)
        self._ready = False

    @property
    def volume(self) -> str:
        """The name of the volume that holds the repository."""
        return f"{self.name.run_id}-restic"

    def backup(self, volumes: Sequence[str], paths: Sequence[str]) -> str:
        """Back paths up that lie in the volumes, and return the id of the snapshot.

        Raises:
            CLIError: restic failed.
        """
        if not self._ready:
            self._run(["init"], {})
            self._ready = True
        said = self._run(["backup", "--json", "--host", self.name.run_id, *paths], dict.fromkeys(volumes, "ro"))
        for line in said.splitlines():
            if '"summary"' in line:
                return str(json.loads(line)["snapshot_id"])
        raise CLIError(["restic", "backup"], 0, said, "", message=f"restic names no snapshot:\n{said[-2000:]}")

    def listing(self, snapshot: str) -> dict[str, int]:
        """Return every path in a snapshot with its size in bytes, and read all its data once (`check --read-data`)."""
        self._run(["check", "--read-data"], {})
        found: dict[str, int] = {}
        for line in self._run(["ls", "--json", snapshot], {}).splitlines():
            entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
            if entry.get("struct_type") == "node":
                found[str(entry["path"])] = int(entry.get("size") or 0)
        return found

    def restore(self, snapshot: str, volumes: Sequence[str]) -> None:
        """Restore a snapshot into the volumes."""
        self._run(["restore", snapshot, "--target", "/"], dict.fromkeys(volumes, "rw"))

    def _run(self, argv: Sequence[str], volumes: Mapping[str, str]) -> str:
        """Run one command of restic in a container with these volumes, and return what it printed on standard output."""
        api = self.docker.api
        binds: dict[str, Mapping[str, str]] = {self.volume: {"bind": "/repository", "mode": "rw"}}
        binds |= {volume: {"bind": data_path(volume), "mode": mode} for volume, mode in volumes.items()}
        container = ""
        try:
            container = api.create_container(
                self.image,
                command=["--no-cache", *argv],
                name=f"{self.name.run_id}-restic-{secrets.token_hex(3)}",
                labels=run_labels(self.name.run_id),
                environment={"RESTIC_REPOSITORY": "/repository", "RESTIC_PASSWORD": self._password},
                host_config=api.create_host_config(binds=binds, network_mode="none"),
            )["Id"]
            api.start(container)
            code = int(api.wait(container, timeout=int(RESTIC_TIMEOUT))["StatusCode"])
            out = api.logs(container, stdout=True, stderr=False).decode("utf-8", "replace")
            err = api.logs(container, stdout=False, stderr=True).decode("utf-8", "replace")
        except Exception as error:
            raise EngineError(f"restic {argv[0]} could not run from image {self.image}: {error}") from error
        finally:
            if container:
                self.docker.remove("container", container)
        if code != 0:
            raise CLIError(["restic", *argv], code, out, err, cause=CauseClass.INFRASTRUCTURE)
        return out

    def create(self) -> None:
        """Make the volume of the repository, labelled."""
        self.docker.api.create_volume(self.volume, labels=run_labels(self.name.run_id))
