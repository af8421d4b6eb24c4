"""Drone's builds: read in pages, joined, and never trusted."""

import asyncio

import httpx
import pytest

from dashboard.builds import Drone
from tests.dashboard.drone import FakeDrone


@pytest.fixture
def drone():
    return FakeDrone()


def ask(fake, times=1):
    async def run():
        async with httpx.AsyncClient(transport=fake.transport, base_url="http://drone.test") as client:
            found = Drone(client, "coop-cloud/recipe-ci")
            for _ in range(times):
                await found.refresh()
            return found

    return asyncio.run(run())


def test_reads_on_only_while_the_queue_reaches_into_the_next_page(drone):
    for number in range(1, 251):
        drone.add(number, "success" if number <= 120 else "pending", recipe="hedgedoc")

    found = ask(drone)

    assert len(drone.requests) == 3
    assert [build.number for build in found.builds] == list(range(250, 0, -1))
    assert found.problem == ""


def test_one_page_is_enough_when_everything_in_it_has_ended(drone):
    for number in range(1, 251):
        drone.add(number, "success", recipe="hedgedoc")

    ask(drone)

    assert len(drone.requests) == 1


def test_an_unknown_word_is_not_final(drone):
    known = "skipped blocked declined waiting_on_dependencies pending running success failure killed error"
    for number, status in enumerate([*known.split(), "levitating", ""], start=1):
        drone.add(number, status, recipe="hedgedoc")

    final = {build.status for build in ask(drone).builds if build.final}

    assert final == {"skipped", "declined", "success", "failure", "killed", "error"}


@pytest.mark.parametrize("body", [b"null", b"{}", b"<html>", b"[[", b"x" * 5_000_000, b'"text"'])
def test_an_answer_that_cannot_be_used_leaves_what_was_known(drone, body):
    drone.add(1, "pending", recipe="hedgedoc")

    async def run():
        async with httpx.AsyncClient(transport=drone.transport, base_url="http://drone.test") as client:
            found = Drone(client, "coop-cloud/recipe-ci")
            await found.refresh()
            drone.body = body
            await found.refresh()
            return found

    found = asyncio.run(run())

    assert [build.number for build in found.builds] == [1]
    assert found.problem.startswith("Drone does not answer")


def test_rows_of_any_shape_are_taken_or_left(drone):
    drone.builds = [
        {"number": "7", "status": "pending"},
        {"number": 6},
        {"number": 5, "status": 5, "params": [], "created": -1, "started": "x", "finished": 10**30},
        {"number": 4, "status": "pending", "params": {"RECIPE": "<script>", "REF": 5, "PR": None}, "event": "custom"},
        {"number": 3, "status": "success", "event": "push"},
        None,
        [],
    ]

    found = ask(drone)

    assert [(build.number, build.recipe) for build in found.builds] == [(6, ""), (5, ""), (4, "")]


def test_unchanged_builds_are_no_change(drone):
    drone.add(1, "pending", recipe="hedgedoc")

    assert ask(drone, times=3).version == 1
