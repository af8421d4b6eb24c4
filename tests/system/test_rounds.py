"""From a comment to a verdict in the same comment, and what such a path meets in life."""

import os
import statistics
import time

import httpx
import pytest

from lab import control, processes, rounds, samples
from lab.gitea import push
from lab.samples import git
from lab.state import CI_REPO, ORG
from tests.system.waits import HELLO, QUICK, TIMEOUT, answers, await_answer, await_run, await_status, build_of, finished


@pytest.fixture
def pull(lab, forge, tmp_path):
    """Open a pull request of a new branch of `hello`; return it, and what pushes another commit to it."""
    name = f"branch-{tmp_path.name[-20:].replace('_', '-')}"
    folder = tmp_path / "hello"
    git(tmp_path, "clone", "--quiet", str(samples.recipe_path("hello")), str(folder))

    def change(text, *, amend=False):
        (folder / "README.md").write_text(text)
        git(folder, "add", "README.md")
        identity = ("-c", "user.name=Maya", "-c", "user.email=maya@lab.example")
        git(folder, *identity, "commit", "--quiet", "-m", text, *(["--amend"] if amend else []))
        push(lab, folder, HELLO, f"+HEAD:refs/heads/{name}", by="maya")
        return git(folder, "rev-parse", "HEAD")

    change("one")
    made = forge.ensure_pull(HELLO, by="maya", branch=name, title=name)
    forge.let_pass(1.0)
    yield made, change
    forge.call("PATCH", f"/repos/{HELLO}/pulls/{made['number']}", json={"state": "closed"})


def test_comment_becomes_a_verdict(lab, forge, drone, guarantees):
    comment = guarantees.ask(forge, "hello")
    seen = answers(forge, lab, comment)

    build = build_of(drone, comment)
    assert seen[-1].passed, seen[-1].text
    assert any(answer.text.startswith("### 🔄 running") for answer in seen)
    assert build["status"] == "success"
    await_status(forge, HELLO, build["params"]["REF"], "success")
    run = next(word for word in seen[-1].text.split("/run/")[1].split(")"))
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{lab.url('dashboard')}/run/{run}").status_code == 200


def test_upgrade_that_loses_data_is_named_with_its_cause(lab, forge, drone, guarantees):
    pull = samples.open_pull(lab, forge, "guestbook", "upgrade-drops-table")
    comment = guarantees.ask(forge, "guestbook", text="!testme stages=upgrade", number=pull["number"])

    last = answers(forge, lab, comment, recipe="guestbook", number=pull["number"])[-1]

    assert last.text.startswith("### ❌ failed"), last.text
    assert "**First cause**, stage `upgrade" in last.text
    assert build_of(drone, comment)["status"] == "failure"
    await_status(forge, f"{ORG}/guestbook", pull["head"]["sha"], "failure")


def test_comments_that_must_not_start_anything(lab, forge, drone):
    number = lab.pulls["hello"]
    issue = forge.call("POST", f"/repos/{HELLO}/issues", by="maya", json={"title": "a plain issue"})["number"]
    before = {build["number"] for build in drone.builds()}
    silent = {
        rounds.ask(forge, HELLO, where, text=text, by=by)
        for where, text, by in (
            (number, "> !testme", "maya"),
            (number, "```\n!testme\n```", "maya"),
            (number, "!testmex", "maya"),
            (number, "please !testme this", "maya"),
            (number, "<!-- !testme -->", "maya"),
            (number, "!testme", rounds.BOT),
            (issue, "!testme", "maya"),
        )
    }
    edited = rounds.ask(forge, HELLO, number, text="looks good")
    # An edit in the second in which the comment was made cannot be told from the comment.
    forge.let_pass(0.0)
    forge.call("PATCH", f"/repos/{HELLO}/issues/comments/{edited}", by="maya", json={"body": "!testme"})
    refused = rounds.ask(forge, HELLO, number, by="sam")
    unknown = rounds.ask(forge, HELLO, number, text="!testme now please", by="maya")

    assert "Only members of `recipe-maintainers`" in answers(forge, lab, refused)[-1].text
    assert "is not understood" in answers(forge, lab, unknown)[-1].text
    # Two whole polls have gone by when this one, later than all, is answered and asked for again.
    for _ in range(2):
        answers(forge, lab, rounds.ask(forge, HELLO, number, text="!testme help"))
    assert {build["number"] for build in drone.builds()} == before
    for comment in {*silent, edited}:
        assert rounds.answer_to(forge, HELLO, number, comment) is None


def test_member_who_was_removed_is_a_stranger_at_once(lab, forge, drone):
    forge.ensure_team(ORG, "guests", permission="write", members=["sam"], repos=["hello"])
    forge.call("DELETE", f"/orgs/{ORG}/members/sam")

    comment = rounds.ask(forge, HELLO, lab.pulls["hello"], by="sam", text=QUICK)
    later = rounds.ask(forge, HELLO, lab.pulls["hello"], text="!testme help")

    answers(forge, lab, later)
    assert build_of(drone, comment) is None


@pytest.mark.parametrize(
    "change",
    [
        {"RECIPE": "x; touch /tmp/pwned"},
        {"RECIPE": "../../etc"},
        {"RECIPE": "a\nb"},
        {"RECIPE": "$(touch /tmp/pwned)"},
        {"RECIPE": "x" * 5000},
        {"REF": "--upload-pack=touch /tmp/pwned"},
        {"SRC": "http://169.254.169.254/x"},
        {"DOCKER_HOST": "tcp://127.0.0.1:1"},
        {"GIT_SSH_COMMAND": "touch /tmp/pwned"},
        {"COOPCLOUD_FORGE_URL": "http://127.0.0.1:1"},
        {"PR": ""},
    ],
    ids=lambda change: "-".join(f"{name}={value[:20]!r}" for name, value in change.items()),
)
def test_hostile_parameters_straight_to_drone_are_refused(lab, drone, change):
    good = {"RECIPE": "hello", "REF": "0" * 40, "PR": "1", "SRC": HELLO, "COMMENT": ""}
    runs = lab.state / "runs"
    before = sorted(path.name for path in runs.iterdir())

    build = finished(drone, drone.create({**good, **change})["number"])

    step = build["stages"][0]["steps"][-1]
    said = drone.log(build["number"]).splitlines()
    assert (step["name"], step["exit_code"]) == ("test", 2)
    assert len([line for line in said if line.startswith("coopcloud-ci: refused: ")]) == 1, said
    assert sorted(path.name for path in runs.iterdir()) == before
    assert not os.path.lexists("/tmp/pwned")


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME", "BASH_ENV"])
def test_parameter_cannot_put_another_program_in_front_of_ours(drone, tmp_path, name):
    good = {"RECIPE": "../../etc", "REF": "0" * 40, "PR": "1", "SRC": HELLO}
    (tmp_path / "python3").write_text(f"#!/bin/sh\necho taken over\ntouch {tmp_path}/owned\n")
    (tmp_path / "python3").chmod(0o755)

    build = finished(drone, drone.create({**good, name: f"{tmp_path}:{os.environ['PATH']}"})["number"])

    assert "coopcloud-ci: refused: '../../etc' is no recipe name" in drone.log(build["number"])
    assert not (tmp_path / "owned").exists()


def test_commit_of_the_comment_is_tested_though_another_is_pushed(lab, forge, drone, guarantees, pull):
    made, change = pull
    processes.stop(lab, "runner")
    try:
        comment = guarantees.ask(forge, "hello", text=QUICK, number=made["number"])
        for answer in rounds.follow(forge, HELLO, made["number"], comment, timeout=TIMEOUT):
            if answer.text.startswith("### 🕓 queued"):
                break
        # The commit that was asked for is on no branch any more.
        newer = change("two", amend=True)
    finally:
        control.restart(lab, "runner")

    last = answers(forge, lab, comment, number=made["number"])[-1]

    assert newer != made["head"]["sha"]
    assert build_of(drone, comment)["params"]["REF"] == made["head"]["sha"]
    assert last.passed, last.text


def test_comment_made_while_the_bridge_was_away_is_run(lab, forge, drone, guarantees):
    processes.stop(lab, "bridge")
    try:
        comment = guarantees.ask(forge, "hello", text=QUICK)
    finally:
        control.restart(lab, "bridge")

    assert answers(forge, lab, comment)[-1].passed


def test_bridge_that_is_killed_goes_on_where_it_was(lab, forge, drone, guarantees):
    comment = guarantees.ask(forge, "hello", text=QUICK)
    for beginning in ("### 🕓 queued", "### 🔄 running"):
        answer = await_answer(forge, lab, comment, (beginning, "### 🔄 running"))
        processes.kill(lab, "bridge")
        control.restart(lab, "bridge")
        if answer.text.startswith("### 🔄 running"):
            break

    assert answers(forge, lab, comment)[-1].passed


def test_comment_waits_while_drone_is_away(lab, forge, drone, guarantees):
    processes.stop(lab, "drone")
    try:
        comment = guarantees.ask(forge, "hello", text=QUICK)
        await_answer(forge, lab, comment, "### ⏳ waiting")
    finally:
        control.restart(lab, "drone")

    assert answers(forge, lab, comment)[-1].passed


def test_build_that_is_killed_in_drone_leaves_nothing_and_says_so(lab, forge, drone, guarantees):
    comment = guarantees.ask(forge, "hello", text=QUICK)
    await_run(lab, comment, "install")

    drone.call("DELETE", f"/repos/{CI_REPO}/builds/{build_of(drone, comment)['number']}")

    last = answers(forge, lab, comment)[-1]
    assert last.text.startswith("### ❌ killed"), last.text


def test_maintainer_cancels(lab, forge, drone, guarantees):
    comment = guarantees.ask(forge, "hello", text=QUICK)
    await_run(lab, comment, "install")

    guarantees.ask(forge, "hello", text="!testme cancel")

    last = answers(forge, lab, comment)[-1]
    assert last.text.startswith("### ❌ cancelled"), last.text
    assert build_of(drone, comment)["status"] == "killed"


@pytest.mark.skipif(not os.environ.get("COOPCLOUD_SOAK"), reason="a sweep: COOPCLOUD_SOAK=1")
def test_twenty_comments_reach_drone_soon(lab, forge, drone, guarantees, record_testsuite_property):
    waits = []
    for _ in range(20):
        began = time.monotonic()
        comment = guarantees.ask(forge, "hello", text=QUICK)
        while (build := build_of(drone, comment)) is None:
            assert time.monotonic() - began < 60.0
            time.sleep(0.02)
        waits.append(time.monotonic() - began)
        drone.client.delete(f"/repos/{CI_REPO}/builds/{build['number']}")
        answers(forge, lab, comment)
    record_testsuite_property("comment_to_build_seconds_p50", round(statistics.median(waits), 2))
    record_testsuite_property("comment_to_build_seconds_p95", round(sorted(waits)[18], 2))

    assert sorted(waits)[18] < 10.0


def test_runner_that_is_killed_leaves_nothing_and_the_next_comment_runs(lab, forge, drone, guarantees):
    comment = guarantees.ask(forge, "hello", text=QUICK)
    await_run(lab, comment, "install")
    processes.kill(lab, "runner")
    try:
        last = answers(forge, lab, comment)[-1]
    finally:
        control.restart(lab, "runner")
    again = guarantees.ask(forge, "hello", text=QUICK)

    assert not last.passed
    assert answers(forge, lab, again)[-1].passed
