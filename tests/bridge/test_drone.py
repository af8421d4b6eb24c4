from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from bridge.drone import BuildRequest, BuildStatus
from bridge.triggers import StoreError
from pytest_coopcloud.errors import BadInputError
from pytest_coopcloud.results import Stage
from tests.bridge.world import World

MakeWorld = Callable[..., World]

GOOD: dict[str, Any] = {
    "recipe": "guestbook",
    "ref": "a" * 40,
    "pr": 7,
    "src": "coop-cloud/guestbook",
    "comment": 42,
}
HOSTILE = [
    "x; touch /tmp/pwned",
    "../../etc",
    "--upload-pack=x",
    "a" * 10_000,
    "a\nb",
    "$(id)",
    "`id`",
    "a b",
    "",
    ".",
    "-rf",
]


def test_exactly_these_parameters_are_sent() -> None:
    plain = BuildRequest(**GOOD).params
    chosen = BuildRequest(**GOOD, stages=(Stage.INSTALL, Stage.UPGRADE)).params

    assert plain == {"RECIPE": "guestbook", "REF": "a" * 40, "PR": "7", "SRC": "coop-cloud/guestbook", "COMMENT": "42"}
    assert chosen == {**plain, "STAGES": "install,upgrade"}


@pytest.mark.parametrize("name", ["recipe", "ref", "src", "pr", "comment"])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:20])
def test_hostile_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(BadInputError) as raised:
        BuildRequest(**{**GOOD, name: value})

    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("src", ["http://169.254.169.254/x", "a/..", "../a", "a/b/c", "a/b\n", "file:///etc"])
def test_a_source_is_never_an_address(src: str) -> None:
    with pytest.raises(BadInputError):
        BuildRequest(**{**GOOD, "src": src})


@pytest.mark.parametrize("ref", ["main", "A" * 40, "a" * 39, "a" * 41, "a" * 40 + "\n", "-" + "a" * 39])
def test_a_ref_is_a_whole_commit(ref: str) -> None:
    with pytest.raises(BadInputError):
        BuildRequest(**{**GOOD, "ref": ref})


def test_what_drone_calls_final_is_final() -> None:
    final = {status.value for status in BuildStatus if status.is_final}

    assert final == {"skipped", "declined", "success", "failure", "killed", "error"}


@pytest.mark.anyio
async def test_a_build_is_found_behind_pages_of_newer_ones(make_world: MakeWorld) -> None:
    world = make_world()
    world.boot()
    for number in range(250):
        world.drone.make({"COMMENT": str(number + 1)} if number % 2 else {})

    found = await world.bridge.drone.find(8, newer_than=0)
    too_old = await world.bridge.drone.find(8, newer_than=8)

    assert found is not None
    assert found.number == 8
    assert too_old is None


@pytest.mark.anyio
async def test_a_disk_that_is_full_starts_nothing_and_recovers(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    comment = world.testme()
    await world.bridge.poller.cycle()
    database = world.bridge.triggers._db
    database.execute("PRAGMA query_only = ON")
    for _ in range(3):
        world.clock.advance(10)
        with contextlib.suppress(StoreError):
            await world.bridge.worker.tick()
    assert world.drone.builds == {}
    database.execute("PRAGMA query_only = OFF")
    world.clock.advance(60)

    await world.go(60)

    assert len(world.drone.of_comment(comment.id)) == 1
