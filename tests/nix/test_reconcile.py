"""The parts of the reconcile programs that need no engine."""

import fcntl
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nix.modules.reconcile import prune
from nix.modules.reconcile.envfile import merged
from nix.modules.reconcile.errors import ReconcileError, SettingError
from nix.modules.reconcile.records import Outcome, Record, read_record, write_record
from nix.modules.reconcile.repository import WISHES, reconcile_repository
from nix.modules.reconcile.settings import SecretWish, stack_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "wishes", "expected"),
    [
        ("A=1\n", {"A": "2"}, "A=2\n"),
        ("#A=1\nB=2\n", {"A": "3"}, "A=3\nB=2\n"),
        ("A=v1 # length=32\n", {"A": "v2"}, "A=v2 # length=32\n"),
        ('C="x"\nC="$C:y"\n', {"C": "z"}, "C=z\n"),
        ("A=1\n#A=2\n", {"A": "3"}, "A=3\n#A=2\n"),
        ("## about A=1 and more\n", {"N": "1"}, "## about A=1 and more\nN=1\n"),
    ],
)
def test_env_file_is_changed_key_by_key(text: str, wishes: dict[str, str], expected: str) -> None:
    assert merged(text, wishes) == expected
    assert merged(expected, wishes) == expected


def test_stack_is_named_as_abra_does() -> None:
    assert stack_name("drone.ci.example.org") == "drone_ci_example_org"


@pytest.mark.parametrize("domain", ["", "-x.org", "UPPER.org", "a" * 41 + ".org"])
def test_domain_that_makes_no_stack_is_refused(domain: str) -> None:
    with pytest.raises(SettingError):
        stack_name(domain)


def test_secret_wish_that_is_cut_short_is_refused() -> None:
    with pytest.raises(SettingError, match="name:VARIABLE:file"):
        SecretWish.parse("token:VERSION", {})


def test_record_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    write_record(tmp_path, "proxy", Record(Outcome.CONVERGED))
    whole = read_record(tmp_path, "proxy")
    (tmp_path / "proxy.json").write_text('{"outcome": "conv')

    assert whole is not None
    assert read_record(tmp_path, "proxy") is None


def test_unknown_command_says_which_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reconcile", "proxi"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "nix" / "modules"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "app,prune,repository,stack,swarm" in done.stderr


class Drone(http.server.BaseHTTPRequestHandler):
    """A stand-in for Drone's API: one repository, and what was asked."""

    repository: dict[str, Any]
    asked: list[str]

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        type(self).asked.append(f"{self.command} {self.path}")
        if self.headers["Authorization"] != "Bearer the-token":
            self.send_error(401)
            return
        if self.path == "/api/repos/org/ci" and self.command == "POST":
            self.repository["active"] = True
        if self.command == "PATCH":
            self.repository.update(json.loads(body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.repository).encode())

    do_GET = do_POST = do_PATCH = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def drone(tmp_path: Path) -> Iterator[dict[str, str]]:
    Drone.repository, Drone.asked = {"active": False, "timeout": 60}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drone)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    (tmp_path / "token").write_text("the-token\n")
    write_record(tmp_path, "drone", Record(Outcome.CONVERGED))
    yield {
        "RECONCILE_STATE_DIR": str(tmp_path),
        "RECONCILE_DRONE_URL": f"http://127.0.0.1:{server.server_address[1]}",
        "RECONCILE_DRONE_TOKEN": str(tmp_path / "token"),
        "RECONCILE_REPOSITORY": "org/ci",
        "RECONCILE_TIMEOUT_MINUTES": "75",
    }
    server.shutdown()
    thread.join()
    server.server_close()


def test_repository_is_activated_with_its_settings_once(drone: dict[str, str]) -> None:
    first = reconcile_repository(drone)
    Drone.asked.clear()
    second = reconcile_repository(drone)

    assert (first.changed, second.changed) == (True, False)
    assert Drone.asked == ["GET /api/repos/org/ci"]
    assert Drone.repository["timeout"] == 75
    assert WISHES.items() <= Drone.repository.items() | {(k, False) for k in WISHES}


def test_setting_that_drifted_is_set_again(drone: dict[str, str]) -> None:
    reconcile_repository(drone)
    Drone.repository["ignore_forks"] = False

    assert reconcile_repository(drone).changed
    assert Drone.repository["ignore_forks"] is True


def test_wrong_drone_token_says_where_to_look(drone: dict[str, str]) -> None:
    Path(drone["RECONCILE_DRONE_TOKEN"]).write_text("another")

    with pytest.raises(ReconcileError, match="drone_admin_token"):
        reconcile_repository(drone)


def test_runner_gets_its_secret_by_pipe_only(tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    runner.write_text('#!/bin/sh\ntr "\\0" "\\n" </proc/$$/environ; echo ---; echo "$1"; cat "$2"\n')
    runner.chmod(0o755)
    start = [str(ROOT / "nix/modules/drone-runner/start"), str(runner)]

    done = subprocess.run(start, input="f" * 64 + "\n", capture_output=True, text=True, check=True, timeout=20)

    environment, _, rest = done.stdout.partition("---\n")
    assert rest == f"daemon\nDRONE_RPC_SECRET={'f' * 64}\n"
    assert "f" * 64 not in environment


def test_runner_without_a_secret_does_not_start() -> None:
    start = [str(ROOT / "nix/modules/drone-runner/start"), "/bin/true"]

    done = subprocess.run(start, input="short\n", capture_output=True, text=True, check=False, timeout=20)

    assert done.returncode == 1
    assert "drone_rpc_secret" in done.stderr


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({}, "RECIPE is no recipe name"),
        ({"RECIPE": "../etc"}, "RECIPE is no recipe name"),
        ({"RECIPE": "hedgedoc", "PR": "1", "REF": "main"}, "REF is no commit"),
        ({"RECIPE": "hedgedoc", "LD_PRELOAD": " "}, "the build sets LD_PRELOAD"),
        ({"RECIPE": "hedgedoc", "PYTEST_ADDOPTS": "-p x"}, "the build sets PYTEST_ADDOPTS"),
    ],
)
def test_build_with_bad_parameters_is_refused(variables: dict[str, str], complaint: str) -> None:
    done = subprocess.run(
        [str(ROOT / "nix/packages/cc-ci-run/cc-ci-run")],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )

    assert done.returncode == 2
    assert complaint in done.stderr


def test_nothing_is_pruned_below_the_threshold(tmp_path: Path) -> None:
    wishes = {"RECONCILE_DISK_PATH": "/", "RECONCILE_DISK_PERCENT": "100.1", "COOPCLOUD_CI_STATE": str(tmp_path)}

    assert prune.prune(wishes) == []


def test_nothing_is_pruned_during_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slots").mkdir()
    wishes = {"RECONCILE_DISK_PATH": "/", "RECONCILE_DISK_PERCENT": "0", "COOPCLOUD_CI_STATE": str(tmp_path)}
    with (tmp_path / "slots" / "0").open("w") as slot:
        fcntl.flock(slot, fcntl.LOCK_EX)

        removed = prune.prune(wishes)

    assert removed == []
    assert "a run is going on" in capsys.readouterr().err


def test_images_of_enrolled_recipes_are_known(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path / "work"), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", str(tmp_path / "work")], check=True)
    for version in ("1.0", "2.0"):
        (tmp_path / "work" / "compose.yml").write_text(f'services:\n  app:\n    image: "wiki:{version}"\n')
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", version], check=True)
        subprocess.run([*git, "tag", "-a", "-m", version, version], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(tmp_path / "work"), str(tmp_path / "mirrors/wiki")], check=True)

    assert prune.enrolled_images(tmp_path / "mirrors") == {"wiki:1.0", "wiki:2.0"}
