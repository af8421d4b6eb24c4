from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.api import ApiError
from bridge.app import build_bridge
from bridge.triggers import State, Triggers
from tests.bridge.world import REPO, World, make_settings
from tests.fakes import FakeClock, FakeDrone, FakeGitea, transport

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., World]


async def test_an_idle_cycle_is_one_request(make_world: MakeWorld) -> None:
    world = make_world(poll_repos=tuple(f"coop-cloud/recipe-{n}" for n in range(200)))
    for number in range(200):
        world.gitea.add_pull(f"coop-cloud/recipe-{number}")
    world.clock.advance(600)
    await world.begin()
    await world.turn()
    asked = world.gitea.asked.total()

    world.clock.advance(25)
    await world.turn()

    assert world.gitea.asked.total() - asked == 1


async def test_only_what_changed_is_read(make_world: MakeWorld) -> None:
    world = make_world(poll_repos=tuple(f"coop-cloud/recipe-{n}" for n in range(50)))
    for number in range(50):
        world.gitea.add_pull(f"coop-cloud/recipe-{number}")
    world.clock.advance(600)
    await world.begin()
    before = world.gitea.asked["GET /api/vN/repos/coop-cloud/recipe-N/issues/comments"]
    world.testme(repo="coop-cloud/recipe-7")

    await world.turn()

    assert world.gitea.asked["GET /api/vN/repos/coop-cloud/recipe-N/issues/comments"] - before == 1


async def test_more_than_a_page_of_comments_and_pulls_is_read(make_world: MakeWorld) -> None:
    world = make_world(limit_user_hour=1000, limit_repo_hour=1000, limit_active=1000)
    for number in range(2, 56):
        world.gitea.add_pull(REPO, number)
    await world.begin()
    for number in range(1, 56):
        world.gitea.say(REPO, number, "nice")
        world.testme(number)

    await world.go(60)

    assert len(world.drone.builds) == 55


async def test_huge_comments_cost_no_memory_and_hide_no_command(make_world: MakeWorld) -> None:
    world = make_world(response_limit=200_000)
    await world.begin()
    for _ in range(3):
        world.gitea.say(REPO, 1, "x" * 300_000)
    for _ in range(60):
        world.gitea.say(REPO, 1, "y" * 30_000)
    world.testme()
    world.gitea.say(REPO, 1, "!testme " + "z" * 300_000)

    await world.go(30)

    assert len(world.drone.builds) == 1


async def test_a_server_with_smaller_pages_is_read_to_the_end(make_world: MakeWorld, monkeypatch: Any) -> None:
    world = make_world()
    await world.begin()
    page = FakeGitea._page

    def small(self: FakeGitea, request: httpx.Request, rows: list[Any]) -> httpx.Response:
        limit = min(7, int(request.url.params.get("limit") or 7))
        return page(self, httpx.Request("GET", request.url.copy_set_param("limit", limit)), rows)

    monkeypatch.setattr(FakeGitea, "_page", small)
    for _ in range(33):
        world.gitea.say(REPO, 1, "nice")
    world.testme()

    await world.go(20)

    assert len(world.drone.builds) == 1


async def test_a_slow_repository_does_not_delay_the_others(tmp_path: Path) -> None:
    clock, never = FakeClock(), asyncio.Event()
    gitea, drone = FakeGitea(clock), FakeDrone(clock)
    for name in ("slow", "quick"):
        gitea.add_pull(f"coop-cloud/{name}")
    carried = transport(forge=gitea, drone=drone)

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/coop-cloud/slow/issues/comments"):
                await never.wait()
            return await carried.handle_async_request(request)

    settings = make_settings(
        tmp_path,
        poll_repos=("coop-cloud/slow", "coop-cloud/quick"),
        poll_interval=0.1,
        settle=0.0,
        results_dir=Path("none"),
    )
    triggers = Triggers(settings.database)
    async with httpx.AsyncClient(transport=Slow()) as client:
        bridge = build_bridge(settings, client=client, clock=clock, triggers=triggers)
        await bridge.poller.cycle()
        clock.advance(100)
        gitea.say("coop-cloud/slow", 1, "!testme")
        await bridge.poller.cycle()
        gitea.say("coop-cloud/quick", 1, "!testme")
        await bridge.poller.cycle()
        await bridge.worker.tick()

        assert [build["params"]["RECIPE"] for build in drone.builds.values()] == ["quick"]
        never.set()
        await bridge.poller.settle()
        await bridge.worker.tick()
        assert len(drone.builds) == 2
    triggers.close()


async def test_a_repository_that_fails_is_left_alone_longer_and_longer(make_world: MakeWorld) -> None:
    world = make_world(poll_repos=(REPO, "coop-cloud/other"))
    world.gitea.add_pull("coop-cloud/other")
    await world.begin()
    world.gitea.fault = lambda _method, path: "500" if "/other/issues/comments" in path else None
    world.gitea.say("coop-cloud/other", 1, "!testme")
    await world.go(600, step=25)
    asked = world.gitea.asked["GET /api/vN/repos/coop-cloud/other/issues/comments"]
    assert 3 <= asked <= 8
    world.gitea.fault = lambda _method, _path: None

    await world.go(400, step=25)

    assert len(world.drone.builds) == 1


async def test_a_forge_without_the_search_is_asked_repository_by_repository(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.fault = lambda _method, path: "404" if path.endswith("/issues/search") else None
    await world.begin()
    world.testme()

    await world.go(30)

    assert len(world.drone.builds) == 1


@pytest.mark.parametrize("jump", [-86_400, -3600, 3600, 86_400])
async def test_a_jump_of_our_clock_loses_no_comment(make_world: MakeWorld, jump: float) -> None:
    world = make_world()
    world.gitea.clock = world.drone.clock = clock = FakeClock()
    await world.begin()
    world.clock.jump(jump)
    clock.advance(10)
    world.testme()

    await world.go(30)

    assert len(world.drone.builds) == 1


async def test_a_forge_whose_clock_goes_back_loses_no_comment(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.add_pull(REPO, 2)
    world.gitea.clock = clock = FakeClock()
    await world.begin()
    clock.advance(60)
    world.testme(1)
    await world.go(10)
    clock.jump(-3600)
    await world.turn()
    clock.advance(30)
    world.testme(2)

    await world.go(30)

    assert len(world.drone.builds) == 2


async def test_enrolment_follows_topics_and_the_file_without_a_restart(make_world: MakeWorld, tmp_path: Path) -> None:
    file = tmp_path / "repos"
    file.write_text("# none yet\n")
    world = make_world(poll_repos=(), poll_repos_file=file, poll_orgs=("coop-cloud",), enrol_interval=60.0)
    for name in ("by-topic", "by-file", "never"):
        world.gitea.add_pull(f"coop-cloud/{name}")
    await world.begin()
    world.gitea.repos["coop-cloud/by-topic"].topics.append("coopcloud-ci")
    file.write_text("coop-cloud/by-file  # this one\nnot a repository\n")
    await world.go(120, step=20)
    for name in ("by-topic", "by-file", "never"):
        world.testme(repo=f"coop-cloud/{name}")

    await world.go(30)

    assert {build["params"]["RECIPE"] for build in world.drone.builds.values()} == {"by-topic", "by-file"}


async def test_an_organisation_that_cannot_be_listed_does_not_stop_the_rest(make_world: MakeWorld) -> None:
    world = make_world(poll_orgs=("coop-cloud",))
    world.gitea.fault = lambda _method, path: "500" if path.endswith("/repos/search") else None
    await world.begin()
    world.testme()

    await world.go(30)

    assert len(world.drone.builds) == 1


async def test_deleted_while_read_is_read_again(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    for _ in range(60):
        last = world.gitea.say(REPO, 1, "nice")
    world.clock.advance(1)
    world.testme()
    pages: list[int] = []

    def between(_method: str, path: str) -> str | None:
        if path.endswith("/issues/comments"):
            pages.append(1)
            if len(pages) == 2:
                for key in list(world.gitea.repos[REPO].comments)[:15]:
                    world.gitea.delete(REPO, key)
        return None

    world.gitea.fault = between

    await world.go(60)

    assert last is not None
    assert len(world.drone.builds) == 1


def _held() -> int:
    """Bytes that code of the bridge holds."""
    code = str(Path(__file__).parents[2] / "bridge")
    statistics = tracemalloc.take_snapshot().statistics("filename")
    return sum(one.size for one in statistics if one.traceback[0].filename.startswith(code))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "cycles",
    [
        12,
        pytest.param(
            1000,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(os.environ.get("COOPCLOUD_SOAK") != "1", reason="COOPCLOUD_SOAK=1 asks for it"),
            ],
        ),
    ],
)
async def test_two_hundred_repositories_take_no_time_and_no_memory(make_world: MakeWorld, cycles: int) -> None:
    """Each cycle ten repositories get a comment, and one a `!testme` that runs to its end."""
    names = [f"coop-cloud/recipe-{number}" for number in range(200)]
    world = make_world(poll_repos=tuple(names), limit_user_hour=10**6, limit_repo_hour=10**6)
    world.drone.instantly = "success"
    for name in names:
        world.gitea.add_pull(name)
    world.clock.advance(600)
    await world.begin()
    times: list[float] = []
    levels: list[int] = []
    tracemalloc.start()
    try:
        for cycle in range(cycles):
            for offset in range(10):
                world.gitea.say(names[(cycle * 10 + offset) % 200], 1, "nice")
            world.gitea.say(names[cycle % 200], 1, "!testme")
            world.clock.advance(25)
            began = time.perf_counter()
            await world.bridge.poller.cycle()
            times.append(time.perf_counter() - began)
            await world.bridge.worker.tick()
            # The doubles must not be what grows.
            world.drone.builds = dict(list(world.drone.builds.items())[-20:])
            for name in names:
                comments = world.gitea.repos[name].comments
                for key in list(comments)[:-12]:
                    del comments[key]
                world.gitea.repos[name].statuses.clear()
            world.gitea.posts.clear()
            world.gitea.edits.clear()
            if cycle % (cycles // 6) == cycles // 6 - 1:
                gc.collect()
                levels.append(_held())
    finally:
        tracemalloc.stop()

    print(f"{cycles} cycles: longest {max(times):.3f} s, memory of bridge/ {levels}, resident {_resident() >> 20} MiB")
    assert max(times) < 2.0
    assert levels[-1] < levels[1] * 1.25 + 50_000


async def test_the_loop_wakes_at_its_interval_and_stops_when_told(make_world: MakeWorld) -> None:
    world = make_world()
    world.boot()
    stopping = asyncio.Event()
    loops = [
        asyncio.create_task(world.bridge.poller.run(stopping)),
        asyncio.create_task(world.bridge.worker.run(stopping)),
    ]
    await _until_asleep(world)
    comment = world.testme()
    for _ in range(20):
        world.clock.advance(2)
        await _until_asleep(world)

    assert len(world.drone.of_comment(comment.id)) == 1
    assert world.row(comment).state is State.TRIGGERED
    stopping.set()
    world.bridge.worker.wake.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*loops)


async def _until_asleep(world: World) -> None:
    """Let the loops run until both wait for the clock."""
    for _ in range(400):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while len(world.clock._sleepers) < 2:
            await asyncio.sleep(0)


async def test_starts_with_the_forge_and_drone_away(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.down = world.drone.down = True
    world.boot()
    with contextlib.suppress(ApiError):
        await world.turn()
    health = world.bridge.health()
    assert health["status"] == "degraded"
    assert "refused" in health["forge"]
    world.gitea.down = world.drone.down = False
    world.clock.advance(100)
    await world.turn()
    world.clock.advance(5)
    world.testme()

    await world.go(30)

    assert len(world.drone.builds) == 1
