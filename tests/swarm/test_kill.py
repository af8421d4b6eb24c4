"""Nothing is left behind, whatever dies, whenever."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_coopcloud.docker import Docker
from pytest_coopcloud.inventory import Kind, take
from pytest_coopcloud.results import Verdict, read_result
from tests.swarm.killable import PHASES, make_recipe

pytestmark = [pytest.mark.swarm, pytest.mark.kill, pytest.mark.slow]

HERE = Path(__file__).parent
SOAK = bool(os.environ.get("COOPCLOUD_SOAK"))
#: Seconds within which nothing may be left.
LIMIT = 15.0
WAYS = ("pytest", "shell", "group", "sigterm", "sigint", "reaper")
#: In `./dev test` every phase is met by the hardest way, and every way once; `./dev soak` does all of both.
MATRIX = [
    (way, phase)
    for way in WAYS
    for phase in PHASES
    if SOAK or way == "pytest" or WAYS.index(way) == PHASES.index(phase)
]


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory, recipe_of: Callable[..., Path]) -> Path:
    recipe_of("hello")  # its images
    return make_recipe(tmp_path_factory.mktemp("recipes") / "killable")


@pytest.fixture(scope="module")
def witnesses(docker: Docker) -> Iterator[dict[str, object]]:
    """Things that look like nobody's business, and must be the same afterwards."""
    api, name = docker.api, f"witness-{os.getpid()}"
    volume = api.create_volume(f"{name}_data", labels={"owner": "somebody else"})
    secret = api.create_secret(f"{name}_secret", b"theirs", labels={})
    config = api.create_config(f"{name}_config", b"theirs", labels={})
    network = api.create_network(f"{name}_net", driver="overlay", attachable=True)
    service = api.create_service(
        {"ContainerSpec": {"Image": "coopcloud-lab/hello:1.0.0"}, "Networks": [{"Target": network["Id"]}]},
        name=f"{name}_app",
        labels={"com.docker.stack.namespace": name},
        mode={"Replicated": {"Replicas": 1}},
        endpoint_spec={"Mode": "dnsrr"},
    )

    def look() -> dict[str, object]:
        return {
            "volume": docker.inspect("volume", volume["Name"]),
            "secret": docker.inspect("secret", secret["ID"]),
            "config": docker.inspect("config", config["ID"]),
            "service": docker.inspect("service", service["ID"])["Spec"],
            "image": docker.digest("coopcloud-lab/hello:1.0.0"),
        }

    before = look()
    yield before
    after = look()
    for kind, raw in (("service", service["ID"]), ("secret", secret["ID"]), ("config", config["ID"])):
        docker.remove(kind, raw)
    _until(lambda: not docker.containers(label=f"com.docker.swarm.service.id={service['ID']}"), 30, "witness gone")
    _until(
        lambda: docker.remove("network", network["Id"]) and docker.remove("volume", volume["Name"]), 30, "witness gone"
    )
    assert after == before


def _until(true: Callable[[], object], seconds: float, what: str) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


class Victim:
    """A run under a shell, as Drone's exec runner starts it."""

    def __init__(self, recipe: Path, phase: str, environment: dict[str, str], folder: Path) -> None:
        self.state = Path(environment["COOPCLOUD_CI_STATE"])
        self.file = folder / f"phase-{phase}"
        variables = {
            **environment,
            "KILL_PHASE": phase,
            "KILL_FILE": str(self.file),
            "PYTHONPATH": f"{environment['PYTHONPATH']}:{HERE}",
        }
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "killable", "--no-screenshots"]
        self.output = (folder / "output").open("wb")
        self.shell = subprocess.Popen(
            ["sh", "-e", "-c", f'"$@" --recipe={recipe}; exit $?', "sh", *argv],
            cwd=folder / "empty",
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def reach(self) -> None:
        def there() -> bool:
            assert self.shell.poll() is None, f"ended before its phase:\n{Path(self.output.name).read_text()}"
            return self.file.exists() and bool(self.file.read_text())

        _until(there, 90, f"phase reached:\n{Path(self.output.name).read_text()}")
        self.pid = int(self.file.read_text())

    @property
    def folder(self) -> Path:
        return next((self.state / "runs").iterdir())

    def reapers(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def left(self, docker: Docker) -> list[str]:
        run_id = self.folder.name
        return [
            str(thing) for thing in take(docker).things if thing.name.startswith(run_id) or run_id in str(thing.labels)
        ]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.shell.pid, signal.SIGKILL)
        self.shell.wait()
        self.output.close()


@pytest.fixture
def victim(
    docker: Docker, killable: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[str], Victim]]:
    started: list[Victim] = []

    def start(phase: str) -> Victim:
        started.append(Victim(killable, phase, environment, tmp_path))
        started[-1].reach()
        return started[-1]

    yield start
    for one in started:
        one.end()


def strike(victim: Victim, way: str, environment: dict[str, str]) -> None:
    if way == "pytest":
        os.kill(victim.pid, signal.SIGKILL)
    elif way == "shell":
        victim.shell.kill()
    elif way == "group":
        os.killpg(victim.shell.pid, signal.SIGKILL)
    elif way == "sigterm":
        os.kill(victim.pid, signal.SIGTERM)
    elif way == "sigint":
        os.kill(victim.pid, signal.SIGINT)
    else:
        for reaper in victim.reapers():
            os.kill(reaper, signal.SIGKILL)
        os.kill(victim.pid, signal.SIGKILL)
        _until(lambda: not victim.reapers(), 10, "the reaper is dead")
        subprocess.run(
            [sys.executable, "-m", "pytest_coopcloud", "janitor", "--max-age=0"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )


@pytest.mark.parametrize(("way", "phase"), MATRIX)
def test_nothing_is_left_and_the_result_is_true(
    way: str,
    phase: str,
    victim: Callable[[str], Victim],
    docker: Docker,
    environment: dict[str, str],
    witnesses: dict[str, object],
    record_property: Callable[[str, object], None],
) -> None:
    run = victim(phase)
    began = time.monotonic()

    strike(run, way, environment)

    _until(lambda: not run.left(docker), LIMIT, f"nothing left; there is {run.left(docker)}")
    took = time.monotonic() - began
    record_property("seconds_to_zero", round(took, 2))
    _until(lambda: not run.reapers(), LIMIT, "the reaper has ended")
    result = read_result(run.folder / "results.json")
    assert result.finished_at is not None
    assert result.verdict in (Verdict.UNVERIFIED, Verdict.FAILED)
    assert result.died
    assert result.leaks == []
    assert json.loads((run.folder / "ledger.json").read_text())["clean"]
    if SOAK:
        with Path(os.environ.get("COOPCLOUD_KILL_TIMES", os.devnull)).open("a") as stream:
            stream.write(f"{way} {phase} {took:.3f}\n")


def test_the_workspace_may_be_deleted_under_the_run(
    victim: Callable[[str], Victim], docker: Docker, tmp_path: Path, environment: dict[str, str]
) -> None:
    run = victim("waiting")
    (tmp_path / "empty").rmdir()

    strike(run, "sigterm", environment)

    _until(lambda: not run.left(docker), LIMIT, "nothing left")
    _until(lambda: read_result(run.folder / "results.json").finished_at, LIMIT, "the result is final")


def test_a_run_that_ignores_sigterm_is_killed_at_its_deadline(
    docker: Docker, killable: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    conftest = killable / "tests" / "conftest.py"
    conftest.parent.mkdir(exist_ok=True)
    conftest.write_text(
        "import signal, time\n"
        "def pytest_coopcloud_before_stage(recipe, stage):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    end = time.monotonic() + 300\n"
        "    while time.monotonic() < end:\n"
        "        print('still here', flush=True)\n"
        "        time.sleep(0.2)\n"
    )
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", f"--recipe={killable}", "--run-timeout=1"],
            cwd=tmp_path / "empty",
            env={**environment, "COOPCLOUD_REAPER_GRACE": "1", "COOPCLOUD_REAPER_PATIENCE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        assert child.wait(timeout=60) == -signal.SIGKILL
        folder = next((tmp_path / "state" / "runs").iterdir())
        _until(lambda: read_result(folder / "results.json").finished_at, LIMIT, "the result is final")
        assert read_result(folder / "results.json").died == "timed out in install"
        assert not [t for t in take(docker, [Kind.SERVICE, Kind.VOLUME]).things if t.name.startswith(folder.name)]
    finally:
        conftest.unlink()


def test_the_waiting_reaper_is_small_and_idle(
    victim: Callable[[str], Victim], environment: dict[str, str], docker: Docker
) -> None:
    run = victim("waiting")
    (reaper,) = run.reapers()
    status = Path(f"/proc/{reaper}/status").read_text()
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    before = Path(f"/proc/{reaper}/stat").read_text().split()[13:15]
    time.sleep(1)
    after = Path(f"/proc/{reaper}/stat").read_text().split()[13:15]

    strike(run, "pytest", environment)

    assert resident < 20 * 1024
    assert after == before
    assert os.getpgid(run.shell.pid) != os.getpgid(reaper) if Path(f"/proc/{reaper}").exists() else True
    _until(lambda: not run.left(docker), LIMIT, "nothing left")
