from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bridge.world import World


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def make_world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Callable[..., World]]:
    """Make a forge, a Drone and a bridge between them; settings as keywords. No results are seen but where asked for."""
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(tmp_path, **{"results_dir": Path("none"), **changes}))
        return made[-1]

    yield make
    for one in made:
        await one.close()
        assert one.gitea.unexpected == []
        assert one.drone.unexpected == []
