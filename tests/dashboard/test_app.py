"""The pages and addresses, through the ASGI client."""

import json
import os
import re
import xml.etree.ElementTree as ET

import pytest

from pytest_coopcloud.results import read_result, write_result
from tests.dashboard.conftest import NOW
from tests.dashboard.runs import Kind, make_result, make_run, mixed_states


def test_front_page_says_it_in_one_sentence(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 5000)
    make_run(runs, "cryptpad", kind=Kind.FAILED, started_at=NOW - 4000, pr="7")

    page = client().get("/").text

    assert "1 of 2 recipes fails" in page
    assert "failed in upgrade:" in page
    assert 'href="https://git.example.org/coop-cloud/cryptpad/pulls/7"' in page
    assert page.index("/recipe/cryptpad") < page.index("/recipe/hedgedoc")


def test_front_page_without_a_run_says_how_to_start(client):
    page = client().get("/").text

    assert "No run yet" in page
    assert "!testme" in page


def test_front_page_filters_searches_and_sorts(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 5000)
    make_run(runs, "cryptpad", kind=Kind.FAILED, started_at=NOW - 4000)
    ask = client()

    def recipes(query):
        return re.findall(r'<a href="/recipe/([a-z]+)">', ask.get(f"/?{query}").text)

    assert recipes("verdict=pass") == ["hedgedoc"]
    assert recipes("verdict=fail") == ["cryptpad"]
    assert recipes("q=HEDGE") == ["hedgedoc"]
    assert recipes("q=nothing") == []
    assert recipes("sort=name") == ["cryptpad", "hedgedoc"]
    assert sorted(recipes("sort=bogus&verdict=bogus")) == ["cryptpad", "hedgedoc"]
    assert recipes("sort=newest") == ["cryptpad", "hedgedoc"]


def test_front_page_shows_what_runs_and_what_waits(runs, client, drone):
    make_run(runs, "hedgedoc", started_at=NOW - 100_000, number=1)
    make_run(runs, "hedgedoc", kind=Kind.RUNNING, started_at=NOW - 60, build=11, number=2)
    drone.add(11, "running", recipe="hedgedoc")
    drone.add(12, "pending", recipe="cryptpad", pr="9")
    drone.add(13, "a word of the future", recipe="ghost")
    ask = client(with_drone=True)
    ask.ask_drone()

    page = ask.get("/").text

    assert "running" in page
    assert page.index("cryptpad") < page.index("ghost")
    assert "build 12" in page
    assert re.search(r"begins in about \d", page)
    assert 'content="10"' in page


def test_builds_that_left_no_result_are_listed(runs, client, drone):
    make_run(runs, "hedgedoc", started_at=NOW - 9000, build=1)
    drone.add(1, "success", recipe="hedgedoc", finished=int(NOW - 8000))
    drone.add(2, "killed", recipe="ghost", pr="4", finished=int(NOW - 7000))
    drone.add(3, "error", finished=int(NOW - 6000), error="yaml: <script>line 3")
    drone.add(4, "failure", recipe="old", finished=int(NOW - 90 * 86400))
    ask = client(with_drone=True)
    ask.ask_drone()

    page = ask.get("/").text

    assert "Builds without a result" in page
    assert "cancelled or out of time" in page
    assert "yaml: &lt;script&gt;line 3" in page
    assert "build 1<" not in page
    assert "build 4<" not in page


def test_drone_away_is_said_and_the_page_stands(runs, client, drone):
    make_run(runs, "hedgedoc", started_at=NOW - 9000)
    drone.status = 502
    ask = client(with_drone=True)
    ask.ask_drone()

    page = ask.get("/").text

    assert "Drone does not answer: status 502" in page
    assert "The recipe passes" in page
    assert ask.get("/healthz").status_code == 200


def test_recipe_page(runs, client):
    for number in range(1, 4):
        make_run(runs, "hedgedoc", number=number, started_at=NOW - 90_000 * (4 - number), files=False)

    page = client(public_url="https://ci.example.org").get("/recipe/hedgedoc").text

    assert "[![hedgedoc](https://ci.example.org/badge/hedgedoc.svg)](https://ci.example.org/recipe/hedgedoc)" in page
    assert "1.3.0+2.3.1" in page
    assert page.count('class="bar"') == 18
    assert "Mean time of a pass" in page


def test_flake_rate_counts_commits_that_said_both(runs, client):
    for number, kind in enumerate((Kind.PASSED, Kind.FAILED, Kind.PASSED)):
        result = make_result("hedgedoc", kind=kind, started_at=NOW - 9000 + number, token=f"00000{number}")
        result.ref = "ab" * 20 if number < 2 else "cd" * 20
        (runs / result.run_id).mkdir()
        write_result(result, runs / result.run_id)

    assert "100 % <small>(1 of 1 commits)" in client().get("/recipe/hedgedoc").text


def test_run_page_says_all_of_a_run(runs, client):
    result = make_run(runs, "hedgedoc", kind=Kind.FAILED, started_at=NOW - 5000, build=77, pr="3")
    ask = client()

    page = ask.get(f"/run/{result.run_id}").text

    for expected in (
        "failed in upgrade",
        "column notes.alias does not exist",
        result.command,
        "test_mail_is_sent",
        "502 Bad Gateway",
        "sha256:",
        f"/run/{result.run_id}/log/artifacts/app.log",
        f'src="/run/{result.run_id}/file/artifacts/upgrade.png"',
        f"/run/{result.run_id}/report",
        f"/run/{result.run_id}/file/results.json",
        f"/run/{result.run_id}/file/junit.xml",
    ):
        assert expected in page
    assert ask.get("/build/77", follow_redirects=False).headers["location"] == f"/run/{result.run_id}"


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_run_has_its_pages(runs, client, kind):
    result = make_run(runs, "hedgedoc", kind=kind, started_at=NOW - 500)
    ask = client()

    for address in ("/", "/recipe/hedgedoc", f"/run/{result.run_id}", "/feed.atom", "/metrics", "/api/overview"):
        assert ask.get(address).status_code == 200


def test_a_running_run_reloads_without_scripts_and_a_finished_one_does_not(runs, client):
    running = make_run(runs, "hedgedoc", kind=Kind.RUNNING, started_at=NOW - 60)
    passed = make_run(runs, "cryptpad", started_at=NOW - 600)
    _touch(runs, running.run_id, NOW - 5)
    ask = client()

    assert '<noscript><meta http-equiv="refresh"' in ask.get(f"/run/{running.run_id}").text
    assert 'http-equiv="refresh"' not in ask.get(f"/run/{passed.run_id}").text


def test_a_run_that_says_nothing_any_more_is_not_called_running(runs, client):
    result = make_run(runs, "hedgedoc", kind=Kind.RUNNING, started_at=NOW - 90_000)
    _touch(runs, result.run_id, NOW - 80_000)
    ask = client()

    assert "it says nothing any more" in ask.get(f"/run/{result.run_id}").text
    assert ask.get("/api/overview").json()["running"] == []
    assert ask.get("/api/recipes/hedgedoc").json()["state"] == "unverified"


def _touch(runs, run_id, when):
    os.utime(runs / run_id / "results.json", (when, when))


def test_api_answers_the_same_as_the_pages(runs, client):
    result = make_run(runs, "hedgedoc", kind=Kind.FAILED, started_at=NOW - 5000)
    ask = client()

    assert ask.get("/api/recipes").json()[0]["latest"]["headline"] == "failed in upgrade"
    assert ask.get("/api/recipes/hedgedoc").json()["trend"] == ["fail"]
    assert ask.get("/api/runs?recipe=hedgedoc&limit=1").json()[0]["run_id"] == result.run_id
    assert ask.get("/api/runs/" + result.run_id).json() == json.loads(result.model_dump_json())
    assert ask.get("/api/runs?limit=0").status_code == 422
    assert ask.get("/api/recipes/none").json() == {"detail": "No run of this recipe is known."}
    schema = ask.get("/openapi.json").json()
    page = ask.get("/api").text
    for path in schema["paths"]:
        assert path in page


def test_feed_lists_changes_of_verdicts_only(runs, client):
    for number, kind in enumerate((Kind.PASSED, Kind.PASSED, Kind.FAILED, Kind.FAILED, Kind.PASSED)):
        make_run(runs, "hedgedoc", kind=kind, number=number, started_at=NOW - 90_000 + number * 1000, files=False)
    make_run(runs, "hedgedoc", kind=Kind.FAILED, number=9, started_at=NOW - 500, pr="5", files=False)

    feed = ET.fromstring(client().get("/feed.atom").content)

    titles = [one.text for one in feed.iter("{http://www.w3.org/2005/Atom}title")][1:]
    assert [title.partition(": ")[2] for title in titles] == [
        "passed, it was failed",
        "failed in upgrade, it was passed",
        "passed, its first run",
    ]


def test_metrics(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 5000)

    text = client().get("/metrics").text

    assert 'coopcloud_recipe_level{recipe="hedgedoc"} 5.0' in text
    assert 'coopcloud_recipe_passed{recipe="hedgedoc"} 1.0' in text
    assert "coopcloud_runs 1.0" in text


def test_healthz_says_when_the_folder_is_gone(runs, client):
    ask = client()
    assert ask.get("/healthz").text == "ok\n"

    runs.rmdir()
    ask.app.state.store.refresh_now()

    assert ask.get("/healthz").status_code == 503
    assert "cannot be read" in ask.get("/").text


def test_head_is_get_without_a_body(runs, client):
    make_run(runs, "hedgedoc", started_at=NOW - 5000, files=False)

    for address in ("/", "/badge/hedgedoc.svg", "/healthz"):
        answer = client().request("HEAD", address)
        assert answer.status_code == 200
        assert answer.content == b""


def test_forty_recipes_in_mixed_states(runs, client):
    made = mixed_states(runs, NOW)
    for result in made:
        _touch(runs, result.run_id, min(result.finished_at or NOW - 5, NOW))

    page = client().get("/").text

    assert page.count('<tr class="recipe ') == 40
    assert re.search(r"\d+ of 40 recipes fail", page)
    assert read_result(runs / made[0].run_id / "results.json") == made[0]
