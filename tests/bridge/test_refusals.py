"""Comments that must start nothing, each with its answer or its silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.triggers import State
from tests.bridge.world import REPO, World
from tests.fakes import FakeComment

pytestmark = pytest.mark.anyio

MakeWorld = Callable[..., World]


@dataclass
class Case:
    """A comment, what happens to it before it is looked at, and words of the answer (none: silence)."""

    name: str
    body: str = "!testme"
    user: int = 2
    answer: str = ""
    before: Callable[[World], object] = lambda _world: None
    after: Callable[[World, FakeComment], object] = lambda _world, _comment: None
    more: dict[str, Any] = field(default_factory=dict)


def _edit_in(world: World, comment: FakeComment) -> None:
    world.clock.advance(2)
    world.gitea.edit(REPO, comment, "!testme")


def _set(name: str, value: object) -> Callable[[World], object]:
    return lambda world: setattr(world.gitea.repos[REPO].pulls[1], name, value)


CASES = [
    Case("quoted", "> !testme"),
    Case("quoted and continued", "> as he said\n!testme"),
    Case("code block", "```\n!testme\n```"),
    Case("tilde block", "~~~\n!testme\n~~~"),
    Case("indented code", "see:\n\n    !testme"),
    Case("code span", "`!testme`"),
    Case("inside a word", "!testmex"),
    Case("inside a sentence", "please !testme"),
    Case("html comment", "<!--\n!testme\n-->"),
    Case("list", "- !testme"),
    Case("upper case", "!TESTME"),
    Case("zero-width space in front", "\u200b!testme"),
    Case("edited in", "nothing", after=_edit_in),
    Case("edited in by somebody else", "old text", after=_edit_in),
    Case("deleted", after=lambda world, comment: world.gitea.delete(REPO, comment.id)),
    Case("closed pull request", before=_set("state", "closed")),
    Case("merged pull request", before=_set("merged", True)),
    Case("plain issue", before=_set("is_pull", False)),
    Case("our own", user=1),
    Case("ghost", user=77),
    Case("imported", more={"original_author": "alice"}),
    Case("a bot", user=3),
    Case("not a member", user=4, answer="Only members of `recipe-maintainers`"),
    Case("a member no more", before=lambda w: w.gitea.members["recipe-maintainers"].discard(2), answer="Only members"),
    Case("unknown word", "!testme pretty please", answer="`pretty please` is not understood"),
    Case("unknown stage", "!testme stages=teardown", answer="is not understood"),
    Case("help", "!testme help", answer="stages=install,upgrade"),
    Case("nothing to cancel", "!testme cancel", answer="no test of this pull request to cancel"),
]


@pytest.mark.parametrize("how", ["poll", "webhook"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_starts_nothing(make_world: MakeWorld, case: Case, how: str) -> None:
    world = make_world(ignore_users=("bob",))
    await world.begin()
    case.before(world)
    comment = world.gitea.say(REPO, 1, case.body, user=case.user, **case.more)
    if how == "webhook":
        world.bridge.poller.consider(_as_told(world, comment), source="webhook")
    case.after(world, comment)

    await world.go(30)

    assert world.drone.asked["POST /api/repos/coop-cloud/recipe-ci/builds"] == 0
    assert world.all_final
    if case.answer:
        assert case.answer in world.answer()
        assert f"<!-- coopcloud-ci:{comment.id} -->" in world.answer()
    else:
        # Our own `!testme` is the one comment of the bot there; nothing else was written.
        assert world.gitea.posts == []
    assert world.gitea.repos[REPO].statuses == []


def _as_told(world: World, comment: FakeComment) -> Any:
    from bridge.comments import read_comment

    repo = world.gitea.repos[REPO]
    number = comment.number if repo.pulls[comment.number].is_pull else 0
    return read_comment(REPO, world.gitea._comment_json(repo, comment), pr=number, sha=repo.pulls[1].sha)


@pytest.mark.parametrize("fault", ["500", "502", "303", "401", "403", "html", "hang", "connect"])
async def test_no_answer_about_membership_is_neither_yes_nor_no(make_world: MakeWorld, fault: str) -> None:
    world = make_world()
    await world.begin()
    world.gitea.fault = lambda _method, path: fault if "/members/" in path else None
    comment = world.testme()

    await world.go(60)

    assert world.drone.builds == {}
    assert world.gitea.posts == []
    assert world.row(comment).state is State.SEEN
    assert world.bridge.health()["status"] == "degraded"
    world.gitea.fault = lambda _method, _path: None
    await world.go(120)
    assert len(world.drone.builds) == 1


async def test_a_bot_outside_the_organisation_gets_no_answer_and_gives_none(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.gitea.members["recipe-maintainers"].discard(1)
    comment = world.testme()

    await world.go(60)

    assert (world.drone.builds, world.gitea.posts) == ({}, [])
    assert world.row(comment).state is State.SEEN


async def test_a_login_that_changed_hands_is_no_member(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme(user=4)
    # Between two requests mallory becomes `alice`, and alice somebody else.
    world.gitea.fault = lambda _method, path: _swap(world) if "/members/" in path else None

    await world.go(30)

    assert world.drone.builds == {}


def _swap(world: World) -> None:
    world.gitea.users.update({4: "mallory-old", 5: "mallory"})
    world.gitea.members["recipe-maintainers"].add(5)


async def test_a_stranger_is_answered_once_on_a_pull_request(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    for _ in range(3):
        world.testme(user=4)
        await world.go(10)

    assert len(world.gitea.answers(REPO, 1)) == 1


async def test_a_member_removed_between_comment_and_build_starts_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.down = True
    world.testme()
    await world.go(60)
    assert "Drone does not answer" in world.answer()
    world.gitea.members["recipe-maintainers"].discard(2)
    world.drone.down = False

    await world.go(120)

    assert world.drone.builds == {}
    assert "Only members" in world.answer()
    assert world.gitea.repos[REPO].statuses[-1]["state"] == "error"


@pytest.mark.parametrize("pushed", [0, 1, 5])
async def test_a_push_between_comment_and_poll_asks_for_a_new_comment(make_world: MakeWorld, pushed: int) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    world.clock.advance(pushed)
    world.gitea.push(REPO, 1, "b" * 40)

    await world.go(30)

    assert world.drone.builds == {}
    assert "pushed to this pull request" in world.answer()


async def test_a_push_that_the_timeline_does_not_tell_yet_is_waited_for(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    world.clock.advance(1)
    world.gitea.push(REPO, 1, "b" * 40, dealt_with=False)
    await world.turn()
    world.clock.advance(2)
    await world.turn()
    world.gitea.deal_with_push(REPO, 1)

    await world.go(30)

    assert world.drone.builds == {}
    assert "pushed to this pull request" in world.answer()


@pytest.mark.parametrize("told", [0, 220])
async def test_a_push_hidden_behind_pages_of_review_comments_is_found(make_world: MakeWorld, told: int) -> None:
    world = make_world()
    await world.begin()
    world.testme()
    pull = world.gitea.repos[REPO].pulls[1]
    now = int(world.clock.time())
    pull.timeline += [{"type": "code", "created": now} for _ in range(220)]
    pull.review_comments = told
    world.gitea.push(REPO, 1, "b" * 40)

    await world.go(30)

    assert world.drone.builds == {}


async def test_a_push_well_before_the_comment_is_what_is_tested(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.gitea.push(REPO, 1, "b" * 40)
    world.clock.advance(5)
    world.testme()

    await world.go(30)

    assert world.drone.builds[1]["params"]["REF"] == "b" * 40


async def test_a_push_after_the_commit_was_pinned_changes_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    await world.begin()
    world.drone.down = True
    comment = world.testme()
    await world.go(30)
    world.gitea.push(REPO, 1, "b" * 40)
    world.drone.down = False

    await world.go(120)

    assert world.drone.builds[1]["params"]["REF"] == f"{1:040x}"
    assert world.row(comment).sha == f"{1:040x}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit_user_hour": 2}, "one person may"),
        ({"limit_repo_hour": 2}, "This repository has had"),
        ({"limit_active": 2}, "As many tests are waiting"),
    ],
)
async def test_what_is_over_a_limit_is_answered_once(
    make_world: MakeWorld, settings: dict[str, Any], words: str
) -> None:
    world = make_world(**settings)
    for number in (2, 3):
        world.gitea.add_pull(REPO, number)
    await world.begin()
    for number in (1, 2, 3):
        world.testme(number)
        await world.go(10)
    world.testme(3)
    await world.go(10)

    assert len(world.drone.builds) == 2
    assert words in world.answer(3)


async def test_a_limit_ends_with_its_hour(make_world: MakeWorld) -> None:
    world = make_world(limit_user_hour=1)
    world.gitea.add_pull(REPO, 2)
    await world.begin()
    world.testme(1)
    await world.go(10)
    world.clock.advance(3700)
    world.testme(2)

    await world.go(10)

    assert len(world.drone.builds) == 2


HOSTILE = [
    "x; touch pwned",
    "..",
    "-rf",
    ".x",
    "Big",
    "a" * 100,
    "a b",
    "a\nb",
    "$(id)",
    "--upload-pack=x",
    "a" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name)[:20])
async def test_a_hostile_recipe_name_never_reaches_drone(make_world: MakeWorld, name: str) -> None:
    world = make_world(poll_repos=(), poll_orgs=("coop-cloud",))
    repo = f"coop-cloud/{name}"
    world.gitea.add_repo(repo, topics=("coopcloud-ci",))
    world.gitea.add_pull(repo)
    await world.begin()
    world.gitea.say(repo, 1, "!testme")

    await world.go(30)

    assert world.drone.builds == {}
    for answer in world.gitea.answers(repo):
        assert "cannot be tested" in answer.body


async def test_a_comment_from_before_the_enrolment_does_not_count(make_world: MakeWorld) -> None:
    world = make_world()
    world.testme()
    world.clock.advance(600)
    await world.begin()

    await world.go(60)

    assert world.drone.builds == {}


async def test_a_comment_that_is_too_old_is_told_so(make_world: MakeWorld) -> None:
    world = make_world(comment_max_age=3600.0)
    await world.begin()
    world.testme()
    world.clock.advance(7200)

    await world.go(30)

    assert world.drone.builds == {}
    assert "too old" in world.answer()


async def test_a_repository_that_is_not_enrolled_starts_nothing(make_world: MakeWorld) -> None:
    world = make_world()
    world.gitea.add_pull("elsewhere/thing")
    await world.begin()
    comment = world.gitea.say("elsewhere/thing", 1, "!testme")
    from bridge.comments import read_comment

    told = world.gitea._comment_json(world.gitea.repos["elsewhere/thing"], comment)
    world.bridge.poller.consider(read_comment("elsewhere/thing", told), source="webhook")

    await world.go(30)

    assert (world.drone.builds, world.gitea.posts) == ({}, [])
    assert world.all_final
