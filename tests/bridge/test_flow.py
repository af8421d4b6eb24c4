from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.triggers import Outcome, State
from tests.bridge.world import REPO, World

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
