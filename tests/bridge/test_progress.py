"""What the comment says while a run goes on, from the results that the run writes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.triggers import Outcome, ReplyState, State
from pytest_coopcloud.results import Cause, CauseClass, RunResult, Stage, write_result
from pytest_coopcloud.results import Outcome as StageOutcome
from tests.bridge.world import REPO, World
from tests.fakes import DRONE_TOKEN, FORGE_TOKEN

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., World]
RUN = "gues-0a1b2c"


class Run:
    """A run that writes its results where the bridge looks for them."""

    def __init__(self, folder: Path, world: World, **values: Any) -> None:
        self.folder = folder / RUN
        self.folder.mkdir(parents=True)
        self.world = world
        self.result = RunResult(
            run_id=RUN,
            recipe="guestbook",
            started_at=world.clock.time(),
            build=1,
            command="pytest --recipe=guestbook",
            **values,
        )
        self.result.expect([(stage, "") for stage in Stage])
        self.write()

    def write(self) -> None:
        write_result(self.result, self.folder)

    def begin(self, stage: Stage) -> None:
        self.result.stage(stage).started_at = self.world.clock.time()
        self.write()

    def end(self, stage: Stage, outcome: StageOutcome = StageOutcome.PASS, **values: Any) -> None:
        record = self.result.stage(stage)
        record.outcome, record.duration_seconds = outcome, 12.0
        for name, value in values.items():
            setattr(record, name, value)
        self.write()

    def finish(self) -> None:
        self.result.finished_at = self.world.clock.time()
        self.write()


@pytest.fixture
async def running(make_world: MakeWorld, tmp_path: Path) -> tuple[World, Run]:
    """A world with a build that runs, and its run."""
    world = make_world(results_dir=tmp_path / "runs")
    await world.begin()
    world.testme()
    await world.go(10)
    world.drone.start(1)
    return world, Run(tmp_path / "runs", world)


async def test_stages_are_ticked_off_as_they_end(running: tuple[World, Run]) -> None:
    world, run = running
    run.begin(Stage.INSTALL)
    await world.go(10)
    assert "| ⏳ | install |" in world.answer()
    assert f"[Follow the run](http://ci.test/run/{RUN})" in world.answer()
    run.end(Stage.INSTALL)
    run.begin(Stage.UPGRADE)
    await world.go(10)
    assert "| ✅ | install | 12 s |" in world.answer()
    for stage in list(Stage)[1:]:
        run.end(stage)
    run.end(Stage.UPGRADE, version_before="1.0.0+1", version_after="1.1.0+2")
    run.finish()
    world.drone.finish(1)

    await world.go(20)

    answer = world.answer()
    assert "### ✅ passed · level 5 of 5" in answer
    assert "`1.0.0+1` → `1.1.0+2`" in answer
    assert f"[Report](http://ci.test/run/{RUN})" in answer
    assert "pytest --recipe=guestbook" in answer
    last = world.gitea.repos[REPO].statuses[-1]
    assert (last["state"], last["description"]) == ("success", "passed, level 5")
    assert last["target_url"] == f"http://ci.test/run/{RUN}"


async def test_a_failure_names_the_stage_and_the_cause_and_cannot_break_out(running: tuple[World, Run]) -> None:
    world, run = running
    run.end(Stage.INSTALL)
    cause = Cause(
        kind=CauseClass.RECIPE,
        summary="service app did not converge ``` <img src=x> @all fixes #1",
        hint="look at `app.log`\n# big",
        log=[f"line {number} ``````` <!-- coopcloud-ci:7 -->" for number in range(30)],
    )
    run.end(Stage.UPGRADE, StageOutcome.FAIL, cause=cause, reason="a | b `c` @bob")
    run.end(Stage.TEARDOWN)
    run.finish()
    world.drone.finish(1, "failure")

    await world.go(20)

    answer = world.answer()
    assert "### ❌ failed · level 1 of 5" in answer
    assert "**First cause**, stage `upgrade`, in the recipe" in answer
    assert answer.count("line ") == 10
    assert "@" not in answer
    assert answer.count("<!--") == 1
    assert "````````text" in answer
    assert "`a ¦ b 'c' \uff20bob`" in answer
    assert world.gitea.repos[REPO].statuses[-1]["state"] == "failure"


async def test_our_own_secrets_are_in_no_comment(running: tuple[World, Run]) -> None:
    world, run = running
    cause = Cause(kind=CauseClass.RECIPE, summary=f"it printed {FORGE_TOKEN}", log=[f"token={DRONE_TOKEN}"])
    run.end(Stage.INSTALL, StageOutcome.FAIL, cause=cause)
    run.finish()
    world.drone.finish(1, "failure")

    await world.go(20)

    assert "it printed [secret]" in world.answer()
    assert DRONE_TOKEN not in world.answer()


async def test_one_edit_in_ten_seconds_and_the_last_is_never_lost(running: tuple[World, Run]) -> None:
    world, run = running
    for stage in Stage:
        run.begin(stage)
        await world.go(3, step=1)
        run.end(stage)
        await world.go(3, step=1)
    run.finish()
    world.drone.finish(1)
    await world.go(12, step=1)

    times = [moment for moment, _ in world.gitea.edits]
    assert all(later - earlier >= 10 for earlier, later in itertools.pairwise(times))
    assert len(times) >= 3
    assert "✅ passed" in world.answer()


async def test_a_comment_that_a_person_deleted_is_not_written_again(running: tuple[World, Run]) -> None:
    world, run = running
    await world.go(10)
    (answer,) = world.gitea.answers(REPO)
    world.gitea.delete(REPO, answer.id)
    run.end(Stage.INSTALL)
    await world.go(30)
    for stage in Stage:
        run.end(stage)
    run.finish()
    world.drone.finish(1)

    await world.go(30)

    assert world.gitea.answers(REPO) == []
    (row,) = world.bridge.triggers.all()
    assert (row.reply_state, row.state) == (ReplyState.GONE, State.FINAL)
    assert world.gitea.repos[REPO].statuses[-1]["state"] == "success"


async def test_asking_again_after_deleting_shows_it_anew(running: tuple[World, Run]) -> None:
    world, run = running
    await world.go(10)
    world.gitea.delete(REPO, world.gitea.answers(REPO)[0].id)
    run.end(Stage.INSTALL)
    await world.go(20)
    world.testme()

    await world.go(20)

    assert "running" in world.answer()
    assert len(world.drone.builds) == 1


async def test_a_locked_conversation_gets_no_comment_and_the_run_goes_on(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.gitea.repos[REPO].pulls[1].locked = True
    world.testme()
    await world.go(10)
    world.drone.start(1)
    world.drone.finish(1)

    await world.go(20)

    assert world.gitea.answers(REPO) == []
    assert world.all_final


async def test_a_bot_that_may_not_write_statuses_still_comments(make_world: MakeWorld) -> None:
    world = make_world()
    for _, scopes in world.gitea.tokens.values():
        scopes.discard("write:repository")
        scopes.add("read:repository")
    await world.begin()
    world.testme()
    await world.go(10)
    world.drone.start(1)
    world.drone.finish(1)

    await world.go(20)

    assert "✅ passed" in world.answer()
    assert world.gitea.repos[REPO].statuses == []
    assert world.all_final


@pytest.mark.parametrize(
    ("drone", "results", "outcome", "words"),
    [
        ("success", "none", Outcome.ERROR, "left no results"),
        ("failure", "none", Outcome.ERROR, "failed before the test began"),
        ("failure", "passed", Outcome.ERROR, "the build failed after it"),
        ("success", "failed", Outcome.FAILED, "❌ failed"),
        ("failure", "unfinished", Outcome.UNVERIFIED, "❌ unverified"),
        ("killed", "unfinished", Outcome.KILLED, "❌ killed"),
    ],
)
async def test_drone_and_results_must_agree_for_a_pass(
    make_world: MakeWorld, tmp_path: Path, drone: str, results: str, outcome: Outcome, words: str
) -> None:
    world = make_world(results_dir=tmp_path / "runs")
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.start(1)
    if results != "none":
        run = Run(tmp_path / "runs", world)
        for stage in Stage:
            run.end(stage, StageOutcome.FAIL if results == "failed" else StageOutcome.PASS)
        if results != "unfinished":
            run.finish()
    world.drone.finish(1, drone)

    await world.go(40)

    assert world.row(comment).outcome is outcome
    assert words in world.answer()


async def test_how_a_killed_run_died_is_waited_for(running: tuple[World, Run]) -> None:
    world, run = running
    run.end(Stage.INSTALL)
    world.drone.finish(1, "failure")
    await world.go(10)
    run.result.died = "run was killed in upgrade"
    run.finish()

    await world.go(15)

    assert "`run was killed in upgrade`" in world.answer()


async def test_a_zombie_of_a_dead_runner_is_cancelled_with_the_verdict_of_its_run(running: tuple[World, Run]) -> None:
    world, run = running
    for stage in Stage:
        run.end(stage)
    run.finish()
    await world.go(80)
    assert world.drone.builds[1]["status"] == "running"

    await world.go(30)

    assert world.drone.builds[1]["status"] == "killed"
    assert "✅ passed" in world.answer()
    assert "its runner is gone" in world.answer()


async def test_results_that_cannot_be_read_do_not_stop_anything(running: tuple[World, Run]) -> None:
    world, run = running
    (run.folder / "results.json").write_text('{"schema_version": 1, "run_')
    await world.go(20)
    assert "running" in world.answer()
    (run.folder / "results.json").write_text('{"schema_version": 99}')
    world.drone.finish(1)

    await world.go(30)

    assert world.all_final
    assert "✅" not in world.answer()
