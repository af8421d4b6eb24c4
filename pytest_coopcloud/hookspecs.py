"""The contract with `recipes/<name>/conftest.py`.

Each hook is asked of the one recipe under test, never of all that are enrolled: implement it in the conftest of the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_coopcloud.app import App
    from pytest_coopcloud.fixtures import RecipeUnderTest
    from pytest_coopcloud.meta import RecipeMeta
    from pytest_coopcloud.results import StageResult


@pytest.hookspec(firstresult=True)
def pytest_coopcloud_recipe_meta(recipe: RecipeUnderTest) -> RecipeMeta | Mapping[str, Any] | None:
    """Say what the trial of this recipe must know that its files do not.

    Called once, before anything is created. Return a `RecipeMeta`, or a mapping with its keys. The first answer counts.

    Args:
        recipe: The recipe under test, with the domain that it will get.

    *Use in conftest of the recipe.* Example:

        def pytest_coopcloud_recipe_meta(recipe):
            return RecipeMeta(health_path="/login")
    """


def pytest_coopcloud_before_stage(recipe: RecipeUnderTest, stage: StageResult) -> None:
    """Prepare for a stage. An exception fails the stage.

    Called when a stage begins, before it does anything; every implementation is called.

    *Use in conftest of the recipe.*
    """


def pytest_coopcloud_after_stage(recipe: RecipeUnderTest, stage: StageResult) -> None:
    """Look at a stage that has ended; `stage.outcome` says how. An exception fails the stage.

    *Use in conftest of the recipe.*
    """


@pytest.hookspec(firstresult=True)
def pytest_coopcloud_plant(recipe: RecipeUnderTest, app: App) -> Any:
    """Put data into the app, through the app, as a person would, and return what finds it again.

    Called before an upgrade (the published version runs) and before a backup (the head runs). What is returned, anything
    but None, is handed to `pytest_coopcloud_verify`.

    *Use in conftest of the recipe.* Example:

        def pytest_coopcloud_plant(recipe, app):
            app.http.post(app.url + "entries", data={"text": recipe.run_id}).raise_for_status()
            return recipe.run_id
    """


def pytest_coopcloud_verify(recipe: RecipeUnderTest, app: App, planted: Any) -> None:
    """Find the planted data again; raise where it is gone.

    Called after the upgrade and after the restore, with what `pytest_coopcloud_plant` returned.

    *Use in conftest of the recipe.* Example:

        def pytest_coopcloud_verify(recipe, app, planted):
            assert planted in app.http.get(app.url).text, "the entry of before is gone"
    """
