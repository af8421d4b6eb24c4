"""The whole run of guestbook against the same steps with the plain commands, on one machine in one go.

Plain means what a careful maintainer would type: `docker stack deploy`, look at `docker service ls` every second until all
replicas are there (Swarm counts a task when it is healthy), `docker stack rm`, look until the containers are gone,
`docker volume rm`. Both sides deploy three times, upgrade once, back up with the recipe's own hooks and restic, restore, and
take down. Where virtual IPs do not route, both get `endpoint_mode: dnsrr`, else the plain side would not work at all.

Run it with `./dev bench lifecycle`; the last line is `ratio: ours/plain`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import STACK_LABEL, run_labels
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.recipes import Recipe, RenderedRecipe
from pytest_coopcloud.restic import Restic, data_path
from pytest_coopcloud.results import read_result
from pytest_coopcloud.teardown import take_down
from pytest_coopcloud.tools import tool_image
from pytest_coopcloud.vips import virtual_ips_route

ROOT = Path(__file__).parents[1]


class Plain:
    """The steps, each timed."""

    def __init__(self, docker: Docker, repository: Path, scratch: Path) -> None:
        self.docker, self.repository, self.scratch = docker, repository, scratch
        self.name = RunName.new("guestbook", base_domain="ci.localhost")
        self.steps: list[tuple[str, float]] = []
        self.direct = not virtual_ips_route(docker, self.name, scratch, tool_image(docker, "traefik"))

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.steps.append((what, time.monotonic() - began))
        print(f"  plain  {self.steps[-1][1]:6.1f} s  {what}", flush=True)

    def run(self, *argv: str, text: str = "") -> str:
        done = subprocess.run(argv, input=text, text=True, check=True, capture_output=True)
        return done.stdout

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not true():
            assert time.monotonic() < deadline
            time.sleep(1)

    def render(self, ref: str) -> RenderedRecipe:
        path = self.scratch / ref.replace("/", "_")
        if not path.exists():
            path.mkdir()
            archive = subprocess.run(
                ["git", "-C", str(self.repository), "archive", ref], check=True, stdout=subprocess.PIPE
            ).stdout
            subprocess.run(["tar", "-x", "-C", str(path)], input=archive, check=True)
        given = {"DOMAIN": self.name.domain, "STACK_NAME": self.name.stack, "LETS_ENCRYPT_ENV": ""}
        return Recipe.read(path, "guestbook").render(given)

    def deploy(self, ref: str, what: str) -> RenderedRecipe:
        rendered = self.render(ref)
        with self.step(what):
            present = self.run("docker", "secret", "ls", "--format", "{{.Name}}").split()
            for secret in rendered.secrets:
                if secret.docker_name not in present:
                    self.run("docker", "secret", "create", secret.docker_name, "-", text=secrets.token_hex(16))
            model: dict[str, Any] = json.loads(json.dumps(rendered.compose).replace("$", "$$"))
            for service in model["services"].values():
                if self.direct:
                    service.setdefault("deploy", {})["endpoint_mode"] = "dnsrr"
            argv = ["docker", "stack", "deploy", "--resolve-image", "never", "-c", "-", self.name.stack]
            self.run(*argv, text=json.dumps(model))
            self.until(self.ready)
        return rendered

    def ready(self) -> bool:
        filters = ["--filter", f"label={STACK_LABEL}={self.name.stack}"]
        counts = self.run("docker", "service", "ls", *filters, "--format", "{{.Replicas}}").split()
        updates = [
            self.run("docker", "service", "inspect", f"{self.name.prefix}{service}", "--format", "{{.UpdateStatus}}")
            for service in ("app", "db")
        ]
        settled = not any("updating" in update for update in updates)
        return bool(counts) and settled and all(count.split("/")[0] == count.split("/")[1] for count in counts)

    def remove(self, what: str) -> None:
        with self.step(what):
            self.run("docker", "stack", "rm", self.name.stack)
            label = f"label={STACK_LABEL}={self.name.stack}"
            self.until(lambda: not self.run("docker", "ps", "-aq", "--filter", label).strip())
            volumes = self.run("docker", "volume", "ls", "-q", "--filter", label).split()
            if volumes:
                self.run("docker", "volume", "rm", *volumes)

    def hooks(self, hooks: Any) -> None:
        for service, command in hooks.items():
            label = f"label=com.docker.swarm.service.name={self.name.prefix}{service}"
            container = self.run("docker", "ps", "-q", "--filter", label).split()[0]
            self.run("docker", "exec", container, "sh", "-c", command)

    def whole(self) -> float:
        """Go through all steps and return the seconds they took."""
        restic = Restic(self.docker, self.name, tool_image(self.docker, "restic"))
        try:
            self.deploy("HEAD", "install: deploy the head, wait until healthy")
            self.remove("install: remove it")
            self.deploy("2.0.0+2.0.0", "upgrade: deploy the published version, wait until healthy")
            head = self.deploy("HEAD", "upgrade: deploy the head over it, wait until healthy")
            backup = head.backup
            assert backup is not None
            volumes = [head.volumes[key] for key in backup.volumes]
            paths = [
                f"{data_path(head.volumes[key])}/{path}".rstrip("/")
                for key, inside in backup.volumes.items()
                for path in (inside or ("",))
            ]
            with self.step("backup: hooks and restic"):
                restic.create()
                self.hooks(backup.pre_hooks)
                snapshot = restic.backup(volumes, paths)
                self.hooks(backup.post_hooks)
                restic.listing(snapshot)
            self.remove("restore: remove the app and its data")
            self.deploy("HEAD", "restore: deploy the head, wait until healthy")
            with self.step("restore: restic and hooks"):
                restic.restore(snapshot, volumes)
                self.hooks(backup.restore_post_hooks)
            self.remove("teardown")
        finally:
            for secret in self.docker.secrets(name=self.name.prefix):
                self.docker.remove("secret", secret["ID"])
            take_down(self.docker, self.name)
        return sum(seconds for _, seconds in self.steps)


def ours(repository: Path, scratch: Path) -> tuple[float, float]:
    """Run the plugin and return the seconds of the whole process, and of teardown to zero residue."""
    (scratch / "empty").mkdir()
    environment = {**os.environ, "COOPCLOUD_CI_STATE": str(scratch / "state"), "COOPCLOUD_DEPLOYER": "swarm"}
    # Whether virtual IPs route is asked once a day on an engine, not at each run: the plain side was told for nothing too.
    (scratch / "state").mkdir()
    (scratch / "state" / "virtual-ips.json").write_bytes((scratch / "virtual-ips.json").read_bytes())
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--recipe={repository}"],
        cwd=scratch / "empty",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    took = time.monotonic() - began
    (folder,) = (scratch / "state" / "runs").iterdir()
    result = read_result(folder / "results.json")
    assert result.verdict.value == "passed"
    for record in result.stages:
        for step in record.steps:
            print(f"  ours   {step.duration_seconds:6.1f} s  {record.title}: {step.what}")
    print(
        f"  ours   {took - sum(record.duration_seconds for record in result.stages):6.1f} s  pytest around the stages"
    )
    return took, result.stages[-1].duration_seconds


def main() -> None:
    """Measure both and print the ratio."""
    repository = Path(
        subprocess.run(
            [str(ROOT / "dev"), "recipe", "guestbook"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
    )
    with tempfile.TemporaryDirectory(prefix="coopcloud-bench-") as folder, contextlib.closing(Docker()) as docker:
        scratch = Path(folder)
        plain = Plain(docker, repository, scratch)
        assert run_labels(plain.name.run_id)
        theirs = plain.whole()
        mine, teardown = ours(repository, scratch)
    print(f"plain commands: {theirs:.1f} s")
    print(f"pytest --recipe: {mine:.1f} s, of which teardown to zero residue {teardown:.2f} s")
    print(f"ratio: {mine / theirs:.2f}")


if __name__ == "__main__":
    main()
