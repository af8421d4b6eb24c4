"""A real recipe through every stage on a real Swarm, and six that are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.swarm, pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

STAGES = ["install", "upgrade", "backup", "restore", "recipe", "teardown"]
#: Variants of guestbook: the stage in which each fails, a word of the reason, and whose fault it is.
BROKEN = [
    ("image-missing", "install", "coopcloud-lab/guestbook:2.1.1", None),
    ("never-healthy", "install", "app", "recipe"),
    ("no-route", "install", "the proxy cannot reach the app", "recipe"),
    ("upgrade-drops-table", "upgrade", "is gone", "recipe"),
    ("backup-misses-database", "restore", "is gone", "recipe"),
    ("vacuous", "upgrade", "vacuous upgrade", "recipe"),
]


def test_guestbook_passes_every_stage(recipe_of: Callable[..., Path], trial: Callable) -> None:
    done = trial(recipe_of("guestbook"))

    assert done.code == 0, done.output
    assert done.stages() == dict.fromkeys(STAGES, "pass")
    assert done.result.level == 5
    assert done.result.version == "2.1.0+2.1.0"
    assert done.output.rstrip().splitlines()[-1].startswith("verdict: passed, level 5 of 5")
    upgrade = done.result.stages[1]
    assert (upgrade.version_before, upgrade.version_after) == ("2.0.0+2.0.0", "2.1.0+2.1.0")
    assert {image.service for image in upgrade.images_after} == {"app", "db"}
    assert [image.digest for image in upgrade.images_before] != [image.digest for image in upgrade.images_after]
    assert "backup.sql" in (done.folder / "artifacts" / "backup.listing.txt").read_text()


def test_hello_passes_in_an_empty_directory_with_no_enrolment(recipe_of: Callable[..., Path], trial: Callable) -> None:
    done = trial(recipe_of("hello"))

    assert done.code == 0, done.output
    assert done.result.enrolment == "generic"
    assert done.stages() == {**dict.fromkeys(STAGES, "pass"), "recipe": "skip"}
    assert "has no tests of its own" in done.output


@pytest.mark.parametrize(("variant", "stage", "reason", "cause"), BROKEN)
def test_broken_guestbook_fails_where_it_is_broken(
    recipe_of: Callable[..., Path], trial: Callable, variant: str, stage: str, reason: str, cause: str | None
) -> None:
    done = trial(recipe_of("guestbook", variant))

    assert done.code == 1, done.output
    failed = [title for title, outcome in done.stages().items() if outcome == "fail"]
    assert failed == [stage], done.output
    record, why = done.result.first_cause
    assert record.title == stage
    assert reason in why.summary
    assert cause is None or why.kind.value == cause
    assert done.stages()["teardown"] == "pass"
    if variant == "image-missing":
        assert record.duration_seconds < 15
