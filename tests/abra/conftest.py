"""The stand-in for abra on PATH, the stand-in for backup-bot-two on the swarm, and the trials of `tests/swarm`."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.wait import all_converged, wait
from tests.swarm.conftest import Trial, docker, environment, nothing_left, recipe_of, trial

__all__ = ["Trial", "docker", "environment", "nothing_left", "recipe_of", "trial"]

HERE = Path(__file__).parent
#: The long sweeps.
collect_ignore = [] if os.environ.get("COOPCLOUD_SOAK") else ["test_kill.py", "test_matrix.py"]


@pytest.fixture
def standin(tmp_path: Path) -> Callable[..., str]:
    """Make a folder with the stand-in in it as `abra`, and return a PATH that begins with that folder."""

    def install(version: str = "0.13", misbehave: str = "", says: str = "") -> str:
        folder = tmp_path / f"bin-{version}-{misbehave.partition(':')[0]}"
        folder.mkdir(exist_ok=True)
        variables = {
            "ABRA_STANDIN_VERSION": version,
            "ABRA_STANDIN_MISBEHAVE": misbehave,
            "ABRA_STANDIN_SAYS": says,
            "ABRA_STANDIN_CALLS": str(tmp_path / "calls"),
        }
        exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
        script = folder / "abra"
        script.write_text(f'#!/bin/sh\n{exports}exec {sys.executable} {HERE / "abra"} "$@"\n')
        script.chmod(0o755)
        return f"{folder}{os.pathsep}{os.environ['PATH']}"

    return install


@pytest.fixture(scope="session")
def bot_image(docker: Docker, recipe_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of the stand-in for backup-bot-two, built where it is missing."""
    recipe_of("guestbook")  # its images bring the Debian along
    restic = shutil.which("restic")
    assert restic, "restic is not installed: `./dev test` installs it"
    content = [(HERE / "backupbot" / name).read_bytes() for name in ("Dockerfile", "backup")]
    key = hashlib.sha256(b"".join([*content, Path(restic).read_bytes()])).hexdigest()[:12]
    image = f"coopcloud-lab/backupbot:0.0.0-{key}"
    if docker.image(image) is None:
        context = tmp_path_factory.mktemp("backupbot")
        for file in (HERE / "backupbot" / "Dockerfile", HERE / "backupbot" / "backup", Path(restic)):
            shutil.copy(file, context)
        argv = ["docker", "build", "--quiet", "--network", "none", "--tag", image, str(context)]
        subprocess.run(argv, check=True, env={**os.environ, "DOCKER_BUILDKIT": "0"}, stdout=subprocess.DEVNULL)
    return image


@pytest.fixture(scope="session")
def backupbot(docker: Docker, bot_image: str) -> Iterator[str]:
    """The stand-in for backup-bot-two, running; yields its stack's name."""
    stack = f"backupbot-{os.getpid()}"
    mounts = [("/var/run/docker.sock", "/var/run/docker.sock"), (f"{docker.info['DockerRootDir']}/volumes",) * 2]
    argv = ["docker", "service", "create", "--quiet", "--detach", "--name", f"{stack}_app"]
    argv += ["--label", "coop-cloud.backupbot.enabled=true", "--label", f"com.docker.stack.namespace={stack}"]
    argv += ["--container-label", f"com.docker.stack.namespace={stack}", "--stop-grace-period", "1s"]
    for source, target in mounts:
        argv += ["--mount", f"type=bind,source={source},target={target}"]
    subprocess.run([*argv, "--no-resolve-image", bot_image], check=True, stdout=subprocess.DEVNULL)
    try:
        wait(docker, stack, all_converged, timeout=60)
        yield stack
    finally:
        docker.remove("service", f"{stack}_app")
        for raw in docker.containers(label=f"com.docker.stack.namespace={stack}"):
            docker.remove("container", raw["Id"])


@dataclass
class OneOfMany(Trial):
    """A trial among others that run at once."""

    @property
    def folder(self) -> Path:
        found = re.search(r"^run (\S+)(?: at|,)", self.output, re.MULTILINE)
        assert found, self.output
        return self.state / "runs" / found.group(1)


@pytest.fixture
def trials(
    docker: Docker, environment: dict[str, str], tmp_path: Path, standin: Callable[..., str]
) -> Callable[..., list[OneOfMany]]:
    """Run several trials at once, each given as its recipe, the stand-in's version and more arguments."""

    def run(*wanted: tuple[Path, str, Sequence[str]], timeout: float = 400) -> list[OneOfMany]:
        children = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-p",
                    "no:cacheprovider",
                    "--no-screenshots",
                    f"--recipe={recipe}",
                    *more,
                ],
                cwd=tmp_path / "empty",
                env={
                    **environment,
                    "COOPCLOUD_DEPLOYER": "abra" if version else "swarm",
                    "PATH": standin(version or "0.13"),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for recipe, version, more in wanted
        ]
        try:
            outputs = [child.communicate(timeout=timeout)[0] for child in children]
        finally:
            for child in children:
                if child.poll() is None:
                    child.terminate()
                    child.communicate(timeout=60)
        return [
            OneOfMany(tmp_path / "state", child.returncode, output)
            for child, output in zip(children, outputs, strict=True)
        ]

    return run


@pytest.fixture
def abra_trial(trial: Callable[..., Trial], standin: Callable[..., str]) -> Callable[..., Trial]:
    """Run the plugin with `--deployer=abra` and the stand-in on PATH."""

    def run(recipe: Path | str, *arguments: str, version: str = "0.13", misbehave: str = "", **variables: str) -> Trial:
        path = standin(version, misbehave)
        return trial(recipe, *arguments, COOPCLOUD_DEPLOYER="abra", PATH=path, **variables)

    return run


# What held of a real abra (`pytest -m real_abra`)

_HELD: pytest.StashKey[list[tuple[str, str]]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (
        isinstance(item, pytest.Function)
        and item.get_closest_marker("real_abra")
        and (report.when == "call" or report.failed)
    ):
        which = f" [{item.callspec.id}]" if hasattr(item, "callspec") else ""
        tolerated = hasattr(report, "wasxfail")
        word = (
            "held" if report.passed and not tolerated else "does not hold, tolerated" if tolerated else "DOES NOT HOLD"
        )
        why = f": {report.wasxfail.removeprefix('reason: ')}" if tolerated else ""
        statement = (item.function.__doc__ or item.name).strip().splitlines()[0]
        item.config.stash.setdefault(_HELD, []).append((word, f"{statement}{which}{why}"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    held = config.stash.get(_HELD, [])
    if held:
        terminalreporter.section("what held of this abra")
    for word, statement in held:
        terminalreporter.write_line(f"{word}: {statement}")
