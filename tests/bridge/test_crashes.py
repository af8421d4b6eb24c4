"""SIGKILL at every moment of a test's way: before and after each request, and before and after each change on disk."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from bridge.triggers import State
from tests.bridge.world import REPO, KilledError, World

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., World]


async def _whole_way(world: World) -> None:
    """From a comment to its verdict, Drone doing its part."""
    for _ in range(40):
        world.clock.advance(5)
        await world.turn()
        builds = world.drone.builds
        if builds and builds[1]["status"] == "pending":
            world.drone.start(1)
        elif (
            builds
            and builds[1]["status"] == "running"
            and "running" in "".join(one.body for one in world.gitea.answers(REPO))
        ):
            world.drone.finish(1)
        rows = world.bridge.triggers.all()
        if rows and all(row.state is State.FINAL for row in rows):
            return
    raise AssertionError("it did not come to an end")


async def _die_at(world: World, moment: int) -> bool:
    """Go the whole way with one death at `moment`; say whether the way was long enough for it."""
    await world.begin()
    world.testme()
    world.mortal.moments = 0
    world.mortal.dies_at = moment
    try:
        await _whole_way(world)
    except KilledError:
        await world.kill()
        world.boot()
        await _whole_way(world)
        return True
    return False


WHOLE = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("COOPCLOUD_SOAK") != "1", reason="COOPCLOUD_SOAK=1 asks for it"),
]
PARTS = 5


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=WHOLE) for part in range(1, PARTS))])
async def test_one_death_at_any_moment_makes_one_build_and_one_comment(
    make_world: MakeWorld, part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moment, deaths = part + 1, 0
    while True:
        world = make_world(state_dir=tmp_path_factory.mktemp("state"), in_doubt=5.0)
        died = await _die_at(world, moment)
        assert len(world.drone.builds) == 1, f"killed at moment {moment}"
        assert len(world.gitea.answers(REPO)) == 1, f"killed at moment {moment}"
        assert "✅ passed" in world.answer(), f"killed at moment {moment}"
        assert world.gitea.repos[REPO].statuses[-1]["state"] == "success"
        await world.close()
        if not died:
            break
        deaths += 1
        moment += PARTS
    assert deaths > 10


async def test_a_database_that_is_a_moment_old_finds_the_build_that_it_does_not_know(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    world.drone.make({"RECIPE": "guestbook", "REF": f"{1:040x}", "COMMENT": str(comment.id)})

    await world.go(20)

    assert len(world.drone.builds) == 1
    assert world.row(comment).build == 1


async def test_a_marker_typed_by_somebody_else_is_not_ours(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    world.gitea.say(REPO, 1, f"mine\n\n<!-- coopcloud-ci:{comment.id} -->", user=4)
    left = [1]

    def lose_one(method: str, path: str) -> str | None:
        return "lost" if method == "POST" and path.endswith("/comments") and left and left.pop() else None

    world.gitea.fault = lose_one

    await world.go(60)

    assert len(world.gitea.answers(REPO)) == 1
    assert world.row(comment).reply_id == world.gitea.answers(REPO)[0].id
