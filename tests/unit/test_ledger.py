from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_coopcloud.ledger import RESERVE_FILE, Ledger, Lock, LockedError, StateError, lock_slot, state_folder
from pytest_coopcloud.naming import RunName

NAME = RunName("hell-0a1b2c", "ci.localhost")


def test_ledger_is_on_disk_before_the_caller_goes_on(tmp_path: Path) -> None:
    ledger, lock = Ledger.open(tmp_path, NAME, "hello")

    ledger.own(["secret a", "secret b", "secret a"])

    assert Ledger.read(ledger.folder).owned == ["secret a", "secret b"]
    lock.close()


def test_ledger_of_a_newer_plugin_is_read(tmp_path: Path) -> None:
    ledger, lock = Ledger.open(tmp_path, NAME, "hello")
    file = ledger.folder / "ledger.json"
    file.write_text(file.read_text().replace("{", '{"a_key_of_tomorrow": 1,', 1))

    assert Ledger.read(ledger.folder).run_id == "hell-0a1b2c"
    lock.close()


def test_state_directory_that_is_a_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(StateError, match="state directory"):
        Ledger.open(tmp_path / "state", NAME, "hello")


def test_reserve_is_there_and_can_be_given_back_once(tmp_path: Path) -> None:
    ledger, lock = Ledger.open(tmp_path, NAME, "hello")

    assert (ledger.folder / RESERVE_FILE).stat().st_size > 100_000
    assert ledger.free_reserve()
    assert not ledger.free_reserve()
    lock.close()


def test_lock_is_held_by_whoever_inherited_it_and_free_when_that_is_dead(tmp_path: Path) -> None:
    lock, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    lock.exclusive()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], pass_fds=[lock.fd], stdin=subprocess.PIPE
    )
    lock.close()

    assert not other.try_exclusive()
    child.communicate()
    assert other.try_exclusive()
    other.close()


def test_second_run_waits_for_the_first_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    first = lock_slot(tmp_path, 1, timeout=1, waiting=said.append)
    os.pwrite(first.fd, b"hell-0a1b2c", 0)
    timer = threading.Timer(0.2, first.close)
    timer.start()

    second = lock_slot(tmp_path, 1, timeout=10, waiting=said.append)

    assert said == ["waiting for run hell-0a1b2c to end (1 at once on this host), at most 10 s"]
    second.close()
    timer.join()


def test_wait_for_a_place_ends_with_a_sentence(tmp_path: Path) -> None:
    first = lock_slot(tmp_path, 1, timeout=1, waiting=lambda text: None)

    with pytest.raises(LockedError, match=r"waited 0\.1 s for another run to end"):
        lock_slot(tmp_path, 1, timeout=0.1, waiting=lambda text: None)
    first.close()


def test_as_many_runs_as_there_are_places(tmp_path: Path) -> None:
    locks = [lock_slot(tmp_path, 3, timeout=1, waiting=lambda text: None) for _ in range(3)]

    assert len({lock.path for lock in locks}) == 3
    for lock in locks:
        lock.close()


def test_state_folder_follows_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("COOPCLOUD_CI_STATE", raising=False)
    assert state_folder() == tmp_path / "coopcloud-ci"

    monkeypatch.setenv("COOPCLOUD_CI_STATE", str(tmp_path / "elsewhere"))
    assert state_folder() == tmp_path / "elsewhere"
