"""What makes pytest-playwright's `page` and `browser` work against the app, where that plugin is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_coopcloud.browser import find_chromium, launch_arguments
from pytest_coopcloud.plugin import TRIAL

if TYPE_CHECKING:
    from pytest_coopcloud.app import App


@pytest.fixture(scope="session")
def browser_type_launch_args(
    browser_type_launch_args: dict[str, Any], request: pytest.FixtureRequest
) -> dict[str, Any]:
    """Start the browser that is here, so that the run's names lead to the gateway."""
    run = request.config.stash[TRIAL].run
    run.ensure_proxy()
    merged = dict(browser_type_launch_args)
    merged["args"] = [*merged.get("args", []), *launch_arguments(run.gateway, run.name.base_domain)]
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("there is no Chromium here: install `chromium`, or run `playwright install chromium`")
    merged.setdefault("executable_path", str(chromium))
    return merged


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """The address that `page.goto("/")` begins at: the app's."""
    return f"https://{request.config.stash[TRIAL].run.name.domain}/"


@pytest.fixture
def page(app: App, page: Any) -> Any:
    """A page of pytest-playwright, with the app live."""
    del app
    return page
