"""The lab itself: up again, up after a crash, and down with all that it made."""

import stat

from lab import control, processes, rounds
from lab.drone import Drone
from lab.gitea import Forge
from lab.processes import find
from lab.state import ORG
from tests.system.guarantees import docker_names
from tests.system.waits import QUICK, answers, await_run


def test_lab_that_is_up_is_left_alone(lab):
    before = {(process.pid, process.name) for process in find(lab)}

    again = control.up(lab.folder)

    assert {(process.pid, process.name) for process in find(lab)} == before
    assert again.ports == lab.ports


def test_lab_whose_processes_were_killed_comes_back_as_it_was(lab, forge, guarantees):
    processes.kill(lab, "")

    again = control.up(lab.folder, recipes=("hello", "guestbook"))

    assert (again.ports, again.pulls, again.accounts) == (lab.ports, lab.pulls, lab.accounts)
    # The bridge's token in Drone is the same as before, and Drone's logins at the forge still hold.
    comment = guarantees.ask(forge, "hello", text=QUICK)
    assert answers(forge, lab, comment)[-1].passed


def test_secrets_are_for_their_owner_s_eyes_only(lab):
    private = [lab.folder / "lab.json", lab.folder / "gitea" / "app.ini"]
    private += [*(lab.folder / "env").iterdir(), *(lab.folder / "secrets").iterdir()]

    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE(lab.folder.stat().st_mode) == 0o700


def test_down_takes_a_running_test_along(lab, tmp_path):
    other = control.up(tmp_path / "other", recipes=("hello",))
    try:
        with Forge(other) as forge, Drone(other) as drone:
            comment = rounds.ask(forge, f"{ORG}/hello", other.pulls["hello"], text=QUICK)
            run = await_run(other, comment, "install")
            assert drone.builds()
    finally:
        control.down(other.folder)

    assert not find(other)
    assert not other.folder.exists()
    assert not [name for name in docker_names() if run in name]
