"""The long sweep (`./dev soak`): through abra a recipe comes to the same end as with the built-in deployer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.swarm.test_lifecycle import BROKEN

pytestmark = [
    pytest.mark.swarm,
    pytest.mark.slow,
    pytest.mark.usefixtures("nothing_left", "backupbot"),
]
VERSIONS = ["0.9", "0.10", "0.13"]


@pytest.mark.parametrize("name", ["guestbook", "custom-html"])
def test_every_version_comes_to_the_verdict_of_the_built_in_deployer(
    name: str, recipe_of: Callable[..., Path], trials: Callable
) -> None:
    recipe = recipe_of(name)

    built_in, *others = trials(*((recipe, version, ()) for version in ("", *VERSIONS)))

    assert built_in.code == 0, built_in.output
    for done in others:
        assert done.code == built_in.code, done.output
        assert done.stages() == built_in.stages()
        assert (done.result.verdict, done.result.level) == (built_in.result.verdict, built_in.result.level)
        for mine, theirs in zip(done.result.stages, built_in.result.stages, strict=True):
            assert (mine.version_before, mine.version_after) == (theirs.version_before, theirs.version_after)
            assert mine.images_after == theirs.images_after


@pytest.mark.parametrize(("variant", "stage", "reason", "cause"), BROKEN)
def test_broken_guestbook_fails_where_it_is_broken(
    recipe_of: Callable[..., Path], abra_trial: Callable, variant: str, stage: str, reason: str, cause: str | None
) -> None:
    done = abra_trial(recipe_of("guestbook", variant))

    assert done.code == 1, done.output
    assert [title for title, outcome in done.stages().items() if outcome == "fail"] == [stage], done.output
    record, why = done.result.first_cause
    assert record.title == stage
    assert reason in why.summary
    assert cause is None or why.kind.value == cause
    assert done.stages()["teardown"] == "pass"


def test_two_runs_at_once_test_a_commit_each(recipe_of: Callable[..., Path], trials: Callable) -> None:
    hello = recipe_of("hello")
    commits = {
        ref: subprocess.run(
            ["git", "-C", str(hello), "rev-parse", f"{ref}^{{commit}}"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        for ref in ("HEAD", "1.0.0+1.0.0")
    }

    new, old = trials(*((hello, "0.13", (f"--recipe-ref={commit}", "--stages=install")) for commit in commits.values()))

    assert (new.code, old.code) == (0, 0), new.output + old.output
    assert [new.result.ref, old.result.ref] == list(commits.values())
    images = [done.result.stages[0].images_after[0] for done in (new, old)]
    assert [image.image for image in images] == ["coopcloud-lab/hello:1.1.0", "coopcloud-lab/hello:1.0.0"]
    assert images[0].digest != images[1].digest
