"""Real recipes through every stage on a real Swarm, deployed by the stand-in for abra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.swarm.test_lifecycle import STAGES

pytestmark = [
    pytest.mark.swarm,
    pytest.mark.slow,
    pytest.mark.usefixtures("nothing_left", "backupbot"),
]
VERSIONS = ["0.9", "0.10", "0.13"]


def test_every_version_of_abra_passes_every_stage_all_at_once(recipe_of: Callable[..., Path], trials: Callable) -> None:
    hello = recipe_of("hello")

    *hellos, guestbook = trials(*((hello, version, ()) for version in VERSIONS), (recipe_of("guestbook"), "0.13", ()))

    for version, done in zip(VERSIONS, hellos, strict=True):
        assert done.code == 0, done.output
        assert done.stages() == {**dict.fromkeys(STAGES, "pass"), "recipe": "skip"}
        assert done.result.level == 5
        assert (done.result.deployer, done.result.deployer_version) == ("abra", f"abra {version}.0-beta-standin")
        assert any("deployed by abra untouched" in note for note in done.result.notes)
        assert not (done.folder / "abra").exists()
    assert guestbook.code == 0, guestbook.output
    assert guestbook.stages() == dict.fromkeys(STAGES, "pass")
    assert guestbook.result.level == 5
    upgrade = guestbook.result.stages[1]
    assert (upgrade.version_before, upgrade.version_after) == ("2.0.0+2.0.0", "2.1.0+2.1.0")
    assert [image.digest for image in upgrade.images_before] != [image.digest for image in upgrade.images_after]
    assert "backup.sql" in (guestbook.folder / "artifacts" / "backup.listing.txt").read_text()
