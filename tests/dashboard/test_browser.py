"""The pages in a real browser: narrow and wide, light and dark, without scripts, live, and accessible."""

import fcntl
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from dashboard.app import create_app
from dashboard.settings import Settings
from pytest_coopcloud.results import Outcome, Stage, write_result
from tests.dashboard.runs import Kind, make_run, mixed_states

pytestmark = pytest.mark.browser

AXE = "axe-core@4"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core, installed once into the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coopcloud-ci" / "axe"
    cache.mkdir(parents=True, exist_ok=True)
    found = cache / "node_modules" / "axe-core" / "axe.min.js"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            asked = ["npm", "install", "--prefix", str(cache), "--no-save", "--no-audit", "--no-fund", AXE]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=120)
            if done.returncode and not os.environ.get("CI"):
                pytest.skip(f"axe-core cannot be installed: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
    return found.read_text()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Forty recipes in mixed states: the folder, and the runs."""
    runs = tmp_path_factory.mktemp("runs")
    return runs, mixed_states(runs, time.time())


def pages_of(fleet):
    _, made = fleet
    failed = next(r for r in made if r.artifacts and r.first_cause and r.first_cause[0].stage is Stage.UPGRADE)
    running = next(r for r in made if r.finished_at is None)
    return {
        "front": "/",
        "recipe": f"/recipe/{failed.recipe}",
        "failed": f"/run/{failed.run_id}",
        "running": f"/run/{running.run_id}",
        "log": f"/run/{failed.run_id}/log/artifacts/app.log",
        "api": "/api",
        "missing": "/run/none",
        "report": f"/run/{failed.run_id}/report",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1440])
def test_pages_fit_without_scripts_and_axe_finds_nothing_serious(browser, axe, serve, fleet, width, scheme):
    address = serve(create_app(Settings(results_dir=fleet[0])))
    # The policy of our pages forbids the checker as well; `bypass_csp` lets it in, and the pages' own scripts stay off
    # because their events are not followed while it looks.
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.route("**/static/live.js*", lambda route: route.abort())

    for name, path in pages_of(fleet).items():
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width} px"
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [
            (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], name
    context.close()


def test_the_pages_obey_their_own_policy(browser, serve, fleet):
    address = serve(create_app(Settings(results_dir=fleet[0])))
    context = browser.new_context()
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))

    for name, path in pages_of(fleet).items():
        if name != "missing":
            page.goto(address + path)
            page.wait_for_load_state("load")
    assert said == []
    context.close()


def test_a_running_run_ticks_on_without_reload(browser, serve, runs):
    result = make_run(runs, "hedgedoc", kind=Kind.RUNNING, started_at=time.time() - 60)
    address = serve(create_app(Settings(results_dir=runs)))
    page = browser.new_page()
    page.goto(f"{address}/run/{result.run_id}")
    page.evaluate("window.same = true")
    page.locator("details.stage").first.locator("summary").click()
    page.wait_for_function("document.querySelector('.verdict').textContent.includes('running: backup')")
    elapsed = page.locator(".progress p").text_content()

    page.wait_for_function(
        "old => document.querySelector('.progress p').textContent !== old", arg=elapsed, timeout=8000
    )
    record = result.stage(Stage.BACKUP)
    record.outcome = Outcome.PASS
    result.stages = [one for one in result.stages if one.outcome is not None]
    result.finished_at = time.time()
    write_result(result, runs / result.run_id)
    expect(page.locator(".verdict")).to_contain_text("passed", timeout=8000)

    assert page.evaluate("window.same") is True
    assert page.locator("details.stage").first.get_attribute("open") is not None
    page.close()


def test_a_running_run_reloads_itself_without_scripts(browser, serve, runs):
    result = make_run(runs, "hedgedoc", kind=Kind.RUNNING, started_at=time.time() - 60)
    address = serve(create_app(Settings(results_dir=runs)))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/run/{result.run_id}")

    with page.expect_navigation(timeout=15_000):
        pass

    assert re.search("running: backup", page.locator(".verdict").text_content())
    context.close()


def test_the_keyboard_reaches_the_content_first(browser, serve, runs):
    make_run(runs, "hedgedoc", started_at=time.time() - 600)
    address = serve(create_app(Settings(results_dir=runs)))
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector("tr.recipe")

    page.keyboard.press("Tab")

    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.locator(".skip-link").bounding_box()["x"] >= 0
    page.close()
