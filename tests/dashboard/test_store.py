"""The index: what it reads, what it reads again, what it removes."""

import asyncio
import os

import pytest

from dashboard.store import Store
from dashboard.watch import follow
from pytest_coopcloud.ledger import Ledger
from pytest_coopcloud.naming import RunName
from pytest_coopcloud.results import write_result
from tests.dashboard.conftest import NOW
from tests.dashboard.runs import Kind, make_result, make_run


@pytest.fixture
def store(runs):
    return Store(runs, clock=lambda: NOW)


def test_reads_only_what_changed(runs, store, monkeypatch):
    for number in range(5):
        make_run(runs, "hedgedoc", number=number, started_at=NOW - 9000 + number, files=False)
    store.refresh_now()
    read = []
    monkeypatch.setattr("dashboard.store.read_result", lambda path: read.append(path) or pytest.fail(str(path)))

    store.refresh_now()

    assert len(store) == 5
    assert read == []


def test_sees_a_new_a_changed_and_a_removed_run(runs, store):
    first = make_run(runs, "hedgedoc", number=1, started_at=NOW - 9000, files=False)
    store.refresh_now()
    version = store.version

    second = make_run(runs, "hedgedoc", number=2, kind=Kind.RUNNING, started_at=NOW - 60, files=False, build=5)
    store.refresh_now()
    assert [row.run_id for row in store.of_recipe("hedgedoc")] == [second.run_id, first.run_id]
    assert store.of_build(5).run_id == second.run_id
    assert store.unfinished == {second.run_id}

    second.finished_at = NOW
    write_result(second, runs / second.run_id)
    store.refresh_now()
    assert store.unfinished == frozenset()

    for run in (first, second):
        (runs / run.run_id / "results.json").unlink()
    store.refresh_now()
    assert store.recipes() == []
    assert store.of_build(5) is None
    assert store.version == version + 3


def test_keeps_what_it_knew_when_the_folder_is_away(runs, store):
    make_run(runs, "hedgedoc", started_at=NOW - 9000, files=False)
    store.refresh_now()
    runs.rename(runs.with_name("away"))

    store.refresh_now()

    assert store.recipes() == ["hedgedoc"]
    assert "cannot be read" in store.problem


def test_ignores_what_is_no_run(runs, store):
    (runs / "README").write_text("x")
    (runs / "Hedg-0a1b2c").mkdir()
    (runs / "hedg-0a1b2c").mkdir()

    store.refresh_now()

    assert len(store) == 0
    assert store.broken() == []


def test_retention_is_by_number_and_age_and_spares_the_last(runs, store):
    ages = {"hedgedoc": (1, 20, 50, 90), "cryptpad": (200,)}
    made = {
        (recipe, age): make_run(runs, recipe, number=age, started_at=NOW - age * 86400, files=False).run_id
        for recipe, all_ages in ages.items()
        for age in all_ages
    }
    store.refresh_now()

    assert store.expired(keep_runs=0, keep_days=0) == []
    assert store.expired(keep_runs=2, keep_days=0) == [made["hedgedoc", 90], made["hedgedoc", 50]]
    assert store.expired(keep_runs=0, keep_days=60) == [made["hedgedoc", 90]]
    assert store.expired(keep_runs=1, keep_days=10) == [made["hedgedoc", age] for age in (90, 50, 20)]


def test_retention_spares_the_last_run_that_counts_and_what_runs(runs, store):
    counts = make_run(runs, "hedgedoc", number=1, started_at=NOW - 90 * 86400, files=False)
    for number in (2, 3):
        make_run(runs, "hedgedoc", number=number, started_at=NOW - 80 * 86400 + number, pr="4", files=False)
    running = make_run(runs, "hedgedoc", number=4, kind=Kind.RUNNING, started_at=NOW - 85 * 86400, files=False)
    store.refresh_now()

    expired = store.expired(keep_runs=1, keep_days=1)

    assert len(expired) == 1
    assert counts.run_id not in expired
    assert running.run_id not in expired


def test_prune_removes_the_folder_but_no_live_and_no_unfinished_one(runs, store, tmp_path):
    made = [make_run(runs, "hedgedoc", number=number, started_at=NOW - 90_000 * (9 - number)) for number in range(5)]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (runs / made[0].run_id / "artifacts" / "link").symlink_to(outside)
    state = tmp_path / "state"
    locked, lock = Ledger.open(state, RunName(made[1].run_id, "ci.test"), "hedgedoc")
    locked.clean = True
    locked.save()
    owing, other = Ledger.open(state, RunName(made[2].run_id, "ci.test"), "hedgedoc")
    owing.own(["volume x"])
    other.close()
    for ledger in (locked, owing):
        for name in ("ledger.json", "lock"):
            (ledger.folder / name).rename(runs / ledger.run_id / name)
    store.refresh_now()

    removed = asyncio.run(store.prune(keep_runs=1, keep_days=0))

    lock.close()
    assert set(removed) == {made[0].run_id, made[3].run_id}
    assert {path.name for path in runs.iterdir()} == {made[index].run_id for index in (1, 2, 4)}
    assert (outside / "kept").read_text() == "kept"
    assert len(store.of_recipe("hedgedoc")) == 3


def follow_while(store, steps, *, rescan_interval=60.0):
    """Run `steps` while the folder is followed; a step that takes more than five seconds fails."""

    async def both():
        task = asyncio.create_task(follow(store, rescan_interval=rescan_interval))
        try:
            await asyncio.wait_for(steps(), 5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(both())


def test_follows_a_run_from_its_folder_to_its_end_by_events(runs, store):
    make_run(runs, "cryptpad", started_at=NOW - 9000, files=False)
    result = make_result("hedgedoc", kind=Kind.RUNNING, started_at=NOW - 60)

    async def until(check):
        version = -1
        while not check():
            version = await store.wait(version)

    async def steps():
        await until(lambda: store.ready)
        (runs / result.run_id).mkdir()
        write_result(result, runs / result.run_id)
        await until(lambda: store.row(result.run_id) is not None)
        os.utime(runs / result.run_id / "results.json", (NOW, NOW))
        result.notes.append("going on")
        write_result(result, runs / result.run_id)
        result.finished_at = NOW
        write_result(result, runs / result.run_id)
        await until(lambda: store.row(result.run_id).finished)

    follow_while(store, steps)


def test_waits_for_a_folder_that_is_not_there_yet(runs, store):
    runs.rmdir()

    async def steps():
        version = await store.wait(0)
        assert store.problem
        make_run(runs, "hedgedoc", started_at=NOW - 9000, files=False)
        while not len(store):
            version = await store.wait(version)

    follow_while(store, steps)


def test_a_slow_comparison_covers_what_reports_nothing(runs, store, monkeypatch):
    make_run(runs, "cryptpad", started_at=NOW - 9000, files=False)
    result = make_run(runs, "hedgedoc", started_at=NOW - 5000, files=False)

    async def steps():
        version = await store.wait(0)
        # The folder of a finished run is not watched.
        result.notes.append("written later")
        write_result(result, runs / result.run_id)
        await store.wait(version)

    follow_while(store, steps, rescan_interval=0.1)
