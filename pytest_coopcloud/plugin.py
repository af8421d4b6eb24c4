"""The `pytest11` entry point: options and wiring. It decides nothing, and loads nothing unless `--recipe` is given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_coopcloud.lifecycle import Trial

__all__ = ["RECIPE", "TRIAL"]

#: The run, for fixtures; there while `--recipe` is tested.
TRIAL: pytest.StashKey[Trial] = pytest.StashKey()
#: Whether a recipe is under test.
RECIPE: pytest.StashKey[bool] = pytest.StashKey()

STAGES = ("install", "upgrade", "backup", "restore", "recipe", "teardown")


def _variable(name: str, default: str = "") -> str:
    return os.environ.get(name) or default


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options, each with the environment variable that does the same."""
    group = parser.getgroup("coopcloud", "Co-op Cloud recipes")

    def add(option: str, **kwargs: object) -> None:
        group.addoption(option, **kwargs)

    add(
        "--recipe",
        metavar="RECIPE",
        help="the recipe to test: its name, a path (`.` is the working tree here), or a git URL (env RECIPE)",
    )
    add("--recipe-ref", metavar="REF", help="the commit, branch or tag to test instead of what is there (env REF)")
    add(
        "--recipe-src",
        metavar="OWNER/NAME",
        help="the repository on the forge that the pull request is opened against (env SRC)",
    )
    add("--recipe-pr", metavar="NUMBER", help="the pull request; the commit is then given by --recipe-ref (env PR)")
    add(
        "--stages",
        metavar="STAGE,...",
        help=f"only these stages, of {', '.join(STAGES[:-1])}; teardown always runs (env STAGES)",
    )
    add(
        "--upgrade-from",
        metavar="WHICH",
        help="published versions to upgrade from: last:1 (default), last:N, all, or a version (env COOPCLOUD_UPGRADE_FROM)",
    )
    add(
        "--deployer",
        metavar="NAME",
        help="swarm (built in) or abra; by default abra where it is on PATH, else swarm (ini deployer, env COOPCLOUD_DEPLOYER)",
    )
    add(
        "--base-domain",
        metavar="DOMAIN",
        help="what the app's domain ends in; default ci.localhost (env COOPCLOUD_BASE_DOMAIN)",
    )
    add(
        "--gateway",
        metavar="HOST:PORT",
        help="where the app's domain leads, for requests and for the browser; by default the swarm's Traefik, or one that is "
        "started for the run (env COOPCLOUD_GATEWAY)",
    )
    add("--gateway-ca", metavar="FILE", help="a CA to trust at the gateway (env COOPCLOUD_GATEWAY_CA)")
    add("--keep-app", action="store_true", help="leave the app at the end and say how to look inside and how to go on")
    add("--reuse-app", metavar="RUN_ID", help="go on with the app that a run with --keep-app has left")
    add(
        "--max-runs",
        metavar="N",
        type=int,
        help="how many runs this host may have at once; others wait; default 1 (env MAX_TESTS)",
    )
    add("--queue-timeout", metavar="SECONDS", type=float, help="how long to wait for a place; default 3600")
    add(
        "--run-timeout",
        metavar="SECONDS",
        type=float,
        help="how long the run may take; default 3600 (env COOPCLOUD_RUN_TIMEOUT)",
    )
    add("--traefik-image", metavar="IMAGE", help="the image of the proxy of our own (env COOPCLOUD_TRAEFIK_IMAGE)")
    add("--restic-image", metavar="IMAGE", help="the image that backs up (env COOPCLOUD_RESTIC_IMAGE)")
    add("--no-screenshots", action="store_true", help="take no screenshots")
    parser.addini("deployer", "the default of --deployer", default="")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks of an enrolment."""
    from pytest_coopcloud import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Wire the trial in where a recipe is under test; else stay out of the way."""
    wanted = config.getoption("recipe") or _variable("RECIPE")
    config.stash[RECIPE] = bool(wanted)
    if not wanted or hasattr(config, "workerinput"):
        return
    from pytest_coopcloud import fixtures
    from pytest_coopcloud.reports import TrialPlugin

    if getattr(config.option, "dist", "no") != "no" or getattr(config.option, "tx", None):
        # One app of a run is live at a time: there is nothing to spread over processes.
        config.option.dist, config.option.tx, config.option.numprocesses = "no", [], None
        config.stash[DISTRIBUTED] = True
    if not getattr(config.option, "xmlpath", "given") and not config.option.collectonly:
        # Every run has a JUnit file; the trial says where, once its folder is there.
        config.option.xmlpath = os.devnull
    config.pluginmanager.register(fixtures, "coopcloud-fixtures")
    if config.pluginmanager.hasplugin("playwright"):
        from pytest_coopcloud import browser_fixtures

        config.pluginmanager.register(browser_fixtures, "coopcloud-browser-fixtures")
    config.pluginmanager.register(TrialPlugin(config, str(wanted)), "coopcloud-trial")


#: Whether the user asked pytest-xdist for several processes, which is not done.
DISTRIBUTED: pytest.StashKey[bool] = pytest.StashKey()
