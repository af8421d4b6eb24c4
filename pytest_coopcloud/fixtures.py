"""What tests of a recipe get: `recipe`, `app`, `http`, and the steps `deploy`, `upgrade`, `backup`, `restore`.

At most one app of a run is live at any time: a test that deploys its own takes the shared one down first, and the next
test that asks for `app` gets a new one. Every app goes with the run, whatever a test does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests

if TYPE_CHECKING:
    from pytest_coopcloud.app import App
    from pytest_coopcloud.deployers.protocol import Archive
    from pytest_coopcloud.lifecycle import Trial

__all__ = ["AppSession", "RecipeUnderTest"]


@dataclass(frozen=True)
class RecipeUnderTest:
    """The recipe, as hooks and tests see it.

    Attributes:
        name: The recipe's name.
        path: The checkout of the head.
        ref: Its commit; empty outside git.
        versions: The published versions, oldest first.
        run_id: The run.
        domain: The domain that the app has, or will have.
        base_domain: What that ends in.
    """

    name: str
    path: Path
    ref: str
    versions: tuple[str, ...]
    run_id: str
    domain: str
    base_domain: str

    def subdomain(self, label: str) -> str:
        """Return another host of this run that the wildcard certificate fits: `<run id>-<label>.<base domain>`."""
        return f"{self.run_id}-{label}.{self.base_domain}"


class AppSession(requests.Session):
    """A session bound to the app: relative addresses are the app's own, names lead to the gateway, TLS is verified.

    Example:
        >>> def test_front_page(http):
        ...     assert http.get("/").status_code == 200
    """

    def __init__(self, app: App) -> None:
        super().__init__()
        self.base = app.url
        self.trust_env = False
        for prefix, adapter in app.http.adapters.items():
            self.mount(prefix, adapter)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; a relative address is below the app's own."""
        text = url.decode() if isinstance(url, bytes) else url
        kwargs.setdefault("timeout", 30)
        return super().request(method, urljoin(self.base, text), *args, **kwargs)


def _trial(request: pytest.FixtureRequest) -> Trial:
    from pytest_coopcloud.plugin import TRIAL

    return request.config.stash[TRIAL]


@pytest.fixture
def recipe(request: pytest.FixtureRequest) -> RecipeUnderTest:
    """The recipe under test."""
    return _trial(request).recipe


@pytest.fixture
def app(request: pytest.FixtureRequest) -> App:
    """The head, deployed, converged and answering. Shared by tests; made anew after one that failed a stage or deployed."""
    trial = _trial(request)
    trial.ensure_head(trial.record)
    assert trial.run.app is not None
    return trial.run.app


@pytest.fixture
def http(app: App) -> Iterator[AppSession]:
    """A `requests` session bound to the app: `http.get("/path")`."""
    with AppSession(app) as session:
        yield session


@pytest.fixture
def deploy(request: pytest.FixtureRequest) -> Iterator[Callable[..., App]]:
    """Deploy any version from nothing: `deploy()` for the head, `deploy("1.0.0+1.2", env={"KEY": "value"})`.

    Each call takes down what was there before, with its data; the last app goes at the end of the test.
    """
    trial = _trial(request)

    def deploy_version(version: str = "head", *, env: Mapping[str, str] | None = None) -> App:
        release = trial.release(version)
        trial.run.prepare(release, env)
        return trial.run.deploy(release, trial.record, env)

    yield deploy_version
    trial.run.undeploy(trial.record)


@pytest.fixture
def upgrade(request: pytest.FixtureRequest) -> Callable[..., App]:
    """Move the live app to another version in place: `upgrade()` for the head; its data stays."""
    trial = _trial(request)

    def upgrade_to(version: str = "head", *, env: Mapping[str, str] | None = None) -> App:
        release = trial.release(version)
        trial.run.prepare(release, env)
        return trial.run.upgrade(release, trial.record, env)

    return upgrade_to


@pytest.fixture
def backup(request: pytest.FixtureRequest) -> Callable[[], Archive]:
    """Back the live app up, as its labels say; the archive lists what is in it and goes with the run."""
    trial = _trial(request)
    return lambda: trial.run.backup(trial.record)


@pytest.fixture
def restore(request: pytest.FixtureRequest) -> Callable[[Archive], None]:
    """Restore an archive into the live app, as its labels say."""
    trial = _trial(request)

    def restore_archive(archive: Archive) -> None:
        trial.run.restore(archive, trial.record)
        trial.run.until_up(trial.record)

    return restore_archive
