"""Real recipes through every stage on a real Swarm, deployed by the stand-in for abra."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.swarm,
    pytest.mark.slow,
    pytest.mark.usefixtures("nothing_left", "backupbot"),
]

STAGES = ["install", "upgrade", "backup", "restore", "recipe", "teardown"]


def test_guestbook_passes_every_stage(recipe_of: Callable[..., Path], abra_trial: Callable) -> None:
    done = abra_trial(recipe_of("guestbook"))

    assert done.code == 0, done.output
    assert done.stages() == dict.fromkeys(STAGES, "pass")
