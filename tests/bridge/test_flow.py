from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bridge.api import ApiError
from bridge.triggers import Outcome, State
from bridge.webhooks import read_event
from tests.bridge.world import REPO, World
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., World]


async def test_a_comment_becomes_a_build_and_a_verdict(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()

    await world.go(10)

    (build,) = world.drone.builds.values()
    assert build["params"] == {
        "RECIPE": "guestbook",
        "REF": f"{1:040x}",
        "PR": "1",
        "SRC": REPO,
        "COMMENT": str(comment.id),
    }
    assert "queued" in world.answer()
    world.drone.start(1)
    await world.go(10)
    assert "running" in world.answer()
    world.drone.finish(1)
    await world.go(15)
    assert "✅ passed" in world.answer()
    assert world.row(comment).state is State.FINAL
    assert world.row(comment).outcome is Outcome.PASSED
    states = [status["state"] for status in world.gitea.repos[REPO].statuses]
    assert states == ["pending", "pending", "success"]


@pytest.mark.parametrize(
    ("status", "more", "words", "commit_status"),
    [
        ("failure", {}, "❌ failed", "failure"),
        ("error", {"error": "yaml: line 3 `is` @all broken"}, "❌ error", "error"),
        ("killed", {}, "❌ killed", "error"),
        ("declined", {}, "❌ declined", "error"),
        ("skipped", {}, "❌ error", "error"),
    ],
)
async def test_every_end_of_a_build_is_told(
    make_world: MakeWorld, status: str, more: dict[str, Any], words: str, commit_status: str
) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.start(1)
    await world.go(10)
    world.drone.finish(1, status, **more)

    await world.go(20)

    assert words in world.answer()
    assert "@" not in world.answer()
    assert world.gitea.repos[REPO].statuses[-1]["state"] == commit_status
    assert world.row(comment).state is State.FINAL


async def test_a_timeout_is_told_from_a_hand(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    await world.go(10)
    world.drone.start(1)
    world.clock.advance(3601)
    world.drone.finish(1, "killed")

    await world.go(20)

    assert "❌ timed out" in world.answer()


async def test_null_instead_of_a_build_is_explained(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.mode = "null"
    comment = world.testme()

    await world.go(20)

    assert "found no pipeline" in world.answer()
    assert world.row(comment).outcome is Outcome.ERROR
    assert world.drone.asked["POST /api/repos/coop-cloud/recipe-ci/builds"] == 1


async def test_a_build_that_is_an_error_from_the_start_shows_why(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.mode = "error"
    world.testme()

    await world.go(20)

    assert "yaml: line 3: mapping values" in world.answer()
    assert len(world.drone.builds) == 1


@pytest.mark.parametrize("status", ["blocked", "waiting_on_dependencies", "a_word_of_tomorrow"])
async def test_a_status_that_is_not_final_is_waited_for(make_world: MakeWorld, status: str) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.builds[1]["status"] = status

    await world.go(60)

    assert world.row(comment).state is State.TRIGGERED
    world.drone.finish(1)
    await world.go(20)
    assert "✅ passed" in world.answer()


@pytest.mark.parametrize("mode", ["401", "403", "404", "500"])
async def test_a_drone_that_refuses_is_asked_again(make_world: MakeWorld, mode: str) -> None:
    world = make_world(in_doubt=5.0)
    await world.begin()
    world.drone.mode = mode
    comment = world.testme()
    await world.go(60)
    assert world.row(comment).state in (State.AUTHORISED, State.TRIGGERING)
    world.drone.mode = ""

    await world.go(120)

    assert len(world.drone.builds) == 1


async def test_a_restart_in_drone_is_followed(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.start(1)
    world.drone.finish(1, "failure")
    await world.go(20)
    assert "❌ failed" in world.answer()
    assert world.drone.restart(1) == 2

    await world.go(40)

    assert world.row(comment).build == 2
    assert "queued" in world.answer()
    world.drone.start(2)
    world.drone.finish(2)
    await world.go(20)
    assert "✅ passed" in world.answer()
    assert len(world.gitea.answers(REPO)) == 1


async def test_builds_of_others_are_left_alone(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    for params in ({}, {"COMMENT": "x"}, {"COMMENT": "99"}, {"RECIPE": "a", "COMMENT": "-1"}):
        world.drone.make(params)
    comment = world.testme()

    await world.go(20)

    assert world.row(comment).build == 5
    assert "4 builds are ahead" in world.answer()


async def test_a_build_that_was_deleted_ends_the_comment(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    await world.go(10)
    world.drone.builds.clear()

    await world.go(20)

    assert "gone from Drone" in world.answer()


async def test_a_runner_that_died_is_given_up_at_the_deadline(make_world: MakeWorld) -> None:
    world = make_world(run_deadline=600.0, poll_interval=25.0)
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.start(1)
    await world.go(590)
    assert world.row(comment).state is State.TRIGGERED

    await world.go(50)

    assert "❌ timed out" in world.answer()
    assert world.drone.builds[1]["status"] == "killed"
    assert world.all_final


async def test_the_deadline_does_not_believe_our_clock(make_world: MakeWorld) -> None:
    world = make_world(run_deadline=600.0)
    await world.begin()
    comment = world.testme()
    await world.go(10)
    world.drone.start(1)
    await world.go(10)

    # Drone and the forge keep their time; ours is a day ahead.
    world.gitea.clock = world.drone.clock = FakeClock(world.clock.time())
    world.clock.jump(86_400)
    await world.go(60)
    assert world.row(comment).state is State.TRIGGERED
    world.clock.jump(-2 * 86_400)
    await world.go(60)
    assert world.row(comment).state is State.TRIGGERED


async def test_a_build_that_never_starts_is_given_up(make_world: MakeWorld) -> None:
    world = make_world(queue_deadline=600.0)
    await world.begin()
    world.testme()
    await world.go(10)
    world.clock.advance(601)

    await world.go(20)

    assert "❌ timed out" in world.answer()
    assert world.drone.builds[1]["status"] == "killed"


async def test_the_same_commit_again_joins(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    await world.go(10)
    again = world.testme()
    partly = world.testme(body="!testme stages=install")

    await world.go(20)

    assert len(world.drone.builds) == 1
    assert len(world.gitea.answers(REPO)) == 1
    assert [world.row(one).outcome for one in (again, partly)] == [Outcome.JOINED, Outcome.JOINED]
    assert world.gitea.repos[REPO].reactions == [(again.id, "eyes"), (partly.id, "eyes")]


async def test_more_stages_than_are_running_are_a_build_of_their_own(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme(body="!testme stages=install,upgrade")
    await world.go(10)
    world.testme()

    await world.go(20)

    assert [build["params"].get("STAGES") for build in world.drone.builds.values()] == ["install,upgrade", None]


async def test_a_new_commit_supersedes_the_older_run(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    first = world.testme()
    await world.go(10)
    world.drone.start(1)
    world.gitea.push(REPO, 1, "b" * 40)
    world.clock.advance(5)
    second = world.testme(user=3)

    await world.go(30)

    assert world.drone.builds[1]["status"] == "killed"
    assert world.drone.builds[2]["params"]["REF"] == "b" * 40
    assert world.row(first).outcome is Outcome.SUPERSEDED
    old, new = (one.body for one in world.gitea.answers(REPO))
    assert "❌ superseded" in old
    assert "`bob`" in old
    assert "queued" in new
    assert world.row(second).state is State.TRIGGERED
    assert world.gitea.repos[REPO].statuses[-1]["sha"] in (f"{1:040x}", "b" * 40)


async def test_comments_that_piled_up_run_the_newest_commit_only(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.down = True
    for letter in "abc":
        world.gitea.push(REPO, 1, letter * 40)
        world.clock.advance(5)
        world.testme()
        await world.go(30)
    world.drone.down = False

    await world.go(120)

    assert [build["params"]["REF"] for build in world.drone.builds.values()] == ["c" * 40]
    assert sum("superseded" in one.body for one in world.gitea.answers(REPO)) == 2


@pytest.mark.parametrize("started", [True, False])
async def test_cancel_stops_the_build_and_says_by_whom(make_world: MakeWorld, started: bool) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    await world.go(10)
    if started:
        world.drone.start(1)
        await world.go(10)
    cancel = world.testme(body="!testme cancel", user=3)

    await world.go(20)

    assert world.drone.builds[1]["status"] == "killed"
    assert "cancelled by `bob`" in world.answer()
    assert world.row(comment).outcome is Outcome.CANCELLED
    assert world.row(cancel).outcome is Outcome.DONE


async def test_cancel_stops_what_waits_for_drone(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.down = True
    world.testme()
    await world.go(20)
    world.testme(body="!testme cancel")
    await world.go(20)
    world.drone.down = False

    await world.go(120)

    assert world.drone.builds == {}
    assert "cancelled by `alice`" in world.answer()


async def test_drone_away_waits_says_so_and_runs_the_oldest_first(make_world: MakeWorld) -> None:
    world = make_world()
    for number in range(2, 6):
        world.gitea.add_pull(REPO, number)
    await world.begin()
    world.drone.down = True
    comments = []
    for number in (3, 1, 5, 2, 4):
        comments.append(world.testme(number))
        await world.go(10)
    assert "Drone does not answer" in world.answer(3)
    assert world.bridge.health()["status"] == "degraded"
    world.drone.down = False

    await world.go(120)

    order = [int(build["params"]["COMMENT"]) for build in world.drone.builds.values()]
    assert order == [comment.id for comment in comments]


async def test_comments_made_while_the_bridge_was_away_run_oldest_first(make_world: MakeWorld) -> None:
    world = make_world()
    for number in range(2, 8):
        world.gitea.add_pull(REPO, number)
    await world.begin()
    await world.kill()
    comments = []
    for number in (4, 1, 6, 2, 7, 3, 5):
        comments.append(world.testme(number))
        world.clock.advance(1000)
    world.boot()

    await world.go(120)

    order = [int(build["params"]["COMMENT"]) for build in world.drone.builds.values()]
    assert order == [comment.id for comment in comments]


async def test_the_forge_away_loses_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    world.gitea.down = True
    for _ in range(10):
        world.clock.advance(30)
        with contextlib.suppress(ApiError):
            await world.turn()
    assert "refused" in world.bridge.health()["forge"]
    world.gitea.down = False
    world.clock.advance(120)

    await world.go(60)

    assert len(world.drone.builds) == 1


async def test_webhook_poll_and_replays_make_one_build(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    told = read_event(json.dumps(world.gitea.payload(REPO, comment)).encode(), {"x-gitea-event": "issue_comment"})
    for _ in range(100):
        world.bridge.poller.consider(told, source="webhook")

    await world.go(30)
    for _ in range(100):
        world.bridge.poller.consider(told, source="webhook")
    await world.go(30)

    assert len(world.drone.builds) == 1
    assert len(world.gitea.answers(REPO)) == 1


async def test_the_webhook_pins_the_commit_of_its_moment(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    told = read_event(json.dumps(world.gitea.payload(REPO, comment)).encode(), {"x-gitea-event": "issue_comment"})
    world.gitea.push(REPO, 1, "b" * 40)
    world.bridge.poller.consider(told, source="webhook")

    await world.go(30)

    assert world.drone.builds[1]["params"]["REF"] == f"{1:040x}"


async def test_two_pull_requests_within_a_second_are_two_builds(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.add_pull(REPO, 2)
    await world.begin()
    first, second = world.testme(1), world.testme(2)

    await world.go(20)

    assert [world.row(one).build for one in (first, second)] == [1, 2]
    assert "It is next." in world.answer(1)
    assert "1 build is ahead" in world.answer(2)


async def test_the_expected_start_comes_from_past_durations(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.add_pull(REPO, 2)
    world.gitea.add_pull(REPO, 3)
    await world.begin()
    world.testme(1)
    await world.go(10)
    world.drone.start(1)
    world.clock.advance(240)
    world.drone.finish(1)
    await world.go(20)
    world.testme(2)
    world.testme(3)

    await world.go(10)

    assert "should start in about 4 min" in world.answer(3)


@pytest.mark.parametrize("server", ["gitea", "drone"])
@pytest.mark.parametrize("fault", ["lost", "500", "hang", "connect", "html", "cut", "429", "503"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "GET"])
async def test_one_bad_answer_costs_neither_a_build_nor_a_comment(
    make_world: MakeWorld, server: str, fault: str, method: str
) -> None:
    """The first three requests of a kind go wrong, each in the same way; then all is well."""
    world = make_world()
    await world.begin()
    left = Counter({method: 3})

    def wrong(asked: str, _path: str) -> str | None:
        left[asked] -= 1
        return fault if left[asked] >= 0 else None

    getattr(world, server).fault = wrong
    comment = world.testme()
    for _ in range(60):
        world.clock.advance(5)
        with contextlib.suppress(ApiError):
            await world.turn()
        if world.drone.builds and world.drone.builds[1]["status"] == "pending":
            world.drone.start(1)
        elif world.drone.builds and world.bridge.worker._clock.monotonic() % 50 < 5:
            world.drone.finish(1)

    assert len(world.drone.of_comment(comment.id)) == 1
    assert len(world.gitea.answers(REPO)) == 1
    assert "✅ passed" in world.answer()
    assert world.all_final


async def test_retry_after_is_obeyed(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.gitea.fault = lambda _method, _path: "429"
    world.gitea.retry_after = "60"
    with pytest.raises(ApiError):
        await world.turn()
    asked = world.gitea.asked.total()

    for _ in range(11):
        world.clock.advance(5)
        with contextlib.suppress(ApiError):
            await world.turn()

    assert world.gitea.asked.total() == asked
    world.clock.advance(6)
    world.gitea.fault = lambda _method, _path: None
    await world.turn()
    assert world.gitea.asked.total() > asked
