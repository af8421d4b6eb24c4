"""A real engine, sample recipes, and the plugin as a user runs it: in a process of its own, from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import Inventory, take
from pytest_coopcloud.results import RunResult, read_result

ROOT = Path(__file__).parents[2]


def sample(name: str, variant: str = "") -> Path:
    """Return the repository of a sample recipe, made where it is missing."""
    argv = [str(ROOT / "dev"), "recipe", name, *(["--variant", variant] if variant else [])]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Path]:
    return sample


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """The engine; where there is none, that is a failure in CI and a skip elsewhere."""
    try:
        engine = Docker()
        engine.check_swarm()
    except Exception as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no engine in swarm mode: {error}")
    yield engine
    engine.close()


@dataclass
class Trial:
    """A run of the plugin in a process of its own."""

    state: Path
    code: int
    output: str

    @property
    def folder(self) -> Path:
        folders = sorted((self.state / "runs").iterdir(), key=lambda path: path.stat().st_mtime)
        return folders[-1]

    @property
    def result(self) -> RunResult:
        return read_result(self.folder / "results.json")

    def stages(self) -> dict[str, str]:
        return {record.title: record.outcome.value if record.outcome else "none" for record in self.result.stages}

    def raw(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "results.json").read_text()))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a trial: this one, with a state directory of the test's own."""
    (tmp_path / "empty").mkdir()
    clean = {key: value for key, value in os.environ.items() if key not in ("RECIPE", "REF", "SRC", "PR", "STAGES")}
    return {
        **clean,
        "COOPCLOUD_CI_STATE": str(tmp_path / "state"),
        "COOPCLOUD_DEPLOYER": "swarm",
        "MAX_TESTS": "4",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def trial(docker: Docker, environment: dict[str, str], tmp_path: Path) -> Callable[..., Trial]:
    """Run `pytest --recipe=...` and wait for it."""

    def run(recipe: Path | str, *arguments: str, timeout: float = 300, **variables: str) -> Trial:
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--recipe={recipe}", *arguments],
            cwd=tmp_path / "empty",
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.terminate()
            output, _ = child.communicate(timeout=60)
            pytest.fail(f"the trial took longer than {timeout:g} s:\n{output}")
        return Trial(tmp_path / "state", child.returncode, output)

    return run


def foreign(things: Inventory) -> set[str]:
    """Return what other work on this engine may create and remove meanwhile: nothing of ours is among it."""
    return {str(thing) for thing in things.things}


@pytest.fixture
def nothing_left(docker: Docker, tmp_path: Path) -> Iterator[None]:
    """Fail where a run of this test's state directory left something."""
    from pytest_coopcloud.inventory import STATE_LABEL, state_label

    yield
    mine = state_label(tmp_path / "state")
    left = [str(thing) for thing in take(docker).things if thing.label(STATE_LABEL) == mine]
    names = [folder.name for folder in (tmp_path / "state" / "runs").glob("*")]
    left += [str(thing) for thing in take(docker).things if any(thing.name.startswith(name) for name in names)]
    assert not left
