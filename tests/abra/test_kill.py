"""The long sweep (`./dev soak`): nothing is left when a run through abra is killed, in each phase of `tests/swarm`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.results import Verdict, read_result
from tests.swarm.killable import PHASES, make_recipe
from tests.swarm.test_kill import LIMIT, Victim, _until, strike

pytestmark = [
    pytest.mark.swarm,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.usefixtures("backupbot"),
]


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., Path]) -> Path:
    recipe_of("hello")  # its images
    return make_recipe(tmp_path_factory.mktemp("recipes") / "killable")


@pytest.fixture
def through_abra(environment: dict[str, str], standin: Callable[..., str]) -> dict[str, str]:
    return {**environment, "COOPCLOUD_DEPLOYER": "abra", "PATH": standin()}


@pytest.fixture
def victim(
    docker: Docker, killable: Path, through_abra: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[str], Victim]]:
    started: list[Victim] = []

    def start(phase: str) -> Victim:
        started.append(Victim(killable, phase, through_abra, tmp_path))
        started[-1].reach()
        return started[-1]

    yield start
    for one in started:
        one.end()


# A run that is taking down already ends in its own time, whoever asks.
@pytest.mark.parametrize(
    ("way", "phase"),
    [(way, phase) for way in ("pytest", "sigterm") for phase in PHASES if (way, phase) != ("sigterm", "teardown")],
)
def test_nothing_is_left_and_the_result_is_true(
    way: str, phase: str, victim: Callable[[str], Victim], docker: Docker, through_abra: dict[str, str]
) -> None:
    run = victim(phase)

    strike(run, way, through_abra)

    _until(lambda: not run.left(docker), LIMIT, f"nothing left; there is {run.left(docker)}")
    _until(lambda: not run.reapers(), LIMIT, "the reaper has ended")
    result = read_result(run.folder / "results.json")
    assert result.finished_at is not None
    assert result.verdict in (Verdict.UNVERIFIED, Verdict.FAILED)
    assert result.died
    assert result.leaks == []
    assert json.loads((run.folder / "ledger.json").read_text())["clean"]
    assert not [path for path in Path(docker.info["DockerRootDir"], "volumes").glob(f"{run.folder.name}*")]
