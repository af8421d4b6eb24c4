"""What is kept of an app for those who were not there: logs, tasks, listings, screenshots. All into `artifacts/`."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_coopcloud.app import App
from pytest_coopcloud.browser import find_chromium, launch_arguments
from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import STACK_LABEL
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.redaction import Redactor
from pytest_coopcloud.results import Artifact

__all__ = ["ARTIFACTS", "Shot", "begin_shot", "gather", "last_lines", "write_listing"]

ARTIFACTS = "artifacts"
#: Of a longer log, only its end is kept (bytes).
LOG_LIMIT = 2 * 1024 * 1024
SHOT_TIMEOUT = 30.0
SHOT_SIZE = "1280,800"


def gather(
    docker: Docker, name: RunName, folder: Path, stage: str, redactor: Redactor, *, tasks: bool
) -> list[Artifact]:
    """Write the log of every service (and what Swarm says of its tasks) into `artifacts/`, secrets blotted out."""
    target = folder / ARTIFACTS
    target.mkdir(exist_ok=True)
    safe = re.sub(r"[^a-z0-9.+-]", "-", stage.lower())
    logs: dict[str, str] = {}
    for raw in sorted(docker.containers(label=f"{STACK_LABEL}={name.stack}"), key=lambda raw: raw["Created"]):
        service = raw["Labels"].get("com.docker.swarm.service.name", "").removeprefix(name.prefix) or "container"
        logs[service] = logs.get(service, "") + docker.logs(raw["Id"])
    artifacts = []
    for service, text in logs.items():
        path = target / f"{safe}.{service}.log"
        path.write_text(redactor.clean(text[-LOG_LIMIT:]), encoding="utf-8")
        artifacts.append(
            Artifact(path=f"{ARTIFACTS}/{path.name}", kind="log", stage=stage, title=f"log of service {service}")
        )
    if tasks:
        path = target / f"{safe}.tasks.txt"
        path.write_text(redactor.clean(_tasks(docker, name)), encoding="utf-8")
        artifacts.append(Artifact(path=f"{ARTIFACTS}/{path.name}", kind="ps", stage=stage, title="tasks (service ps)"))
    return artifacts


def _tasks(docker: Docker, name: RunName) -> str:
    """Return what `docker service ps --no-trunc` shows, for every service of the stack."""
    services = {raw["ID"]: raw["Spec"]["Name"] for raw in docker.services(label=f"{STACK_LABEL}={name.stack}")}
    lines = ["ID\tNAME\tIMAGE\tDESIRED\tCURRENT\tERROR"]
    for task in sorted(docker.tasks(label=f"{STACK_LABEL}={name.stack}"), key=lambda task: str(task["CreatedAt"])):
        status = task["Status"]
        code = (status.get("ContainerStatus") or {}).get("ExitCode")
        error = str(status.get("Err") or "") + (f" (exit {code})" if code else "")
        lines.append(
            "\t".join(
                (
                    task["ID"],
                    f"{services.get(task['ServiceID'], task['ServiceID'])}.{task.get('Slot') or task.get('NodeID')}",
                    str(task["Spec"]["ContainerSpec"]["Image"]),
                    str(task["DesiredState"]),
                    f"{status['State']} {status['Timestamp']}",
                    error,
                )
            )
        )
    return "\n".join(lines) + "\n"


def last_lines(folder: Path, summary: str, *, count: int = 10) -> list[str]:
    """Return the last lines of the log that shows a failure best: of the service that the summary names, else of `app`."""
    logs = sorted((folder / ARTIFACTS).glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    named = [path for path in logs if f"service {path.name.split('.')[-2]}" in summary]
    chosen = next(iter([*named, *(path for path in logs if path.name.endswith(".app.log")), *logs]), None)
    if chosen is None:
        return []
    lines = [line for line in chosen.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return [line[:400] for line in lines[-count:]]


def write_listing(folder: Path, paths: Mapping[str, int]) -> None:
    """Write what is in an archive, with sizes in bytes."""
    target = folder / ARTIFACTS
    with contextlib.suppress(OSError):
        target.mkdir(exist_ok=True)
        lines = [f"{size:>12} {path}" for path, size in sorted(paths.items())]
        (target / "backup.listing.txt").write_text("\n".join(lines[:100_000]) + "\n", encoding="utf-8")


@dataclass
class Shot:
    """A screenshot that is being taken while the stage goes on."""

    process: subprocess.Popen[bytes]
    profile: Path
    path: Path
    stage: str
    title: str
    say: Callable[[str], None]

    def finish(self) -> Artifact | None:
        """Wait for it and return it; None where it did not succeed, which is said and fails nothing."""
        try:
            self.process.wait(timeout=SHOT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            shutil.rmtree(self.profile, ignore_errors=True)
        if not self.path.exists() or not self.path.stat().st_size:
            self.say(f"no screenshot of {self.stage}: Chromium ended with {self.process.returncode}")
            return None
        return Artifact(path=f"{ARTIFACTS}/{self.path.name}", kind="screenshot", stage=self.stage, title=self.title)


def begin_shot(app: App, folder: Path, stage: str, title: str, *, say: Callable[[str], None]) -> Shot | None:
    """Begin to take a screenshot of the app's front page; None where there is no Chromium, which is said."""
    chromium = find_chromium()
    if chromium is None:
        say("no screenshots: there is no Chromium here (install `chromium`, or run `playwright install chromium`)")
        return None
    target = folder / ARTIFACTS
    target.mkdir(exist_ok=True)
    path = target / f"{re.sub(r'[^a-z0-9.+-]', '-', stage.lower())}.png"
    profile = Path(tempfile.mkdtemp(prefix="coopcloud-chromium-"))
    process = subprocess.Popen(
        [
            str(chromium),
            "--headless",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={SHOT_SIZE}",
            f"--screenshot={path}",
            f"--user-data-dir={profile}",
            *launch_arguments(app.gateway, app.name.base_domain),
            app.url,
        ],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Shot(process=process, profile=profile, path=path, stage=stage, title=title, say=say)
