"""Test a Co-op Cloud recipe on a real Docker Swarm: install, upgrade, backup, restore, and nothing left behind.

    pip install pytest-coopcloud && pytest --recipe=.

What an enrolment (`recipes/<name>/conftest.py`) needs is here:

    from pytest_coopcloud import Check, RecipeMeta
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_coopcloud.app import App
    from pytest_coopcloud.deployers.protocol import Archive
    from pytest_coopcloud.docker import ExecResult
    from pytest_coopcloud.errors import CoopCloudError
    from pytest_coopcloud.fixtures import AppSession, RecipeUnderTest
    from pytest_coopcloud.meta import Check, RecipeMeta
    from pytest_coopcloud.policy import Allow
    from pytest_coopcloud.results import Outcome, RunResult, Stage, StageResult

#: Where each public name stands. They are loaded when they are used: every pytest of a user imports this package.
_PUBLIC = {
    "Allow": "policy",
    "App": "app",
    "AppSession": "fixtures",
    "Archive": "deployers.protocol",
    "Check": "meta",
    "CoopCloudError": "errors",
    "ExecResult": "docker",
    "Outcome": "results",
    "RecipeMeta": "meta",
    "RecipeUnderTest": "fixtures",
    "RunResult": "results",
    "Stage": "results",
    "StageResult": "results",
}

__all__ = [
    "Allow",
    "App",
    "AppSession",
    "Archive",
    "Check",
    "CoopCloudError",
    "ExecResult",
    "Outcome",
    "RecipeMeta",
    "RecipeUnderTest",
    "RunResult",
    "Stage",
    "StageResult",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
