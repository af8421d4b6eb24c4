"""The engine, through the docker client: services and tasks of a stack, networks, secrets, images, events."""

from __future__ import annotations

import hashlib
import json
import select
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .command import run
from .errors import CommandError, EngineStateError

__all__ = ["STACK_LABEL", "Engine", "Events", "Service", "fingerprint"]

STACK_LABEL = "com.docker.stack.namespace"


def fingerprint(value: object) -> str:
    """Return a short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Service:
    """A service as the engine describes it."""

    data: dict[str, Any]

    @property
    def name(self) -> str:
        """`<stack>_<service>`."""
        return str(self.data["Spec"]["Name"])

    @property
    def spec(self) -> str:
        """A fingerprint of the spec."""
        return fingerprint(self.data["Spec"])

    @property
    def template(self) -> dict[str, Any]:
        """What each task of it should look like."""
        template: dict[str, Any] = self.data["Spec"]["TaskTemplate"]
        return template

    @property
    def replicas(self) -> int:
        """How many tasks should run; a global service has one on a host alone."""
        mode = self.data["Spec"]["Mode"]
        return int(mode["Replicated"].get("Replicas", 1)) if "Replicated" in mode else 1

    @property
    def update_state(self) -> str:
        """The state of its last update: empty, `updating`, `completed`, `paused`, `rollback_completed`, …."""
        return str((self.data.get("UpdateStatus") or {}).get("State", ""))

    @property
    def update_message(self) -> str:
        """What the engine says about that update."""
        return str((self.data.get("UpdateStatus") or {}).get("Message", ""))

    @property
    def strayed(self) -> str:
        """The image that its stack names, where somebody gave it another one; else empty."""
        wanted = str(self.data["Spec"].get("Labels", {}).get("com.docker.stack.image", ""))
        runs = str(self.template["ContainerSpec"]["Image"])
        return wanted if wanted and wanted.partition("@")[0] != runs.partition("@")[0] else ""


class Events:
    """What happens to services and containers from now on; a reason to look again."""

    def __enter__(self) -> Events:
        """Begin to listen."""
        self._process = subprocess.Popen(
            [
                "docker",
                "events",
                "--format",
                "{{.Type}} {{.Action}}",
                "--filter",
                "type=service",
                "--filter",
                "type=container",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def wait(self, timeout: float) -> None:
        """Return when something happened, or after `timeout` seconds: a rejected task makes no event."""
        if self._process.stdout is None or self._process.poll() is not None:
            self._process.wait(timeout=timeout)
            return
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if ready:
            self._process.stdout.read(65536)


class Engine:
    """The engine of this host."""

    def services(self, stack: str) -> list[Service]:
        """Return the services of a stack, by name."""
        ids = run(["docker", "service", "ls", "--quiet", "--filter", f"label={STACK_LABEL}={stack}"]).split()
        if not ids:
            return []
        try:
            found = json.loads(run(["docker", "service", "inspect", *ids]))
        except CommandError:
            # One went between the two questions.
            return self.services(stack)
        return sorted((Service(data) for data in found), key=lambda service: service.name)

    def tasks(self, service: Service) -> list[dict[str, Any]]:
        """Return the tasks of a service, the newest first."""
        ids = run(["docker", "service", "ps", "--quiet", "--no-trunc", service.data["ID"]]).split()
        if not ids:
            return []
        try:
            return list(json.loads(run(["docker", "inspect", "--type", "task", *ids])))
        except CommandError:
            return []

    def network(self, name: str) -> dict[str, Any] | None:
        """Return a network, or None."""
        listed = run(["docker", "network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"]).splitlines()
        ids = [line.split()[0] for line in listed if line.split()[1:] == [name]]
        return dict(json.loads(run(["docker", "network", "inspect", ids[0]]))[0]) if ids else None

    def secret_names(self, prefix: str) -> set[str]:
        """Return the names of the secrets that begin with `prefix`."""
        names = run(["docker", "secret", "ls", "--format", "{{.Name}}", "--filter", f"name={prefix}"]).split()
        return {name for name in names if name.startswith(prefix)}

    def create_secret(self, name: str, value: bytes) -> None:
        """Create a secret; the value goes through stdin."""
        run(["docker", "secret", "create", name, "-"], input=value)

    def remove_secret(self, name: str) -> bool:
        """Remove a secret; False where a service still uses it."""
        try:
            run(["docker", "secret", "rm", name])
        except CommandError:
            return False
        return True

    def has_image(self, image: str) -> bool:
        """Whether the engine holds an image."""
        return bool(run(["docker", "image", "ls", "--quiet", image]).split())

    def load(self, archive: Path, image: str) -> None:
        """Load `image` from a file.

        Raises:
            EngineStateError: The file holds another image.
        """
        said = run(["docker", "load", "--input", str(archive)], timeout=600)
        if not self.has_image(image):
            raise EngineStateError(
                f"{archive} does not hold the image {image}: {said.strip()}",
                hint="`image` and `imageArchive` of the module must come from the same package",
            )

    def deploy_stack(self, compose: Path, stack: str, env: Mapping[str, str]) -> None:
        """Deploy a compose file; services that it no longer names go."""
        run(
            ["docker", "stack", "deploy", "--prune", "--resolve-image", "never", "--compose-file", str(compose), stack],
            env=env,
        )

    def reset_images(self, stack: str) -> None:
        """Give each service the image that its stack names: `docker stack deploy` leaves one that was changed by hand."""
        for service in self.services(stack):
            if service.strayed:
                image = service.strayed
                run(["docker", "service", "update", "--detach", "--no-resolve-image", "--image", image, service.name])
