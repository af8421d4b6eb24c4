"""pytest in a process of its own, in an empty folder, with no engine to be had."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

COMPOSE = """\
version: "3.8"
services:
  app:
    image: nobody/nothing:1
    deploy:
      labels:
        - "coop-cloud.${STACK_NAME}.version=1.2.0+1"
"""

#: Variables of whoever runs these tests, which would choose for the inner pytest.
CHOOSING = ("RECIPE", "REF", "SRC", "PR", "STAGES", "MAX_TESTS", "COMMENT", "PYTEST_ADDOPTS", "PYTEST_PLUGINS")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in CHOOSING and not key.startswith(("COOPCLOUD_", "CCCI_", "DOCKER_", "GIT_", "PYTEST_"))
    }
    return kept | {
        "COOPCLOUD_CI_STATE": str(tmp_path / "state"),
        "DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock",
        "COLUMNS": "200",
    }


@pytest.fixture
def run_pytest(tmp_path: Path, environment: dict[str, str]) -> Run:
    def run(*arguments: str, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=cwd,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def make_recipe(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Path]:
    """Make the folder of a small recipe; with `versions`, a git repository in which they are published."""

    def make(name: str, *, versions: tuple[str, ...] = (), conftest: str = "", below: str = "") -> Path:
        folder = tmp_path / below / name
        folder.mkdir(parents=True)
        (folder / "compose.yml").write_text(COMPOSE)
        (folder / ".env.sample").write_text(f"TYPE={name}\n")
        if conftest:
            (folder / "tests").mkdir()
            (folder / "tests" / "conftest.py").write_text(conftest)
        if versions:
            git = ["git", "-c", "user.name=Trial", "-c", "user.email=trial@example.org", "-C", str(folder)]
            commands = [["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=begin"]]
            for command in [*commands, *(["tag", "--annotate", "--message=it", version] for version in versions)]:
                subprocess.run([*git, *command], env=environment, check=True, capture_output=True, timeout=30)
        return folder

    return make
