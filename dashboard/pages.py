"""Every page, from its template. Rows of the front page are rendered once and kept while they say the same."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from dashboard.badges import Style, Word, badge_for
from dashboard.builds import Build
from dashboard.feed import changes
from dashboard.fleet import Fleet, RecipeRow, Sort, select
from dashboard.logs import HITS, Found, Window
from dashboard.plots import durations_plot
from dashboard.settings import Settings
from dashboard.store import Row
from pytest_coopcloud import report
from pytest_coopcloud.report.words import State
from pytest_coopcloud.results import Artifact, RunResult

__all__ = ["Pages"]

RUNS_A_PAGE = 50
_KEPT_PAGES = 64
_SHARED = Path(report.__file__).parent
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9._-]{1,100}")

LOG_KINDS = frozenset(report.LOG_KINDS)


class Pages:
    """The templates, with what they need to know."""

    def __init__(self, settings: Settings, fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._rows: dict[str, tuple[Hashable, Markup]] = {}
        self._fronts: OrderedDict[Hashable, str] = OrderedDict()
        self._plots: dict[str, tuple[int, Markup]] = {}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader([Path(__file__).parent / "templates", _SHARED]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        report.add_words(self._environment)
        self._environment.filters.update(path=lambda value: quote(str(value), safe="/"))
        self._environment.globals.update(
            title=settings.title,
            style_version=style_version(),
            script_version=script_version(),
            pull_url=self.pull_url,
            commit_url=self.commit_url,
            build_url=self.build_url,
            run_word=self.run_word,
            Sort=Sort,
            Style=Style,
            drone=fleet.drone,
        )

    def front(self, *, words: str, state: State | None, sort: Sort) -> str:
        """Return the front page."""
        fleet = self._fleet
        now = fleet.clock()
        running = fleet.running()
        # Elapsed times change each second while something runs; ages change by the minute.
        key = (fleet.version, words, state, sort, int(now) if running else int(now // 60))
        if (page := self._fronts.get(key)) is not None:
            return page
        rows = fleet.rows()
        counts = {one: sum(row.state is one for row in rows) for one in (State.FAIL, State.UNVERIFIED, State.PASS)}
        counts[State.RUNNING] = len(running)
        shown = select(rows, words=words, state=state, sort=sort)
        page = self._render(
            "front.html.j2",
            rows=[self._row(row, now) for row in shown],
            total=len(rows),
            counts=counts,
            running=running,
            queue=fleet.queue(),
            lost=fleet.lost(),
            broken=fleet.store.broken(),
            problems=fleet.problems(),
            ready=fleet.store.ready,
            words=words,
            state=state,
            sort=sort,
            now=now,
            events="/events",
            refresh=10 if running or fleet.queue() else 0,
        )
        self._fronts[key] = page
        while len(self._fronts) > _KEPT_PAGES:
            self._fronts.popitem(last=False)
        return page

    def _row(self, row: RecipeRow, now: float) -> Markup:
        key = (
            self._fleet.store.revision(row.recipe),
            row.state,
            row.running.run_id if row.running else "",
            int(now // 60),
        )
        found = self._rows.get(row.recipe)
        if found is None or found[0] != key:
            template = self._environment.get_template("_row.html.j2")
            # The template escapes what it prints.
            found = (key, Markup(template.render(row=row, latest=row.latest, now=now)))  # noqa: S704
            self._rows[row.recipe] = found
        return found[1]

    def recipe(self, name: str, *, page: int, address: str) -> str | None:
        """Return a recipe's page; None where it has no run."""
        fleet = self._fleet
        row = fleet.row(name)
        if row is None:
            return None
        rows = fleet.store.of_recipe(name)
        pages = max(-(-len(rows) // RUNS_A_PAGE), 1)
        page = min(max(page, 1), pages)
        versions: dict[str, Row] = {}
        for one in rows:
            if one.version and one.finished:
                versions.setdefault(one.version, one)
        return self._render(
            "recipe.html.j2",
            row=row,
            rows=[(one, fleet.state(one)) for one in rows[(page - 1) * RUNS_A_PAGE : page * RUNS_A_PAGE]],
            page=page,
            pages=pages,
            versions=[(version, one, fleet.state(one)) for version, one in list(versions.items())[:20]],
            history=fleet.history(name),
            badge=self.badge(name, ""),
            changes=[change for change in changes(fleet.store) if change.row.recipe == name][:5],
            plot=self._plot(name),
            address=address,
            now=fleet.clock(),
            events=f"/events?recipe={name}",
            refresh=10 if row.running else 0,
        )

    def _plot(self, name: str) -> Markup:
        revision = self._fleet.store.revision(name)
        found = self._plots.get(name)
        if found is None or found[0] != revision:
            if len(self._plots) >= _KEPT_PAGES:
                self._plots.clear()
            found = (revision, durations_plot(self._fleet.store.of_recipe(name)))
            self._plots[name] = found
        return found[1]

    def run(self, result: RunResult, row: Row, present: Callable[[str], int | None]) -> str:
        """Return a run's page.

        Args:
            result: The whole result.
            row: What the index knows of it.
            present: Returns the size of a file of the run that may be served; None where there is none.
        """
        fleet = self._fleet
        rows = fleet.store.of_recipe(row.recipe)
        position = next((index for index, one in enumerate(rows) if one.run_id == row.run_id), 0)
        files = [(one, present(one.path)) for one in result.artifacts]
        state = fleet.state(row)
        return self._render(
            "run.html.j2",
            result=result,
            row=row,
            state=state,
            older=rows[position + 1] if position + 1 < len(rows) else None,
            newer=rows[position - 1] if position else None,
            logs=[(one, size) for one, size in files if one.kind in LOG_KINDS],
            pictures=[(one, size) for one, size in files if one.kind == "screenshot"],
            whole=[(name, size) for name in ("report.html", "junit.xml", "results.json") if (size := present(name))],
            expected=fleet.usual(row.recipe),
            now=fleet.clock(),
            events=f"/events?run={row.run_id}" if not row.finished else "",
            refresh=5 if state is State.RUNNING else 0,
        )

    def broken(self, run_id: str, reason: str) -> str:
        """Return the page of a run that cannot be read."""
        return self._render("broken.html.j2", run_id=run_id, reason=reason, events="", refresh=0)

    def log(
        self,
        result: RunResult,
        artifact: Artifact,
        window: Window | None,
        found: tuple[list[Found], bool] | None,
        words: str,
    ) -> str:
        """Return a part of a log, or what a search found in it."""
        return self._render(
            "log.html.j2",
            result=result,
            artifact=artifact,
            window=window,
            found=found,
            words=words,
            hits=HITS,
            others=[one for one in result.artifacts if one.kind in LOG_KINDS],
            events="",
            refresh=0,
        )

    def api(self, schema: dict[str, Any]) -> str:
        """Return the page that explains the API."""
        return self._render("api.html.j2", schema=schema, events="", refresh=0)

    def error(self, status: int, text: str) -> str:
        """Return the page of an error."""
        return self._render("error.html.j2", status=status, text=text, events="", refresh=0)

    def badge(self, recipe: str, pr: str) -> tuple[Word, int | None]:
        """Say what the badge of a recipe says: of its runs that count, or of those of a pull request."""
        rows = self._fleet.store.of_recipe(recipe)
        row = next((one for one in rows if (one.pr == pr if pr else one.counts)), None)
        state = self._fleet.state(row) if row else State.UNKNOWN
        return badge_for(row, state, now=self._fleet.clock(), stale_days=self._settings.stale_days)

    def run_word(self, row: Row, state: State) -> str:
        """Say how a run looks in one word."""
        if not row.finished and state is State.UNVERIFIED:
            return "silent"
        return {State.PASS: "passed", State.FAIL: "failed"}.get(state, state.value)

    def pull_url(self, of: Row | RunResult | Build) -> str:
        """Return the address of a pull request on the forge; empty where there is none."""
        forge = self._settings.forge_url
        if forge and of.pr.isascii() and of.pr.isdigit() and _REPOSITORY.fullmatch(of.src):
            return f"{forge}/{of.src}/pulls/{of.pr}"
        return ""

    def commit_url(self, of: Row | RunResult) -> str:
        """Return the address of a commit on the forge; empty where there is none."""
        forge = self._settings.forge_url
        if forge and re.fullmatch(r"[0-9a-f]{40,64}", of.ref) and _REPOSITORY.fullmatch(of.src):
            return f"{forge}/{of.src}/commit/{of.ref}"
        return ""

    def build_url(self, number: int | None) -> str:
        """Return the address of a build in Drone; empty where there is none."""
        drone = self._settings.drone_public_url or self._settings.drone_url
        return f"{drone}/{self._settings.drone_repo}/{number}" if drone and number is not None else ""

    def _render(self, name: str, **context: Any) -> str:
        return self._environment.get_template(name).render(**context)


def script() -> str:
    """Return our one script."""
    return _static("live.js")


@functools.cache
def _static(name: str) -> str:
    return (Path(__file__).parent / "static" / name).read_text(encoding="utf-8")


def icon() -> str:
    """Return the icon of the tab."""
    return _static("icon.svg")


@functools.cache
def style_version() -> str:
    """Return what changes with the stylesheet."""
    return hashlib.sha256(report.stylesheet().encode()).hexdigest()[:12]


@functools.cache
def script_version() -> str:
    """Return what changes with the script."""
    return hashlib.sha256(script().encode()).hexdigest()[:12]
